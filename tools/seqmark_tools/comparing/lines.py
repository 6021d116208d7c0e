# SPDX-License-Identifier: Apache-2.0
"""Every row of two sides compared, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seqmark_tools.comparing import evidence, sequential
from seqmark_tools.comparing.evidence import Array, Evidence
from seqmark_tools.comparing.metrics import Metric
from seqmark_tools.comparing.sides import Side, different_facts
from seqmark_tools.results import Row

# worse, better: sure and large enough; changed: the same where neither direction is better.
# suspect: large enough and, taken alone, sure; but not sure among so many rows. same: the rest; by
# rounds only what surely differs by less than counts, and undecided the rest.
Verdict = Literal["worse", "better", "changed", "suspect", "undecided", "same"]
# How processes of both sides belong together: not at all, by their number, by rounds of --run.
Design = Literal["independent", "paired", "rounds"]
_NORMAL_95 = 1.959964
# A median's standard error over a mean's, of normal samples: sqrt(pi / 2).
_MEDIAN_OVER_MEAN = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class Rules:
    """What a change has to be to count."""

    alpha: float = 0.05  # false discoveries among all
    min_effect: float = 0.02  # relative


@dataclass(frozen=True)
class Line:
    """A row measured on both sides. Values are geometric means over processes, SI units."""

    name: str
    group: str
    base: float
    new: float
    base_processes: int
    new_processes: int
    providers: tuple[str, str]
    effect: float  # log(new / base)
    low: float
    high: float
    p: float
    q: float  # p corrected for all rows of the command
    verdict: Verdict
    throttled: tuple[float, float]  # of the time that held each side's worst process back


@dataclass(frozen=True)
class Gap:
    """A row not measured on both sides: what it is on each, and why."""

    name: str
    base: str  # measured, error, skipped or absent
    new: str
    reason: str

    @property
    def is_broken(self) -> bool:
        """Whether it was measured and now fails."""
        return self.base == "measured" and self.new == "error"

    @property
    def is_lost(self) -> bool:
        """Whether it was measured and now is not."""
        return self.base == "measured" and self.new != "measured"


@dataclass(frozen=True)
class Group:
    """Rows of an operator, or all: how many came out how, and the mean log ratio."""

    name: str
    rows: int
    verdicts: dict[Verdict, int]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two sides compared by one metric."""

    base: Side
    new: Side
    metric: Metric
    methods: tuple[str, ...]
    lines: list[Line]
    gaps: list[Gap]
    groups: list[Group]  # all rows first
    facts: list[tuple[str, str, str]]


@dataclass(frozen=True)
class _Match:
    """A row's values on both sides."""

    name: str
    base: list[Row]
    new: list[Row]
    base_values: Array
    new_values: Array
    pairs: Array  # log ratios within processes that have both


def compare(
    pairs: Sequence[tuple[Side, Side]],
    metrics: Sequence[Metric],
    rules: Rules,
    design: Design = "independent",
) -> list[Comparison]:
    """Each pair of sides by each metric; p-values are corrected over all of them."""
    drafts = []
    for base, new in pairs:
        gaps = list(_gaps(base, new))
        for metric in metrics:
            matches, without = _match(base, new, metric)
            parts = _evidence(matches, metric, rules, design)
            drafts.append((base, new, metric, parts, gaps + without))
    every = [p for draft in drafts for part in draft[3] for p in part[1].p]
    q = iter(evidence.corrected(every))
    comparisons = []
    for base, new, metric, parts, gaps in drafts:
        lines: list[Line] = []
        for matches, found in parts:
            lines += _lines(matches, found, q, metric, rules, design)
        lines.sort(key=lambda line: line.name)
        comparisons.append(
            Comparison(
                base,
                new,
                metric,
                tuple(f"{part[1].method}: {len(part[0])} rows" for part in parts),
                lines,
                gaps,
                _groups(lines, rules),
                different_facts(base, new),
            )
        )
    return comparisons


def _status(rows: Sequence[Row | None]) -> tuple[str, str]:
    """What processes make of a row: an error in any is one, else one that is not skipped."""
    there = [row for row in rows if row is not None]
    for row in there:
        if row.error is not None:
            return "error", row.error
    if any(row.skip is None for row in there):
        return "measured", ""
    return ("skipped", there[0].skip or "") if there else ("absent", "")


def _gaps(base: Side, new: Side) -> Iterator[Gap]:
    for name in dict.fromkeys([*base.rows, *new.rows]):
        before, reason_before = _status(base.rows.get(name, []))
        after, reason_after = _status(new.rows.get(name, []))
        if (before, after) != ("measured", "measured"):
            yield Gap(name, before, after, reason_after or reason_before)


