# SPDX-License-Identifier: Apache-2.0
"""The history file's schema, and how older ones become it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from importlib import resources

from seqmark_tools.history.facts import encode, facts_of
from seqmark_tools.results import ResultError

VERSION = 3


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Makes the tables, or brings them to this version, whole or not at all."""
    version = _version(connection)
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")  # one writer prepares, others wait and find it done
    try:
        version = _version(connection)
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version > VERSION:
            raise ResultError(
                f"{path}: is a history of version {version}, by a newer seqmark; this one knows "
                f"{VERSION}"
            )
        if version == 0 and tables:
            raise ResultError(f"{path}: is a database, but not a history of seqmark")
        if version == 0:
            _create(connection)
        elif version == 1:
            _from_1(connection)
        elif version == 2:  # did not keep how long a device was held back
            connection.execute("ALTER TABLE sample ADD COLUMN throttled REAL")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def digest(samples: Iterable[tuple[str, float | None, str | None]]) -> str:
    """Identifies a run's samples: (row, seconds, failure) in any order."""
    return hashlib.sha256(json.dumps(sorted(samples, key=str)).encode()).hexdigest()[:32]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    script = resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
    code = "\n".join(line.partition("--")[0] for line in script.splitlines())
    for statement in code.split(";"):
        if statement.strip():
            connection.execute(statement)


def _from_1(connection: sqlite3.Connection) -> None:
    """Version 1 had runs (id, machine, date, context as JSON) and times (run, row, seconds)."""
    connection.execute("ALTER TABLE runs RENAME TO runs_1")
    connection.execute("ALTER TABLE times RENAME TO times_1")
    _create(connection)
    connection.execute("INSERT INTO machine (name) SELECT DISTINCT machine FROM runs_1")
    connection.execute("INSERT INTO row (name) SELECT DISTINCT row FROM times_1")
    runs = connection.execute("SELECT id, machine, date, context FROM runs_1 ORDER BY date, id")
    for run_id, machine, date, document in runs.fetchall():
        context = json.loads(document)
        facts = encode(facts_of(context))
        connection.execute("INSERT OR IGNORE INTO facts (document) VALUES (?)", (facts,))
        times = connection.execute("SELECT row, seconds FROM times_1 WHERE run = ?", (run_id,))
        samples = [(row, seconds, None) for row, seconds in times]
        connection.execute(
            "INSERT INTO run (run_id, machine, date, facts, command, digest, judged) VALUES "
            "(?, (SELECT id FROM machine WHERE name = ?), ?, "
            "(SELECT id FROM facts WHERE document = ?), ?, ?, 1)",
            (run_id, machine, date, facts, context.get("command_line", ""), digest(samples)),
        )
    connection.execute(
        "INSERT INTO sample (row, run, seconds) SELECT row.id, run.id, seconds FROM times_1 "
        "JOIN row ON row.name = times_1.row JOIN run ON run.run_id = times_1.run"
    )
    connection.execute("DROP TABLE times_1")
    connection.execute("DROP TABLE runs_1")
