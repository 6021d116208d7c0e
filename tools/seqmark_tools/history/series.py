# SPDX-License-Identifier: Apache-2.0
"""A row's series, as it is drawn: nights, times, change points and events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seqmark_tools.history.facts import EXCUSES, Event, events
from seqmark_tools.history.shifts import Detection, Shift, shifts
from seqmark_tools.history.store import History, Night, Sample, Verdict
from seqmark_tools.results import ResultError

# Nights between a change point and an event that explains it: noise may move the change point so
# far. More would excuse changes of their own.
NEAR = 1
_CHUNK = 16  # series that a worker process takes at once


@dataclass(frozen=True)
class ChangePoint:
    """A lasting change of a row's time."""

    night: int  # index of the series: the first night at the new level
    date: str
    before: float  # mean seconds
    after: float
    pvalue: float
    events: tuple[Event, ...] = ()  # near enough to be the reason; a new commit is none
    verdict: str | None = None  # what the nightly made of it; None where it was never asked

    @property
    def effect(self) -> float:
        """Relative change of the time: 0.05 is 5 % slower."""
        return self.after / self.before - 1


@dataclass(frozen=True)
class Series:
    """One row on one machine, oldest night first; nights without a time are left out."""

    machine: str
    row: str
    nights: tuple[str, ...]  # ISO 8601 dates, UTC
    seconds: tuple[float, ...]
    change_points: tuple[ChangePoint, ...]
    events: tuple[Event, ...]  # of every group, a new commit too
    failure: str | None = None  # why the machine's last night has no time of the row


def series(db: Path, machine: str, row: str, detection: Detection | None = None) -> Series:
    """The series of a row in the history at `db`; ResultError where there is none."""
    with History(db) as history:
        nights, times = history.nights(machine), history.times(machine, row)
        verdicts = history.verdicts(machine, row)
    if not nights:
        raise ResultError(f"{db}: knows no machine {machine!r}")
    if row not in times:
        raise ResultError(f"{db}: {machine} has no row {row!r}; `seqmark history list` lists them")
    return make_series(machine, nights, detection or Detection(), (row, times[row], verdicts))


def all_series(
    db: Path, machine: str, detection: Detection | None = None, processes: int | None = None
) -> list[Series]:
    """Every row's series of a machine, sorted by row; analysed by several processes."""
    with History(db) as history:
        nights, times = history.nights(machine), history.times(machine)
        verdicts: dict[str, list[Verdict]] = {}
        for verdict in history.verdicts(machine):
            verdicts.setdefault(verdict.row, []).append(verdict)
    work = [(row, samples, verdicts.get(row, [])) for row, samples in sorted(times.items())]
    make = partial(make_series, machine, nights, detection or Detection())
    if processes == 1 or len(work) < 2 * _CHUNK:
        return [make(row) for row in work]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(make, work, chunksize=_CHUNK))


def timed(nights: Sequence[Night], samples: Mapping[int, Sample]) -> list[tuple[Night, float]]:
    """The nights that have a time of the row, and that time in seconds."""
    return [
        (night, sample.seconds)
        for night in nights
        if (sample := samples.get(night.key)) is not None and sample.seconds is not None
    ]


def excuses(
    near: int, every: Iterable[Event], groups: Sequence[str] = EXCUSES
) -> tuple[Event, ...]:
    """The events of `groups` that explain a change at night `near`."""
    return tuple(
        event for event in every if event.group in groups and abs(event.night - near) <= NEAR
    )


def make_series(
    machine: str,
    nights: Sequence[Night],
    detection: Detection,
    work: tuple[str, Mapping[int, Sample], Sequence[Verdict]],
) -> Series:
    """The series of a row: its name, samples by night's key, and what nights made of it."""
    row, samples, verdicts = work
    known = timed(nights, samples)
    index = {night.key: number for number, (night, _) in enumerate(known)}
    seconds = tuple(time for _, time in known)
    changed = tuple(events(((night.date, night.facts) for night, _ in known), row))

    def point(shift: Shift) -> ChangePoint:
        judged = [
            v.kind for v in verdicts if abs(index.get(v.onset, -NEAR - 1) - shift.index) <= NEAR
        ]
        return ChangePoint(
            night=shift.index,
            date=known[shift.index][0].date,
            before=shift.before,
            after=shift.after,
            pvalue=shift.pvalue,
            events=excuses(shift.index, changed),
            verdict=judged[-1] if judged else None,
        )

    last = samples.get(nights[-1].key)
    return Series(
        machine=machine,
        row=row,
        nights=tuple(night.date for night, _ in known),
        seconds=seconds,
        change_points=tuple(point(shift) for shift in shifts(seconds, detection)),
        events=changed,
        failure=last.failure if last else "not in the last night",
    )
