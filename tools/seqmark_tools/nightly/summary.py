# SPDX-License-Identifier: Apache-2.0
"""A night's verdict as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from seqmark_tools.history.facts import Event
from seqmark_tools.history.store import Night, Sample, Verdict
from seqmark_tools.nightly.judge import Kind
from seqmark_tools.units import DASH, si

_TITLES = {
    Kind.REGRESSION: "Regressions, confirmed",
    Kind.BROKEN: "Broken: had times, fail now and again",
    Kind.IMPROVEMENT: "Improvements, confirmed",
    Kind.EXPLAINED: "Explained by what changed on the machine",
    Kind.WAITING: "Waiting for another night: new runs agree so far",
    Kind.UNCHECKED: "Suspects that were not run again",
    Kind.FLAKY: "Failed once, and not when run again",
    Kind.DISMISSED: "Dismissed: new runs do not agree",
}


def headline(verdicts: Iterable[Verdict]) -> str:
    """The verdict in one line."""
    kinds = [verdict.kind for verdict in verdicts]
    said = [
        f"{count} {word if count == 1 else plural}"
        for kind, word, plural in (
            (Kind.REGRESSION, "regression", "regressions"),
            (Kind.BROKEN, "broken row", "broken rows"),
            (Kind.IMPROVEMENT, "improvement", "improvements"),
            (Kind.WAITING, "suspect", "suspects"),
        )
        if (count := kinds.count(kind))
    ]
    return ", ".join(said) or "nothing"


def markdown(
    machine: str,
    nights: Sequence[Night],
    tonight: Mapping[str, Sample],
    events: Sequence[Event],
    verdicts: Sequence[Verdict],
) -> str:
    """The whole verdict; `events` are tonight's."""
    timed = sum(sample.seconds is not None for sample in tonight.values())
    errors = sum(sample.is_error for sample in tonight.values())
    lines = [
        f"# {machine}, {nights[-1].date}: {headline(verdicts)}",
        "",
        f"{timed} rows measured, {len(tonight) - timed - errors} skipped, {errors} errors; night "
        f"{len(nights)}, run `{nights[-1].run_id}`.",
    ]
    if events:
        lines += ["", "## What changed since the night before", ""]
        lines += [f"- {event}" for event in events]
    dates = {night.key: night.date[:10] for night in nights}
    for kind, title in _TITLES.items():
        chosen = [verdict for verdict in verdicts if verdict.kind == kind]
        if chosen:
            lines += ["", f"## {title}", "", *_table(chosen, dates)]
    return "\n".join([*lines, ""])


def _table(verdicts: Sequence[Verdict], dates: Mapping[int, str]) -> list[str]:
    largest = sorted(verdicts, key=lambda verdict: -abs(verdict.effect or 0))
    lines = [
        "| row | since | before | after | change | run again | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for verdict in largest:
        again = statistics.median(verdict.reruns) if verdict.reruns else None
        note = " ".join(verdict.note.split()).replace("|", "\\|")
        cells = (
            verdict.row,
            dates.get(verdict.onset, DASH),
            si(verdict.before, "s"),
            si(verdict.after, "s"),
            DASH if verdict.effect is None else f"{verdict.effect:+.1%}",
            si(again, "s"),
            note,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines
