# SPDX-License-Identifier: Apache-2.0
"""Rows that memory limits beside a copy of the same bytes, of the same file and so the same run.

A table that judges nothing: which rows should reach a copy is not a matter of the file.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmark_tools import results
from seqmark_tools.comparing import sides
from seqmark_tools.results import ResultError, ResultFile, Row
from seqmark_tools.tables import Block, Heading, Table, Text
from seqmark_tools.trials import groups, outcome
from seqmark_tools.trials.outcome import Outcome, micro, percent
from seqmark_tools.units import si

OPERATOR = "copy"
WHOLE_MODEL = "auto"  # the provider of a model's rows
LEAST_BYTES = 100e6
# A machine does some ten operations while it moves a byte: fewer, and memory is the limit.
MOST_FLOPS_A_BYTE = 4.0
GOAL = 0.92
NEAR = 1.1  # how far outside the copies' sizes the nearest still counts
WIDEST = 2.0  # between two copies that a size lies between


@dataclass(frozen=True)
class Share:
    """Of one row: its bytes a second and a copy's."""

    name: str
    group: str  # operator and provider
    moved: float
    seconds: float
    rate: float
    copy_rate: float

    @property
    def share(self) -> float:
        return self.rate / self.copy_rate


class Copies:
    """The copies of one file on one device, the fastest provider's of each size."""

    def __init__(self, rows: Sequence[Row]) -> None:
        best: dict[float, float] = {}
        for row in rows:
            if (moved := row.counter("bytes_moved")) and row.seconds:
                best[moved] = min(row.seconds, best.get(moved, math.inf))
        self._sizes = sorted(best)
        self._seconds = [best[size] for size in self._sizes]

    def rate(self, moved: float) -> float | None:
        """Bytes a second of a copy that moves as many, or None where there is none like it.

        Between two sizes the time lies on a straight line in log-log.
        """
        above = bisect.bisect_left(self._sizes, moved)
        if 0 < above < len(self._sizes):
            low, high = self._sizes[above - 1], self._sizes[above]
            if high <= low * WIDEST:
                part = math.log(moved / low) / math.log(high / low)
                first, last = self._seconds[above - 1], self._seconds[above]
                return moved / (first * math.pow(last / first, part))
        for at in range(max(above - 1, 0), min(above + 1, len(self._sizes))):
            if max(self._sizes[at] / moved, moved / self._sizes[at]) <= NEAR:
                return self._sizes[at] / self._seconds[at]
        return None


def read(paths: Sequence[Path]) -> tuple[list[Share], list[str], list[ResultFile]]:
    """The rows' shares, worst first; the rows without a copy of their size; the files."""
    files = results.read_all(sides.expand(paths))
    shares: list[Share] = []
    without: list[str] = []
    for file in files:
        copies = {
            device: Copies([row for row in file.measured if _is_copy(row, device)])
            for device in {row.name.device for row in file.measured}
        }
        if not any(row.name.op == OPERATOR for row in file.measured):
            raise ResultError(
                f"{file.path}: has no row of {OPERATOR} that was measured: run "
                f"--benchmark_filter='^({OPERATOR}|rmsnorm)/' or the like"
            )
        for row in file.measured:
            moved = row.counter("bytes_moved")
            if moved is None or row.seconds is None or not _is_limited_by_memory(row, moved):
                continue
            copy_rate = copies[row.name.device].rate(moved)
            if copy_rate is None:
                without.append(str(row.name))
                continue
            group = groups.name_of(row.name)
            rate = moved / row.seconds
            shares.append(Share(str(row.name), group, moved, row.seconds, rate, copy_rate))
    if not shares and not without:
        raise ResultError(
            f"{', '.join(map(str, paths))}: no row moves {si(LEAST_BYTES, 'B')} or more and does "
            f"{MOST_FLOPS_A_BYTE:g} operations a byte at most"
        )
    return sorted(shares, key=lambda share: share.share), without, files


def _is_copy(row: Row, device: str) -> bool:
    return row.name.op == OPERATOR and row.name.device == device


def _is_limited_by_memory(row: Row, moved: float) -> bool:
    flops = row.counter("flops")
    return (
        row.name.op != OPERATOR
        and row.name.provider != WHOLE_MODEL
        and moved >= LEAST_BYTES
        and flops is not None
        and flops <= MOST_FLOPS_A_BYTE * moved
    )


def make(paths: Sequence[Path]) -> Outcome:
    shares, without, files = read(paths)
    known = outcome.facts(files)
    return Outcome(
        OPERATOR,
        "Bandwidth beside a copy of the same bytes",
        list(_blocks(shares, without, known)),
        {
            "context": known,
            "files": [str(file.path) for file in files],
            "rows": [
                {
                    "name": share.name,
                    "bytes_moved": share.moved,
                    "bytes_per_second": share.rate,
                    "copy_bytes_per_second": share.copy_rate,
                    "share": share.share,
                }
                for share in shares
            ],
            "without_a_copy": without,
        },
        True,
    )


def _blocks(
    shares: Sequence[Share], without: Sequence[str], known: dict[str, str]
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        f"Rows that move {si(LEAST_BYTES, 'B')} or more and do at most {MOST_FLOPS_A_BYTE:g} "
        "operations a byte. The copy moves as many bytes in the same run: of the fastest provider, "
        "its time between the two sizes next to the row's on a straight line in log-log. Half of "
        "a copy's bytes are read; a row that reads more than it writes may be faster."
    )
    yield Table(
        ("rows of", "rows", f"{percent(GOAL, 0)} and more", "worst", "median", "best"),
        1,
        [_summary(name, of_it) for name, of_it in groups.of(shares, lambda s: s.group)[1:]],
    )
    yield Heading("Rows, the worst first")
    yield Table(
        ("row", "MB", "time, us", "bandwidth", "copy", "share"),
        1,
        [
            (
                outcome.short(share.name),
                f"{share.moved / 1e6:.0f}",
                micro(share.seconds),
                si(share.rate, "B/s"),
                si(share.copy_rate, "B/s"),
                percent(share.share),
            )
            for share in shares
        ],
    )
    if without:
        yield Heading("Rows without a copy of their size")
        yield Table(("row",), 1, [(outcome.short(name),) for name in without])


def _summary(group: str, shares: Sequence[Share]) -> tuple[str, ...]:
    values = [share.share for share in shares]
    return (
        group,
        str(len(values)),
        str(sum(value >= GOAL for value in values)),
        percent(min(values)),
        percent(statistics.median(values)),
        percent(max(values)),
    )
