# SPDX-License-Identifier: Apache-2.0
"""What came out of comparisons: for people as blocks, for programs as a document."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from seqmark_tools.comparing.lines import Comparison, Gap, Group, Line, Rules, Verdict
from seqmark_tools.comparing.metrics import TIME
from seqmark_tools.tables import Block, Heading, Table, Text, Tone
from seqmark_tools.units import DASH, si

_ORDER: tuple[Verdict, ...] = ("worse", "suspect", "undecided", "changed", "better", "same")
_TONES: dict[Verdict, Tone] = {
    "worse": "bad",
    "better": "good",
    "suspect": "doubtful",
    "undecided": "doubtful",
}
_MOST_ALIKE = 5
_WORDS: dict[Verdict, str] = {"worse": "slower", "better": "faster"}  # of times


def percent(effect: float) -> str:
    """A log ratio as a change: +3.2 %."""
    return f"{math.expm1(effect):+.1%}".replace("%", " %")


def _interval(low: float, high: float) -> str:
    if low == high:
        return DASH
    return f"{percent(low)} to {percent(high)}" if math.isfinite(low + high) else "unbounded"


def _word(verdict: Verdict, comparison: Comparison) -> str:
    return _WORDS.get(verdict, verdict) if comparison.metric.name == TIME else verdict


def blocks(comparisons: Sequence[Comparison], rules: Rules, *, every: bool) -> Iterator[Block]:
    """All comparisons; of rows those that differ, with `every` all of them."""
    for comparison in comparisons:
        yield Heading(f"{comparison.metric.name}: {comparison.base.label} → {comparison.new.label}")
        if comparison.facts:
            yield Text("The two sides are not of the same:")
            yield Table(("", "base", "new"), 3, comparison.facts)
        if comparison.groups:
            yield _summary(comparison, comparison.groups)
        yield from (Text(f"{method}.") for method in comparison.methods)
        if comparison.lines:
            yield Text(_meaning(comparison, rules))
        shown = [line for line in comparison.lines if every or line.verdict != "same"]
        if shown:
            yield _rows(comparison, shown)
        if comparison.gaps:
            yield Text("Rows not measured on both sides:")
            yield _gaps(comparison.gaps, every=every)


def _meaning(comparison: Comparison, rules: Rules) -> str:
    text = (
        f"A change counts from {100 * rules.min_effect:g} % on, where its p-value, corrected for "
        f"all rows (Benjamini and Hochberg), is at most {rules.alpha:g}. Intervals are of "
        f"{100 * (1 - rules.alpha):g} %, each for itself."
    )
    if any(line.verdict == "suspect" for line in comparison.lines):
        text += (
            " Suspect rows are sure only when looked at alone: more processes a side decide them"
            " (--base A1 A2 A3 --new B1 B2 B3, or --run)."
        )
    if any(any(line.throttled) for line in comparison.lines if line.verdict != "same"):
        text += (
            " Throttled is the part of a row's time in which something (power, heat, a quota, a"
            " hypervisor) held the machine back: such a change may be the machine's."
        )
    return text


def _summary(comparison: Comparison, groups: Sequence[Group]) -> Table:
    present = [v for v in _ORDER if any(group.verdicts.get(v) for group in groups)]
    columns = ("", "rows", *(_word(v, comparison) for v in present), "geometric mean", "interval")
    lines = [
        [
            group.name,
            str(group.rows),
            *(str(group.verdicts.get(verdict, 0)) for verdict in present),
            percent(group.mean),
            _interval(group.low, group.high),
        ]
        for group in groups
    ]
    return Table(columns, 1, lines)


def _throttled(line: Line) -> str:
    parts = [f"{part:.0%}".replace("%", " %") if part else DASH for part in line.throttled]
    return " → ".join(parts) if any(line.throttled) else DASH


def _rows(comparison: Comparison, shown: list[Line]) -> Table:
    shown = sorted(shown, key=lambda line: (_ORDER.index(line.verdict), -abs(line.effect)))
    metric = comparison.metric
    best = any(line.providers[0] != line.providers[1] and "/*/" in line.name for line in shown)
    by_device = best and "device:*" in shown[0].name
    throttled = any(any(line.throttled) for line in shown)
    lines = [
        [
            line.name,
            *([" → ".join(line.providers)] if by_device else []),
            _word(line.verdict, comparison),
            si(line.base, metric.unit).strip(),
            si(line.new, metric.unit).strip(),
            percent(line.effect),
            _interval(line.low, line.high),
            f"{line.q:.2g}",
            *([_throttled(line)] if throttled else []),
        ]
        for line in shown
    ]
    labels = ("row", *(["fastest provider"] if by_device else []), "verdict")
    columns = (*labels, "base", "new", "change", "interval", "corrected p")
    columns += ("throttled",) if throttled else ()
    return Table(columns, len(labels), lines, [_TONES.get(line.verdict, "") for line in shown])


def _gaps(gaps: Sequence[Gap], *, every: bool) -> Table:
    """Rows that were measured and now fail come first; many alike are one line but for `every`."""
    alike: dict[tuple[str, str, str], list[Gap]] = {}
    for gap in sorted(gaps, key=lambda gap: (not gap.is_broken, not gap.is_lost, gap.name)):
        alike.setdefault((gap.base, gap.new, gap.reason), []).append(gap)
    lines: list[tuple[str, ...]] = []
    tones: list[Tone] = []
    for (base, new, reason), members in alike.items():
        tone: Tone = "bad" if members[0].is_broken else "doubtful" if members[0].is_lost else ""
        shown = members if every or len(members) <= _MOST_ALIKE else members[:1]
        for gap in shown:
            more = len(members) - len(shown)
            name = f"{gap.name} and {more} more" if more else gap.name
            lines.append((name, base, new, reason))
            tones.append(tone)
    return Table(("row", "base", "new", "reason"), 4, lines, tones)


def document(comparisons: Sequence[Comparison], rules: Rules, status: int) -> dict[str, Any]:
    """For programs. Ratios are new over base; values are in SI units."""
    return {
        "alpha": rules.alpha,
        "min_effect": rules.min_effect,
        "exit_status": status,
        "comparisons": [
            {
                "metric": comparison.metric.name,
                "better": comparison.metric.better,
                "unit": comparison.metric.unit,
                "base": _side(comparison.base.label, comparison, 1),
                "new": _side(comparison.new.label, comparison, 2),
                "methods": list(comparison.methods),
                "groups": [_group(group) for group in comparison.groups],
                "rows": [_line(line) for line in comparison.lines],
                "not_compared": [
                    {"name": gap.name, "base": gap.base, "new": gap.new, "reason": gap.reason}
                    for gap in comparison.gaps
                ],
            }
            for comparison in comparisons
        ],
    }


def _side(label: str, comparison: Comparison, place: int) -> dict[str, Any]:
    side = comparison.base if place == 1 else comparison.new
    return {
        "label": label,
        "files": [str(file.path) for file in side.files],
        "different": {fact[0]: fact[place] for fact in comparison.facts},
    }


def _ratios(item: Line | Group, effect: float) -> dict[str, float | None]:
    bounded = math.isfinite(item.low + item.high)
    return {
        "ratio": math.exp(effect),
        "low": math.exp(item.low) if bounded else None,
        "high": math.exp(item.high) if bounded else None,
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "rows": group.rows,
        "verdicts": dict(group.verdicts),
        **_ratios(group, group.mean),
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "providers": list(line.providers),
        "verdict": line.verdict,
        "base": line.base,
        "new": line.new,
        "processes": [line.base_processes, line.new_processes],
        **_ratios(line, line.effect),
        "throttled": list(line.throttled),
        "p": line.p,
        "corrected_p": line.q,
    }
