# SPDX-License-Identifier: Apache-2.0
"""Writes what the nightly finds in synthetic years: results/examples/nightly.md.

    PYTHONPATH=tools .venv/bin/python -m seqmark_tools.nightly.study -o results/examples/nightly.md

Takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from seqmark_tools import files
from seqmark_tools.history.drawing import draw
from seqmark_tools.history.facts import events
from seqmark_tools.history.series import make_series
from seqmark_tools.nightly.judge import Kind, Rules
from seqmark_tools.nightly.summary import markdown
from seqmark_tools.nightly.year import (
    Outcome,
    Scenario,
    Year,
    judge_year,
    make_nights,
    make_year,
    simulate,
    times_of,
)

SCENARIOS = (
    Scenario("5 % changes, 1 % noise"),
    Scenario("no change at all", rows=200, changed=0, moved=0, seed=2),
    Scenario("a night shares nothing", rows=100, shared=0, seed=3),
    Scenario("a night shares all its noise", rows=100, shared=1, seed=4),
    Scenario("heavy tails", rows=100, heavy_tails=True, seed=5),
    Scenario("four bad nights", rows=100, bad_nights=4, seed=6),
    Scenario("10 % changes, 2 % noise", rows=100, noise=0.02, effect=0.1, seed=7),
    Scenario("3 % changes, 1 % noise", rows=100, effect=0.03, seed=8),
)
_EXAMPLE_ROWS = 12
_WIDTH = 100


def main() -> int:
    """Simulates every scenario and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    rules = Rules()
    outcomes = []
    for scenario in SCENARIOS:
        start = time.monotonic()
        outcomes.append(simulate(scenario, rules))
        print(f"{scenario.name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    files.write(output, "\n".join([*_page(outcomes, rules), ""]))
    return 0


def _page(outcomes: list[Outcome], rules: Rules) -> Iterator[str]:
    first, detection = outcomes[0], rules.detection
    false = first.false_slower + first.false_faster
    yield "# Nightly over a synthetic year"
    yield ""
    yield (
        f"Of {first.planted} changes of 5 % at 1 % noise, {first.found_within(3):.1%} were called "
        f"within 3 nights; false calls among {first.scenario.rows} rows in the year: {false}, or "
        f"{first.a_month(false):.2f} a month. Made by"
    )
    yield ""
    yield "```sh"
    yield "PYTHONPATH=tools .venv/bin/python -m seqmark_tools.nightly.study -o FILE"
    yield "```"
    yield ""
    yield "## Method"
    yield ""
    yield (
        f"Each night is judged by what `tools/seqmark nightly` itself runs and sees the nights "
        f"before it alone. **Suspect**: Otava (window {detection.window} nights, p ≤ "
        f"{detection.max_pvalue:.0e}, change ≥ {detection.min_effect:.0%}) finds a change point in "
        f"the nights since the row's last accepted change, with {rules.baseline} nights or more "
        f"before it and at most {rules.recent} after. **Explained**: it is within a night of "
        f"another machine, driver or build. **Run again**: {rules.reruns} times otherwise; the "
        f"median must be on the same side of the nights before, by {detection.min_effect:.0%} and "
        f"half the suspected change at least, and Welch's t-test must tell them apart (p ≤ "
        f"{rules.rerun_pvalue}). **Confirmed**: and the new level was seen on {rules.evidence} "
        f"nights."
    )
    yield ""
    yield (
        "A time is level × (1 + night + own): `night` is the part of the noise that all runs of a "
        "row in one night share, so that running again the same night cannot tell it from a "
        "change; half of the variance unless said otherwise. Half of the rows have one change, "
        "three of four slower, on a random night; a tenth move by as much with a new driver; the "
        "rest have none. A change is found when it is called with the right sign and an onset "
        "within 5 nights; every other call, slower or faster, is false, and so is a second call. "
        "On the first night a change is at best a suspect."
    )
    yield ""
    yield "## Found and false"
    yield ""
    yield (
        "The first two years are what nights should be like; the others say what it costs when "
        "noise or changes are worse than that."
    )
    yield ""
    yield (
        "| year | rows | planted | night 1 | ≤ 2 | ≤ 3 | ≤ 7 | false slower | false faster | "
        "false a month (500 rows) | with the driver: explained | run again a night (500 rows) |"
    )
    yield f"| --- |{' ---: |' * 11}"
    for outcome in outcomes:
        yield _line(outcome)
    yield ""
    yield from _example(first.scenario, rules)


def _line(outcome: Outcome) -> str:
    scenario = outcome.scenario
    found = [
        f"{outcome.found_within(nights):.1%}" if outcome.planted else "–" for nights in (1, 2, 3, 7)
    ]
    false = outcome.false_slower + outcome.false_faster
    explained = f"{outcome.explained} of {outcome.moved}" if outcome.moved else "–"
    cells = (
        scenario.name,
        str(scenario.rows),
        str(outcome.planted),
        *found,
        str(outcome.false_slower),
        str(outcome.false_faster),
        f"{outcome.a_month(false):.2f}",
        explained,
        f"{outcome.a_month(outcome.suspects) / 30:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _example(scenario: Scenario, rules: Rules) -> Iterator[str]:
    """A night's verdict and a row's drawing, of a few rows of the year."""
    moved = int((scenario.changed + scenario.moved / 2) * scenario.rows)
    numbers = [*range(_EXAMPLE_ROWS), moved]
    years = {year.row: year for year in (make_year(scenario, number) for number in numbers)}
    nights = make_nights(scenario)
    verdicts = judge_year(scenario, rules, years, nights, Outcome(scenario))
    called = next(verdict for verdict in verdicts if verdict.kind == Kind.REGRESSION)
    tonight = nights[called.decided]
    changed = events((night.date, night.facts) for night in nights)
    yield "## A night that calls a regression"
    yield ""
    yield f"What `tools/seqmark nightly` prints, of {len(numbers)} of the rows; it exits with 1:"
    yield ""
    text = markdown(
        "synthetic",
        nights[: tonight.key + 1],
        {row: times_of(year, [tonight])[tonight.key] for row, year in years.items()},
        [event for event in changed if event.night == tonight.key],
        [verdict for verdict in verdicts if verdict.decided == tonight.key],
    )
    yield from (f"> {line}".rstrip() for line in text.splitlines())
    for title, year in (
        ("The row", years[called.row]),
        ("A row that moved with a driver", _last(years)),
    ):
        samples = times_of(year, nights)
        said = [verdict for verdict in verdicts if verdict.row == year.row]
        series = make_series("synthetic", nights, rules.detection, (year.row, samples, said))
        yield ""
        yield f"## {title}, as `tools/seqmark history show` draws it at the end of the year"
        yield ""
        yield "```"
        yield from (text.plain.rstrip() for text in draw(series, _WIDTH))
        yield "```"


def _last(years: dict[str, Year]) -> Year:
    return list(years.values())[-1]


if __name__ == "__main__":
    sys.exit(main())
