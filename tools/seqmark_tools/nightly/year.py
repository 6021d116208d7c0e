# SPDX-License-Identifier: Apache-2.0
"""A synthetic year: what the nightly finds of planted changes, and what it calls without one.

Each night is judged by the nightly's own code and sees the nights before it alone. A time is

    level (1 + night + own),    night ~ N(0, shared noise^2),  own ~ N(0, (1 - shared) noise^2)

where `night` is what one row's runs of one night have in common, its second runs too: a machine
that is warm or a neighbour that is busy. With shared = 1 running again tells nothing new; with 0
every run is a new draw. The level has a step where a change is planted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seqmark_tools.history.store import Night, Sample, Verdict
from seqmark_tools.nightly.judge import Kind, Rules, judge

Floats = NDArray[np.float64]
_ROW = "synthetic/native/custom.row{:03d}/dtype:bf16/device:cuda/batch:1/seqlen:4096"
_CHUNK = 20  # rows that a process judges at once
_CLOSE = 5  # nights between a planted change and the onset that is found, at most
CALLED = (Kind.REGRESSION, Kind.IMPROVEMENT)


@dataclass(frozen=True)
class Scenario:
    """What a year is made of. Rows are in three parts: changed, moved with a driver, quiet."""

    name: str
    rows: int = 500
    nights: int = 365
    noise: float = 0.01  # relative standard deviation of a night's time
    shared: float = 0.5  # of the variance, by all of a row's runs of a night
    effect: float = 0.05
    changed: float = 0.5  # of the rows: one change each, three of four slower
    moved: float = 0.1  # of the rows: change with the driver on the same night
    bad_nights: int = 0  # nights that are 8 % slower for every row and run
    heavy_tails: bool = False  # Student's t of 4 degrees of freedom, of the same variance
    seed: int = 1


@dataclass(frozen=True)
class Year:
    """One row's year."""

    row: str
    level: Floats  # seconds, by night
    night: Floats  # relative, what runs of a night share
    own: Floats
    planted: int | None  # the night of its own change
    slower: bool
    moved: bool


@dataclass
class Outcome:
    """What was found in a scenario."""

    scenario: Scenario
    planted: int = 0
    delays: list[int] = field(default_factory=list)  # nights until called: 1 is the same night
    false_slower: int = 0  # calls without a change
    false_faster: int = 0
    moved: int = 0
    explained: int = 0  # of the rows that moved with the driver
    suspects: int = 0  # rows run again, over all nights

    def found_within(self, nights: int) -> float:
        """Share of the planted changes that were called within so many nights."""
        return sum(delay <= nights for delay in self.delays) / max(self.planted, 1)

    def a_month(self, count: int) -> float:
        """A count over the year, as that of 30 nights of 500 rows."""
        return count * 30 * 500 / (self.scenario.nights * self.scenario.rows)

    def add(self, other: Outcome) -> None:
        """Takes another part of the same scenario in."""
        self.planted += other.planted
        self.delays += other.delays
        self.false_slower += other.false_slower
        self.false_faster += other.false_faster
        self.moved += other.moved
        self.explained += other.explained
        self.suspects += other.suspects


def simulate(scenario: Scenario, rules: Rules, processes: int | None = None) -> Outcome:
    """Judges the whole year, night by night."""
    starts = range(0, scenario.rows, _CHUNK)
    total = Outcome(scenario)
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(_part, *zip(*((scenario, rules, s) for s in starts), strict=True)):
            total.add(part)
    return total


def make_year(scenario: Scenario, number: int) -> Year:
    """The year of a scenario's row; the same each time."""
    random = np.random.default_rng((scenario.seed, number))
    changed = number < scenario.changed * scenario.rows
    moved = not changed and number < (scenario.changed + scenario.moved) * scenario.rows
    planted = _change_night(random, scenario) if changed else None
    slower = bool(random.random() < 0.75)
    level = np.full(scenario.nights, math.pow(10, random.uniform(-5, -2)), dtype=np.float64)
    start = planted if planted is not None else driver_night(scenario) if moved else None
    if start is not None:
        level[start:] *= 1 + scenario.effect if slower else 1 - scenario.effect
    return Year(
        row=_ROW.format(number),
        level=np.asarray(level * _bad_nights(scenario), np.float64),
        night=_draw(random, scenario, scenario.shared, scenario.nights),
        own=_draw(random, scenario, 1 - scenario.shared, scenario.nights),
        planted=planted,
        slower=slower,
        moved=moved,
    )


