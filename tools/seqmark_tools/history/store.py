# SPDX-License-Identifier: Apache-2.0
"""The history: a SQLite file of every night's rows, by machine.

It is in WAL mode: readers never wait. A run is appended in one transaction, so that it is there
whole or not at all whenever a writer dies, and a run that is there already changes nothing. A
second writer waits for the first.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from seqmark_tools.history.facts import encode, facts_of, machine_of
from seqmark_tools.history.schema import digest, prepare
from seqmark_tools.results import ResultError, ResultFile, Row

DATABASE = Path(__file__).resolve().parents[3] / "results" / "local" / "history.sqlite"
_PATIENCE = 60.0  # seconds to wait for another writer


@dataclass(frozen=True)
class Sample:
    """A row's time in a run, or why it has none."""

    row: str
    seconds: float | None = None
    noise: float | None = None
    failure: str | None = None  # "error: " or "skipped: ", and the reason
    throttled: float | None = None  # share of the time in which the device was held back

    @property
    def is_error(self) -> bool:
        """Whether the row failed; a row that is skipped did not."""
        return self.failure is not None and self.failure.startswith("error: ")


@dataclass(frozen=True)
class Run:
    """A run as it is appended."""

    run_id: str
    machine: str
    date: str  # ISO 8601, UTC
    samples: Sequence[Sample]
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Night:
    """A run of the series, as it is kept."""

    key: int  # in the file
    run_id: str
    date: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What a night made of a row."""

    row: str
    decided: int  # key of the night that decided
    onset: int  # key of the first night at the new level
    kind: str  # seqmark_tools.nightly.judge.Kind
    before: float | None = None  # seconds
    after: float | None = None
    pvalue: float | None = None
    reruns: tuple[float, ...] = ()
    note: str = ""

    @property
    def effect(self) -> float | None:
        """Relative change of the time: 0.05 is 5 % slower."""
        return self.after / self.before - 1 if self.before and self.after else None


def run_of(file: ResultFile, machine: str | None = None, run_id: str | None = None) -> Run:
    """A result file as a run; by default its machine and id are derived from what it says."""
    if "planted" in file.context:
        raise ResultError(f"{file.path}: is of a build with a slowdown planted, no history")
    samples = [_sample(row) for row in file.rows]
    date = _utc(str(file.context.get("date", "")), file.path)
    return Run(
        run_id=run_id or f"{date}-{_digest(samples)[:12]}",
        machine=machine or machine_of(file.context),
        date=date,
        samples=samples,
        facts=facts_of(file.context),
        command=str(file.context.get("command_line", "")),
    )


def _sample(row: Row) -> Sample:
    if row.seconds is not None:
        noise, throttled = row.counter("noise"), row.counter("throttled")
        return Sample(str(row.name), row.seconds, noise, throttled=throttled)
    failure = f"skipped: {row.skip}" if row.error is None else f"error: {row.error}"
    return Sample(str(row.name), failure=failure)


class History:
    """The open file. Use it as a context manager, or close it."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Opens the file, and makes or migrates it; ResultError where that cannot be."""
        self.path = path
        if not create and not path.is_file():
            raise ResultError(
                f"{path}: there is no such history; `seqmark nightly` or `seqmark history import` "
                "make one"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise ResultError(f"{path}: cannot be opened: {error}") from error
        try:
            _use_wal(self._db)
            self._db.execute("PRAGMA foreign_keys = ON")
            prepare(self._db, str(path))
        except sqlite3.Error as error:
            self._db.close()
            raise ResultError(f"{path}: is not a history that can be used: {error}") from error
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def append(self, run: Run) -> bool:
        """Adds the run; False where it is there. ResultError if its id is another run's."""
        content = _digest(run.samples)
        with self._transaction() as db:
            known = db.execute("SELECT digest FROM run WHERE run_id = ?", (run.run_id,)).fetchone()
            if known is not None:
                if known[0] != content:
                    raise ResultError(
                        f"{self.path}: the run {run.run_id} is there with other rows or times; a "
                        "run's id is for one run"
                    )
                return False
            facts = encode(run.facts)
            db.execute("INSERT OR IGNORE INTO machine (name) VALUES (?)", (run.machine,))
            db.execute("INSERT OR IGNORE INTO facts (document) VALUES (?)", (facts,))
            key = db.execute(
                "INSERT INTO run (run_id, machine, date, facts, command, digest) VALUES "
                "(?, (SELECT id FROM machine WHERE name = ?), ?, "
                "(SELECT id FROM facts WHERE document = ?), ?, ?)",
                (run.run_id, run.machine, run.date, facts, run.command, content),
            ).lastrowid
            db.executemany(
                "INSERT OR IGNORE INTO row (name) VALUES (?)", ((s.row,) for s in run.samples)
            )
            db.executemany(
                "INSERT INTO sample (row, run, seconds, noise, failure, throttled) VALUES "
                "((SELECT id FROM row WHERE name = ?), ?, ?, ?, ?, ?)",
                ((s.row, key, s.seconds, s.noise, s.failure, s.throttled) for s in run.samples),
            )
        return True

    def judge(self, night: Night, verdicts: Iterable[Verdict]) -> None:
        """Keeps the verdicts of a night, in place of any that it had."""
        with self._transaction() as db:
            db.execute("DELETE FROM verdict WHERE decided = ?", (night.key,))
            db.executemany(
                "INSERT INTO verdict (row, decided, onset, kind, before, after, pvalue, reruns, "
                "note) VALUES ((SELECT id FROM row WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (v.row, v.decided, v.onset, v.kind, v.before, v.after, v.pvalue, *_told(v))
                    for v in verdicts
                ),
            )
            db.execute("UPDATE run SET judged = 1 WHERE id = ?", (night.key,))

    def is_judged(self, night: Night) -> bool:
        """Whether the night has its verdicts."""
        query = "SELECT judged FROM run WHERE id = ?"
        return bool(self._db.execute(query, (night.key,)).fetchone()[0])

    def machine_of_run(self, run_id: str) -> str | None:
        """The machine that the run was on; None where there is no such run."""
        query = "SELECT name FROM run JOIN machine ON machine.id = machine WHERE run_id = ?"
        found = self._db.execute(query, (run_id,)).fetchone()
        return None if found is None else str(found[0])

    def machines(self) -> list[str]:
        """All machines' names."""
        return [name for (name,) in self._db.execute("SELECT name FROM machine ORDER BY name")]

    def rows(self, machine: str) -> list[str]:
        """All rows that were ever in a night of the machine, sorted."""
        query = (
            "SELECT name FROM row WHERE EXISTS (SELECT 1 FROM sample JOIN run ON run.id = run "
            "JOIN machine ON machine.id = machine WHERE row = row.id "
            "AND machine.name = ?) ORDER BY name"
        )
        return [name for (name,) in self._db.execute(query, (machine,))]

    def nights(self, machine: str) -> list[Night]:
        """The machine's nights, oldest first."""
        query = (
            "SELECT run.id, run_id, date, document FROM run JOIN machine ON machine.id = machine "
            "JOIN facts ON facts.id = facts WHERE machine.name = ? "
            "ORDER BY date, run.id"
        )
        facts: dict[str, dict[str, str]] = {}  # one object for the same facts
        return [
            Night(key, run_id, date, facts.setdefault(document, json.loads(document)))
            for key, run_id, date, document in self._db.execute(query, (machine,))
        ]

    def times(self, machine: str, row: str | None = None) -> dict[str, dict[int, Sample]]:
        """Samples of the machine's nights by row and night's key, of all rows or of one."""
        query = (
            "SELECT row.name, run.id, seconds, noise, failure, throttled FROM sample "
            "JOIN row ON row.id = row JOIN run ON run.id = run "
            "JOIN machine ON machine.id = machine "
            "WHERE machine.name = ? AND (? IS NULL OR row.name = ?)"
        )
        found: dict[str, dict[int, Sample]] = {}
        for name, run, *values in self._db.execute(query, (machine, row, row)):
            found.setdefault(name, {})[run] = Sample(name, *values)
        return found

    def verdicts(self, machine: str, wanted: str | None = None) -> list[Verdict]:
        """What nights made of the machine's rows, or of one, in the order of the decisions."""
        query = (
            "SELECT row.name, decided, onset, verdict.kind, before, after, pvalue, reruns, note "
            "FROM verdict JOIN row ON row.id = row JOIN run ON run.id = decided "
            "JOIN machine ON machine.id = machine "
            "WHERE machine.name = ? AND (? IS NULL OR row.name = ?) ORDER BY date, verdict.id"
        )
        found = self._db.execute(query, (machine, wanted, wanted))
        return [
            Verdict(
                row, decided, onset, kind, before, after, pvalue, tuple(json.loads(times)), note
            )
            for row, decided, onset, kind, before, after, pvalue, times, note in found
        ]

    def every(self, machine: str | None = None) -> Iterator[dict[str, str | float | None]]:
        """Each sample of every run as a flat record, for export."""
        query = (
            "SELECT machine.name AS machine, run_id, date, row.name AS row, "
            "seconds, noise, failure, throttled, command, document AS facts FROM sample "
            "JOIN row ON row.id = row JOIN run ON run.id = run "
            "JOIN machine ON machine.id = machine JOIN facts ON facts.id = facts "
            "WHERE ? IS NULL OR machine.name = ? ORDER BY machine.name, date, run.id, row.name"
        )
        cursor = self._db.execute(query, (machine, machine))
        columns = [column[0] for column in cursor.description]
        for record in cursor:
            yield dict(zip(columns, record, strict=True))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A whole change or none; waits for another writer's to end."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise ResultError(f"{self.path}: cannot be written: {error}") from error
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise ResultError(f"{self.path}: cannot be written: {error}") from error
            raise


def _use_wal(connection: sqlite3.Connection) -> None:
    """Waits while others hold the file: changing the mode fails at once, whatever the timeout."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # the low byte is the kind
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _told(verdict: Verdict) -> tuple[str, str]:
    return json.dumps(verdict.reruns), verdict.note


def _digest(samples: Iterable[Sample]) -> str:
    return digest([(s.row, s.seconds, s.failure) for s in samples])


def _utc(date: str, path: Path) -> str:
    """An ISO 8601 date in UTC, to the second, so that text sorts as time does."""
    try:
        moment = datetime.fromisoformat(date)
    except ValueError as error:
        raise ResultError(f"{path}: its date is {date!r}, not ISO 8601") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds")
