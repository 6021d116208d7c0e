# SPDX-License-Identifier: Apache-2.0
"""The noise of each row: within a process as it says itself, and between processes as they do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqmark_tools import results
from seqmark_tools.comparing import sides
from seqmark_tools.results import ResultError, ResultFile, RowName
from seqmark_tools.tables import Block, Heading, Table, Text
from seqmark_tools.trials import groups, outcome
from seqmark_tools.trials.outcome import Outcome, micro, percent


@dataclass(frozen=True)
class Noise:
    """Of one row: relative; `between` is NaN of a single process."""

    name: str
    group: str
    seconds: float
    within: float  # the median of the processes' own
    between: float  # standard deviation of the processes' log times
    processes: int


def read(paths: Sequence[Path]) -> tuple[list[Noise], list[ResultFile]]:
    files = results.read_all(sides.expand(paths))
    times: dict[RowName, list[float]] = {}
    within: dict[RowName, list[float]] = {}
    for file in files:
        for row in file.measured:
            if row.seconds is None or (noise := row.counter("noise")) is None:
                continue
            times.setdefault(row.name, []).append(row.seconds)
            within.setdefault(row.name, []).append(noise)
    if not times:
        raise ResultError(f"{', '.join(map(str, paths))}: no row has a time and its noise")
    rows = []
    for name, values in sorted(times.items()):
        several = len(values) > 1
        rows.append(
            Noise(
                str(name),
                groups.name_of(name),
                statistics.median(values),
                statistics.median(within[name]),
                float(np.log(values).std(ddof=1)) if several else math.nan,
                len(values),
            )
        )
    return rows, files


def make(paths: Sequence[Path]) -> Outcome:
    rows, files = read(paths)
    known = outcome.facts(files)
    return Outcome(
        "noise",
        "Noise of each row",
        list(_blocks(rows, files, known)),
        {
            "context": known,
            "files": [str(file.path) for file in files],
            "rows": [
                {k: v for k, v in vars(row).items() if v == v and k != "group"} for row in rows
            ],
        },
        True,
    )


def _share(value: float) -> str:
    return percent(value, 2)


def _blocks(
    rows: Sequence[Noise], files: Sequence[ResultFile], known: dict[str, str]
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        f"{len(files)} processes. Within: `noise`, the half-width of the 95 % interval of the "
        "median, relative; the median over processes. Between: the standard deviation of the "
        "processes' times, relative; of two processes it is a coarse number, and the median over "
        "rows the better one."
    )
    yield Table(
        (
            *("rows of", "rows", "within: median", "90th percentile", "most"),
            *("between: median", "90th percentile", "most"),
        ),
        1,
        [_summary(*members) for members in groups.of(rows, lambda row: row.group)],
    )
    yield Heading("Rows")
    yield Table(
        ("row", "time, us", "within", "between", "processes"),
        1,
        [
            (
                outcome.short(row.name),
                micro(row.seconds),
                _share(row.within),
                _share(row.between),
                str(row.processes),
            )
            for row in rows
        ],
    )


def _summary(name: str, rows: Sequence[Noise]) -> tuple[str, ...]:
    cells = [name, str(len(rows))]
    for values in ([r.within for r in rows], [r.between for r in rows if r.between == r.between]):
        if values:
            quantiles = np.quantile(values, [0.5, 0.9, 1.0])
            cells += [_share(float(value)) for value in quantiles]
        else:
            cells += ["–"] * 3
    return tuple(cells)
