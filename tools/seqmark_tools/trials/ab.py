# SPDX-License-Identifier: Apache-2.0
"""A/A and A/B: what `compare` calls changed, of processes of a program whose truth is known.

The folder holds plain-*.json, processes of one program in the order in which they ran, and
planted-*.json, of the same one with a slowdown planted (fixtures/plant.h). A trial sets ten
processes against ten, by the very rules of `tools/seqmark compare`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from seqmark_tools import results
from seqmark_tools.comparing import evidence, metrics
from seqmark_tools.comparing.evidence import Array
from seqmark_tools.comparing.lines import Rules, Verdict, verdict_of
from seqmark_tools.results import ResultError, ResultFile, RowName
from seqmark_tools.tables import Block, Heading, Table, Text
from seqmark_tools.trials import outcome
from seqmark_tools.trials.outcome import Outcome, percent, signed

MOST_FALSE = 0.01  # of rows
LEAST_FOUND = 0.95  # of trials
TRIALS = 1000
PROCESSES = 10
RULES = Rules()
_TIME = metrics.parse(metrics.TIME)
_CALLED: set[Verdict] = {"worse", "better"}


@dataclass(frozen=True)
class Data:
    """Log times by row and process, and what was planted."""

    names: list[str]
    plain: Array  # (rows, processes)
    planted: Array
    is_planted: list[bool]
    factor: float
    files: list[ResultFile]
    left_out: list[str]  # rows that some process did not measure


@dataclass
class Count:
    """Verdicts on rows of which all are, or none is, truly slower."""

    rows: int = 0
    called: int = 0
    suspect: int = 0

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.rows += len(verdicts)
        self.called += sum(verdict in _CALLED for verdict in verdicts)
        self.suspect += sum(verdict == "suspect" for verdict in verdicts)

    @property
    def rate(self) -> float:
        return self.called / self.rows if self.rows else math.nan

    def interval(self) -> tuple[float, float]:
        """Of 95 %, by Clopper and Pearson: rows are taken for independent."""
        low, high = stats.beta.ppf(
            [0.025, 0.975],
            [self.called, self.called + 1],
            [self.rows - self.called + 1, self.rows - self.called],
        )
        return (
            0.0 if self.called == 0 else float(low),
            1.0 if self.called == self.rows else float(high),
        )

    def document(self) -> dict[str, Any]:
        return {"rows": self.rows, "called": self.called, "suspect": self.suspect}


def read(folder: Path) -> Data:
    """The folder's processes; rows that one of them lacks are left out."""
    sides = [results.read_all(sorted(folder.glob(f"{k}-*.json"))) for k in ("plain", "planted")]
    for kind, side in zip(("plain", "planted"), sides, strict=True):
        if len(side) < 2:
            raise ResultError(f"{folder}: needs two files {kind}-*.json at least, has {len(side)}")
    plants = {file.context.get("planted") for file in sides[1]}
    if len(plants) != 1 or None in plants:
        raise ResultError(f"{folder}: planted-*.json are not of one build with a slowdown planted")
    if any("planted" in file.context for file in sides[0]):
        raise ResultError(f"{folder}: plain-*.json are of a build with a slowdown planted")
    tables = [[_times(file) for file in side] for side in sides]
    every = [table for side in tables for table in side]
    names = sorted(set.intersection(*(set(table) for table in every)))
    if not names:
        raise ResultError(f"{folder}: no row was measured by every process")
    plain, planted = (
        np.log([[table[name] for table in side] for name in names]) for side in tables
    )
    op_provider, device, factor = str(plants.pop()).split(":")
    is_planted = [_matches(name, op_provider, device) for name in names]
    if not any(is_planted):
        raise ResultError(f"{folder}: no row of {op_provider} was measured by every process")
    return Data(
        names,
        plain,
        planted,
        is_planted,
        float(factor),
        [*sides[0], *sides[1]],
        sorted(set.union(*(set(table) for table in every)) - set(names)),
    )


def _times(file: ResultFile) -> dict[str, float]:
    return {str(row.name): row.seconds for row in file.rows if row.seconds is not None}


def _matches(text: str, op_provider: str, device: str) -> bool:
    name = RowName.parse(text)
    return name is not None and (f"{name.op}/{name.provider}", name.device) == (op_provider, device)