def driver_night(scenario: Scenario) -> int:
    """The night of the new driver."""
    return scenario.nights // 2


def make_nights(scenario: Scenario) -> list[Night]:
    """The nights' dates and facts."""
    dates = np.datetime64("2026-01-01") + np.arange(scenario.nights)
    facts = [
        {"gpu_driver_version": version, "commit": "0" * 40} for version in ("580.10", "580.20")
    ]
    return [
        Night(key, f"night-{key}", f"{date}T03:00:00+00:00", facts[key >= driver_night(scenario)])
        for key, date in enumerate(dates.astype(str))
    ]


def times_of(year: Year, nights: Sequence[Night]) -> dict[int, Sample]:
    """The row's samples by night."""
    seconds = year.level * (1 + year.night + year.own)
    return {night.key: Sample(year.row, float(seconds[night.key])) for night in nights}


def _draw(random: np.random.Generator, scenario: Scenario, share: float, count: int) -> Floats:
    """Relative deviations that have this share of the noise's variance."""
    scale = scenario.noise * math.sqrt(share)
    if scenario.heavy_tails:
        scale /= math.sqrt(2)  # the variance of t with 4 degrees of freedom
        return np.array(random.standard_t(4, count) * scale)
    return np.array(random.standard_normal(count) * scale)


def _change_night(random: np.random.Generator, scenario: Scenario) -> int:
    """A night for a row's own change: with some before and after it, and not the driver's."""
    nights = np.arange(30, scenario.nights - 10)
    return int(random.choice(nights[np.abs(nights - driver_night(scenario)) > _CLOSE]))


def _bad_nights(scenario: Scenario) -> Floats:
    factor: Floats = np.ones(scenario.nights)
    random = np.random.default_rng((scenario.seed, 10**6))
    factor[random.choice(np.arange(20, scenario.nights), scenario.bad_nights, replace=False)] = 1.08
    return factor


def _part(scenario: Scenario, rules: Rules, start: int) -> Outcome:
    """Judges a few rows' year."""
    numbers = range(start, min(start + _CHUNK, scenario.rows))
    years = {year.row: year for year in (make_year(scenario, number) for number in numbers)}
    nights = make_nights(scenario)
    outcome = Outcome(scenario)
    verdicts = judge_year(scenario, rules, years, nights, outcome, start)
    for year in years.values():
        _score(year, scenario, [v for v in verdicts if v.row == year.row], outcome)
    return outcome


def judge_year(
    scenario: Scenario,
    rules: Rules,
    years: Mapping[str, Year],
    nights: Sequence[Night],
    outcome: Outcome,
    start: int = 0,
) -> list[Verdict]:
    """Every night's verdicts; counts the rows that were run again, whose times `start` seeds."""
    random = np.random.default_rng((scenario.seed, 10**7, start))
    every = {row: times_of(year, nights) for row, year in years.items()}
    times: dict[str, dict[int, Sample]] = {row: {} for row in years}
    verdicts: list[Verdict] = []
    for tonight in nights:
        for row, samples in every.items():
            times[row][tonight.key] = samples[tonight.key]

        def rerun(
            rows: Sequence[str], count: int, key: int = tonight.key
        ) -> dict[str, list[float]]:
            outcome.suspects += len(rows)
            again = {}
            for row in rows:
                year = years[row]
                own = _draw(random, scenario, 1 - scenario.shared, count)
                again[row] = (year.level[key] * (1 + year.night[key] + own)).tolist()
            return again

        verdicts += judge(nights[: tonight.key + 1], times, verdicts, rerun, rules)
    return verdicts


def _score(year: Year, scenario: Scenario, verdicts: Sequence[Verdict], outcome: Outcome) -> None:
    outcome.planted += year.planted is not None
    outcome.moved += year.moved
    outcome.explained += year.moved and any(
        verdict.kind == Kind.EXPLAINED and abs(verdict.onset - driver_night(scenario)) <= _CLOSE
        for verdict in verdicts
    )
    due = year.planted
    for verdict in verdicts:
        if verdict.kind not in CALLED:
            continue
        slower = verdict.kind == Kind.REGRESSION
        right = due is not None and slower == year.slower and verdict.decided >= due
        if due is not None and right and abs(verdict.onset - due) <= _CLOSE:
            outcome.delays.append(verdict.decided - due + 1)
            due = None  # a second call of it is a false one
        elif slower:
            outcome.false_slower += 1
        else:
            outcome.false_faster += 1