def _match(base: Side, new: Side, metric: Metric) -> tuple[list[_Match], list[Gap]]:
    """Rows with values above zero on both sides; and those where one side alone has one."""
    matches, without = [], []
    for name, befores in base.rows.items():
        afters = new.rows.get(name, [])
        if _status(befores)[0] != "measured" or _status(afters)[0] != "measured":
            continue
        values = [[_value(metric, row) for row in rows] for rows in (befores, afters)]
        has = [any(value is not None for value in side) for side in values]
        if all(has):
            logs = [np.log([v for v in side if v is not None]) for side in values]
            together = [
                math.log(b / a)
                for a, b in zip(*values, strict=False)
                if a is not None and b is not None
            ]
            rows = [[row for row in side if row is not None] for side in (befores, afters)]
            matches.append(_Match(name, rows[0], rows[1], logs[0], logs[1], np.array(together)))
        elif any(has):
            said = ["measured" if there else f"no {metric.name}" for there in has]
            without.append(Gap(name, said[0], said[1], f"{metric.name} is on one side alone"))
    return matches, without


def _value(metric: Metric, row: Row | None) -> float | None:
    value = None if row is None else metric.value(row)
    return value if value is not None and value > 0 else None


def _evidence(
    matches: list[_Match], metric: Metric, rules: Rules, design: Design
) -> list[tuple[list[_Match], Evidence]]:
    """The matches with what is known of each, those of one kind of evidence together."""
    alpha = rules.alpha

    def difference(match: _Match) -> float:
        return float(match.new_values.mean() - match.base_values.mean())

    def is_single(match: _Match) -> bool:
        if design == "independent":
            return len(match.base_values) + len(match.new_values) < 3
        return len(match.pairs) < 2

    parts: list[tuple[list[_Match], Callable[[list[_Match]], Evidence]]]
    if metric.kind == "counted":
        parts = [(matches, lambda part: evidence.counted([difference(m) for m in part]))]
    else:
        single = [match for match in matches if is_single(match)]
        several = [match for match in matches if not is_single(match)]

        def of_one(part: list[_Match]) -> Evidence:
            return evidence.one_process(
                [difference(m) for m in part],
                [math.hypot(_within(m.base, metric), _within(m.new, metric)) for m in part],
                alpha,
                fit=design == "independent",  # providers do differ
            )

        def of_several(part: list[_Match]) -> Evidence:
            if design == "rounds":
                return sequential.rounds([m.pairs for m in part], alpha)
            if design == "paired":
                return evidence.pairs([m.pairs for m in part], alpha)
            return evidence.processes(
                [m.base_values for m in part], [m.new_values for m in part], alpha
            )

        parts = [(single, of_one), (several, of_several)]
    return [(part, find(part)) for part, find in parts if part]


def _within(rows: Sequence[Row], metric: Metric) -> float:
    """The relative standard error of a process's time that its own samples show; 0 if unknown."""
    row = rows[0]
    if metric.kind != "time":
        return 0.0
    noise = row.counter("noise")
    if noise is not None:
        return noise / _NORMAL_95
    if len(row.times) > 1:
        return float(np.log(row.times).std(ddof=1)) / math.sqrt(len(row.times)) * _MEDIAN_OVER_MEAN
    return 0.0


def _throttled(rows: Sequence[Row]) -> float:
    return max(row.counter("throttled") or 0.0 for row in rows)


def _lines(
    matches: list[_Match],
    found: Evidence,
    corrected: Iterator[float],
    metric: Metric,
    rules: Rules,
    design: Design,
) -> Iterator[Line]:
    for number, match in enumerate(matches):
        effect, p, q = float(found.effect[number]), float(found.p[number]), float(next(corrected))
        low, high = float(found.low[number]), float(found.high[number])
        base_name, new_name = match.base[0].name, match.new[0].name
        verdict = verdict_of(effect, p, q, metric, rules)
        if design == "rounds" and verdict in ("same", "suspect"):
            most = max(abs(math.expm1(low)), abs(math.expm1(high)))
            verdict = "same" if most < rules.min_effect else "undecided"
        yield Line(
            name=match.name,
            group=base_name.op.split("/")[0],
            base=float(np.exp(match.base_values.mean())),
            new=float(np.exp(match.new_values.mean())),
            base_processes=len(match.base_values),
            new_processes=len(match.new_values),
            providers=(base_name.provider, new_name.provider),
            effect=effect,
            low=low,
            high=high,
            p=p,
            q=q,
            verdict=verdict,
            throttled=(_throttled(match.base), _throttled(match.new)),
        )


def verdict_of(effect: float, p: float, q: float, metric: Metric, rules: Rules) -> Verdict:
    """What a log ratio is called, with its p-value alone and among all rows."""
    if abs(math.expm1(effect)) < rules.min_effect or p > rules.alpha:
        return "same"
    if q > rules.alpha:
        return "suspect"
    if metric.better == "neither":
        return "changed"
    return "better" if (effect < 0) == (metric.better == "lower") else "worse"


def _groups(lines: list[Line], rules: Rules) -> list[Group]:
    names = dict.fromkeys(line.group for line in lines)
    sets = {"all rows": lines, **{n: [x for x in lines if x.group == n] for n in sorted(names)}}
    if len(names) == 1:
        sets = {"all rows": lines}
    groups = []
    for name, members in sets.items():
        if not members:
            continue
        verdicts: dict[Verdict, int] = {}
        for line in members:
            verdicts[line.verdict] = verdicts.get(line.verdict, 0) + 1
        mean = evidence.geometric_mean([line.effect for line in members], rules.alpha)
        groups.append(Group(name, len(members), verdicts, *mean))
    return groups
