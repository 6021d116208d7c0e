# SPDX-License-Identifier: Apache-2.0
"""What rows count as their memory against what the driver lends, of a run with --verify_memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmark_tools.results import ResultError, ResultFile, Row
from seqmark_tools.tables import Block, Table, Text
from seqmark_tools.trials import groups, outcome
from seqmark_tools.trials.outcome import Outcome

_GRANULE = re.compile(r"in granules of ([1-9][0-9]*) bytes")
_MIB = 1 << 20


@dataclass(frozen=True)
class Memory:
    """Of one row, in bytes."""

    name: str
    driver: float  # what the driver could lend no more
    counted: float
    peak: float  # `peak_memory`
    allocations: int
    granule: int

    @property
    def difference(self) -> float:
        return self.driver - self.counted

    @property
    def far(self) -> bool:
        """More than a granule off."""
        return abs(self.difference) > self.granule


def granule_of(file: ResultFile) -> int:
    """What the driver lends multiples of, as the file says."""
    said = str(file.context.get("cuda_driver_memory", "no CUDA device"))
    found = _GRANULE.search(said)
    if found is None:
        raise ResultError(f"{file.path}: has no driver's memory, of --verify_memory: {said}")
    return int(found[1])


def memory_of(row: Row, granule: int) -> Memory | None:
    """None of a row that was not checked."""
    driver, difference = row.counter("driver_memory"), row.counter("driver_memory_difference")
    peak, allocations = row.counter("peak_memory"), row.counter("allocations")
    if driver is None or difference is None or peak is None or allocations is None:
        return None
    return Memory(
        name=str(row.name),
        driver=driver,
        counted=driver - difference,
        peak=peak,
        allocations=round(allocations),
        granule=granule,
    )


def make(paths: Sequence[Path]) -> Outcome:
    files, rows = groups.read(paths)
    granules = {granule_of(file) for file in files}
    if len(granules) != 1:
        raise ResultError(f"the files are of drivers with granules of {sorted(granules)} bytes")
    granule = granules.pop()
    rows = [row for row in rows if row.name.device == "cuda"]
    checked = [memory for row in rows if (memory := memory_of(row, granule)) is not None]
    if not checked:
        raise ResultError(f"{', '.join(map(str, paths))}: no row has `driver_memory`")
    missing = [row for row in rows if row.seconds is not None and not memory_of(row, granule)]
    errors = [row for row in rows if row.error is not None]
    far = [memory for memory in checked if memory.far]
    known = outcome.facts(files)
    return Outcome(
        "memory",
        "Memory: what rows count against what the driver lends",
        list(_blocks(rows, files, known, granule)),
        {
            "context": known,
            "files": [str(file.path) for file in files],
            "granule": granule,
            "checked": len(checked),
            "not_checked": len(missing),
            "errors": {str(row.name): row.error for row in errors},
            "rows": [
                {
                    "name": memory.name,
                    "driver": memory.driver,
                    "counted": memory.counted,
                    "peak": memory.peak,
                    "allocations": memory.allocations,
                }
                for memory in checked
            ],
        },
        not missing and not errors and not far,
    )


def _blocks(
    rows: Sequence[Row], files: Sequence[ResultFile], known: dict[str, str], granule: int
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        f"{len(files)} files. Each row is made and run once, for what libraries load for good and "
        "the context; then it is made and run again, between two looks at what the driver can "
        "still lend. Difference: the driver's bytes less those that the row counts then, in MiB. "
        f"The driver lends in granules of {granule / _MIB:g} MiB: allocations of one and more are "
        "counted rounded up, smaller ones as they are, and share granules. Wanted is a difference "
        "of at most one granule. Peak: rows whose peak_memory is not what they count then, as a "
        "plan has given memory back."
    )
    yield Table(
        (
            *("rows of", "checked", "not checked", "skipped", "errors", "allocations, most"),
            *("difference, least", "most", "peak", "the row that is furthest off"),
        ),
        1,
        [_line(name, members, granule) for name, members in groups.of_rows(rows)],
    )
    failed = [(row.name, row.error) for row in rows if row.error is not None]
    yield from groups.reasons("Errors", failed)


def _line(name: str, rows: Sequence[Row], granule: int) -> tuple[str, ...]:
    checked = [memory for row in rows if (memory := memory_of(row, granule)) is not None]
    counts = (
        len(checked),
        sum(row.seconds is not None for row in rows) - len(checked),
        sum(row.skip is not None for row in rows),
        sum(row.error is not None for row in rows),
    )
    cells = (name, *map(str, counts))
    if not checked:
        return (*cells, *["–"] * 5)
    worst = max(checked, key=lambda memory: abs(memory.difference))
    differences = [memory.difference for memory in checked]
    return (
        *cells,
        str(max(memory.allocations for memory in checked)),
        f"{min(differences) / _MIB:+.2f}",
        f"{max(differences) / _MIB:+.2f}",
        str(sum(memory.peak != memory.counted for memory in checked)),
        outcome.short(worst.name),
    )