def verdicts(base: Array, new: Array, rules: Rules = RULES) -> list[Verdict]:
    """What `compare` calls each row."""
    found = evidence.processes(list(base), list(new), rules.alpha)
    corrected = evidence.corrected(found.p)
    return [
        verdict_of(float(effect), float(p), float(q), _TIME, rules)
        for effect, p, q in zip(found.effect, found.p, corrected, strict=True)
    ]


def as_run(processes: Array, count: int) -> tuple[Array, Array]:
    """Two sides of `count`, every second process of the same program each."""
    return processes[:, 0 : 2 * count : 2], processes[:, 1 : 2 * count : 2]


def splits(processes: Array, count: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """TRIALS pairs of `count` and `count` other processes, drawn at random."""
    for _ in range(TRIALS):
        drawn = rng.permutation(processes.shape[1])[: 2 * count]
        yield processes[:, drawn[:count]], processes[:, drawn[count:]]


def _pick(rows: Sequence[Verdict], wanted: Sequence[bool]) -> list[Verdict]:
    return [verdict for verdict, take in zip(rows, wanted, strict=True) if take]


@dataclass
class Study:
    """All trials that the processes allow."""

    count: int  # processes a side in A/A
    count_b: int  # and of the planted build
    aa_run: Count
    aa_drawn: Count
    aa_any: int  # of TRIALS, those with a false alarm
    found_run: Count
    found_drawn: Count
    found_all: int  # of TRIALS, those that found every planted row
    others_run: Count  # rows of the planted build that are not planted
    others_drawn: Count
    found_by_row: Array  # share of the drawn trials
    alarms_by_row: Array


def study(data: Data) -> Study:
    """A/A among the plain processes, A/B between them and the planted ones."""
    rng = np.random.default_rng(1)
    count = min(PROCESSES, data.plain.shape[1] // 2)
    count_b = min(PROCESSES, data.planted.shape[1])
    others = [not planted for planted in data.is_planted]
    result = Study(
        count,
        count_b,
        *(Count(), Count(), 0, Count(), Count(), 0, Count(), Count()),
        np.zeros(len(data.names)),
        np.zeros(len(data.names)),
    )
    result.aa_run.add(verdicts(*as_run(data.plain, count)))
    if data.planted.shape[1] >= 2 * PROCESSES:  # the same, slower, is the same
        result.aa_run.add(verdicts(*as_run(data.planted, PROCESSES)))
    for base, new in splits(data.plain, count, rng):
        rows = verdicts(base, new)
        result.aa_drawn.add(rows)
        alarms = np.array([row in _CALLED for row in rows])
        result.aa_any += bool(alarms.any())
        result.alarms_by_row += alarms / TRIALS
    halves = as_run(data.plain, count)
    for half in halves:
        rows = verdicts(half, data.planted[:, :count_b])
        result.found_run.add(_pick(rows, data.is_planted))
        result.others_run.add(_pick(rows, others))
    for base, _ in splits(data.plain, count, rng):
        drawn = rng.permutation(data.planted.shape[1])[:count_b]
        rows = verdicts(base, data.planted[:, drawn])
        planted = _pick(rows, data.is_planted)
        result.found_drawn.add(planted)
        result.found_all += all(row == "worse" for row in planted)
        result.others_drawn.add(_pick(rows, others))
        result.found_by_row += np.array([row == "worse" for row in rows]) / TRIALS
    return result


def make(folder: Path) -> Outcome:
    data = read(folder)
    found = study(data)
    passed = found.aa_drawn.rate <= MOST_FALSE and found.found_drawn.rate >= LEAST_FOUND
    known = outcome.facts(data.files)
    return Outcome(
        "ab",
        "A/A and A/B: what compare calls changed",
        list(_blocks(data, found, known)),
        {
            "context": known,
            "planted": {"factor": data.factor, "rows": sum(data.is_planted)},
            "processes": {"plain": data.plain.shape[1], "planted": data.planted.shape[1]},
            "processes_a_side": [found.count, found.count_b],
            "trials": TRIALS,
            "left_out": data.left_out,
            "aa_as_run": found.aa_run.document(),
            "aa_drawn": {**found.aa_drawn.document(), "trials_with_any": found.aa_any},
            "ab_as_run": found.found_run.document(),
            "ab_drawn": {**found.found_drawn.document(), "trials_with_all": found.found_all},
            "ab_others_as_run": found.others_run.document(),
            "ab_others_drawn": found.others_drawn.document(),
            "rows": [_row(data, found, number) for number in range(len(data.names))],
        },
        passed,
    )


def _row(data: Data, found: Study, number: int) -> dict[str, Any]:
    plain, planted = data.plain[number], data.planted[number]
    change = float(planted.mean() - plain.mean())
    n, m = len(plain), len(planted)
    square = float(((plain - plain.mean()) ** 2).sum() + ((planted - planted.mean()) ** 2).sum())
    error = math.sqrt(square / (n + m - 2) * (1 / n + 1 / m))
    reach = float(stats.t.isf(0.025, n + m - 2)) * error
    return {
        "name": data.names[number],
        "seconds": float(np.exp(plain.mean())),
        "between_processes": float(plain.std(ddof=1)),
        "planted": data.is_planted[number],
        "change": math.expm1(change),
        "low": math.expm1(change - reach),
        "high": math.expm1(change + reach),
        "false_alarms": float(found.alarms_by_row[number]),
        "called_slower": float(found.found_by_row[number]),
    }


def _blocks(data: Data, found: Study, known: dict[str, str]) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        f"{data.plain.shape[1]} processes of one program and {data.planted.shape[1]} of the same "
        f"with {len([p for p in data.is_planted if p])} of {len(data.names)} rows made "
        f"{signed(data.factor - 1)} slower, run by turns (plain, planted, plain). A trial sets "
        f"{found.count} processes against {found.count} (A/A), or against {found.count_b} of the "
        f"planted build (A/B), by compare's rules: from {percent(RULES.min_effect, 0)} on, at a "
        f"corrected p of {RULES.alpha:g}. As run: every second process against the others. Drawn: "
        f"{TRIALS} trials whose processes are drawn at random out of the same ones, so that they "
        "are not independent of each other; they say what these processes would have been called "
        "in another order."
    )
    rows = [
        ("A/A, as run: rows called changed", found.aa_run, f"at most {percent(MOST_FALSE, 0)}"),
        ("A/A, drawn: rows called changed", found.aa_drawn, f"at most {percent(MOST_FALSE, 0)}"),
        ("A/B, as run: planted rows found", found.found_run, f"at least {percent(LEAST_FOUND, 0)}"),
        (
            "A/B, drawn: planted rows found",
            found.found_drawn,
            f"at least {percent(LEAST_FOUND, 0)}",
        ),
        ("A/B, as run: other rows called changed", found.others_run, ""),
        ("A/B, drawn: other rows called changed", found.others_drawn, ""),
    ]
    lines = []
    for number, (what, count, wanted) in enumerate(rows):
        low, high = count.interval()
        interval = f"{percent(low)} to {percent(high)}" if number % 2 == 0 else "–"
        lines.append(
            (what, wanted, str(count.called), str(count.rows), percent(count.rate, 2), interval)
        )
    yield Table(("", "wanted", "called", "of", "share", "95 % interval"), 2, lines)
    yield Text(
        f"Drawn trials with a false alarm in any row: {percent(found.aa_any / TRIALS)}; that found "
        f"every planted row: {percent(found.found_all / TRIALS)}. Intervals take rows for "
        "independent."
    )
    if data.left_out:
        yield Text(f"Not measured by every process and left out: {', '.join(data.left_out)}.")
    yield Heading("Rows")
    entries = [_row(data, found, number) for number in range(len(data.names))]
    yield Table(
        (
            *("row", "planted", "time, us", "between processes", "planted build", "95 % interval"),
            *("false alarms", "called slower"),
        ),
        2,
        [
            (
                outcome.short(entry["name"]),
                signed(data.factor - 1) if entry["planted"] else "",
                outcome.micro(entry["seconds"]),
                percent(entry["between_processes"], 2),
                signed(entry["change"], 2),
                f"{signed(entry['low'], 2)} to {signed(entry['high'], 2)}",
                percent(entry["false_alarms"]),
                percent(entry["called_slower"]),
            )
            for entry in entries
        ],
    )
