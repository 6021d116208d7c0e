# SPDX-License-Identifier: Apache-2.0
"""The judge: suspects are run again before they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from seqmark_tools.history.store import Night, Sample, Verdict
from seqmark_tools.nightly.judge import Kind, Rerun, Rules, judge
from seqmark_tools.nightly.summary import headline, markdown

ROW = "rmsnorm/native/mamba-790m/dtype:bf16/device:cuda/batch:1/seqlen:4096"
RULES = Rules()


def make_nights(
    count: int, driver_night: int | None = None, fact: str = "cuda_driver"
) -> list[Night]:
    dates = (np.datetime64("2026-01-01") + np.arange(count)).astype(str)
    return [
        Night(
            key=100 + night,
            run_id=f"n{night}",
            date=f"{date}T03:00:00+00:00",
            facts={fact: "b" if driver_night is not None and night >= driver_night else "a"},
        )
        for night, date in enumerate(dates)
    ]


def levels(*parts: tuple[int, float], seed: int = 3) -> list[float]:
    """Nights at levels of milliseconds, with 1 % of noise."""
    random = np.random.default_rng(seed)
    every = np.concatenate([np.full(count, level * 1e-3) for count, level in parts])
    return [float(value) for value in every * (1 + 0.01 * random.standard_normal(len(every)))]


def samples(nights: Sequence[Night], seconds: Sequence[float | None]) -> dict[int, Sample]:
    return {
        night.key: Sample(ROW, time, failure="error: fell over" if time is None else None)
        for night, time in zip(nights, seconds, strict=True)
    }


class Again:
    """Answers that a row takes so long when it is run again, and notes what it was asked."""

    def __init__(self, milliseconds: float | None) -> None:
        self.milliseconds = milliseconds
        self.asked: list[str] = []

    def __call__(self, rows: Sequence[str], times: int) -> Mapping[str, Sequence[float]]:
        self.asked += rows
        if self.milliseconds is None:
            return {row: [] for row in rows}
        spread = np.linspace(-0.005, 0.005, times)
        return {row: list(self.milliseconds * 1e-3 * (1 + spread)) for row in rows}


def judge_row(
    seconds: Sequence[float | None],
    again: Rerun | None,
    before: Sequence[Verdict] = (),
    rules: Rules = RULES,
    nights: Sequence[Night] | None = None,
) -> list[Verdict]:
    nights = nights or make_nights(len(seconds))
    return judge(nights, {ROW: samples(nights, seconds)}, before, again, rules)


def held(nights: Sequence[Night], seconds: Sequence[float], since: int) -> dict[int, Sample]:
    """The nights' times, throttled for nine tenths of the time from night `since` on."""
    return {
        night.key: Sample(ROW, time, throttled=0.9 if number >= since else None)
        for number, (night, time) in enumerate(zip(nights, seconds, strict=True))
    }


@pytest.mark.parametrize(
    ("since", "note"),
    [
        (30, "throttled 90 % of the time, 0 % before"),
        (0, ""),  # as ever
        (32, ""),  # never
    ],
)
def test_what_held_a_slower_row_back_is_said(since: int, note: str) -> None:
    seconds = levels((30, 1.0), (2, 1.1))
    nights = make_nights(len(seconds))
    times = {ROW: held(nights, seconds, since)}
    (found,) = judge(nights, times, [], Again(1.1), RULES)
    assert (found.kind, found.note) == (Kind.REGRESSION, note)


def test_what_held_a_row_back_stands_beside_an_explanation() -> None:
    seconds = levels((30, 1.0), (2, 1.1))
    nights = make_nights(len(seconds), driver_night=30)
    (found,) = judge(nights, {ROW: held(nights, seconds, 30)}, [], Again(1.1), RULES)
    assert found.kind == Kind.EXPLAINED
    assert found.note == "driver: cuda_driver a → b; throttled 90 % of the time, 0 % before"


def test_a_quiet_row_is_left_alone() -> None:
    again = Again(1.0)
    assert judge_row(levels((60, 1.0)), again) == []
    assert again.asked == []


@pytest.mark.parametrize(
    ("after", "kind"), [(1.06, Kind.REGRESSION), (0.94, Kind.IMPROVEMENT), (1.5, Kind.REGRESSION)]
)
def test_a_change_that_new_runs_confirm(after: float, kind: Kind) -> None:
    again = Again(after)
    (verdict,) = judge_row(levels((60, 1.0), (3, after)), again)
    assert again.asked == [ROW]
    assert verdict.kind == kind
    assert verdict.onset == 160
    assert verdict.decided == 162
    assert verdict.effect == pytest.approx(after - 1, abs=0.015)
    assert len(verdict.reruns) == RULES.reruns


@pytest.mark.parametrize("again", [1.0, 0.95, 1.012])
def test_a_change_that_new_runs_do_not_confirm(again: float) -> None:
    (verdict,) = judge_row(levels((60, 1.0), (3, 1.06)), Again(again))
    assert verdict.kind == Kind.DISMISSED


def test_one_night_waits_for_another() -> None:
    (verdict,) = judge_row(levels((60, 1.0), (1, 1.08)), Again(1.08))
    assert verdict.kind == Kind.WAITING
    (verdict,) = judge_row(
        levels((60, 1.0), (1, 1.08)), Again(1.08), rules=replace(RULES, evidence=1)
    )
    assert verdict.kind == Kind.REGRESSION


def test_a_bad_night_is_no_regression() -> None:
    kinds = [
        verdict.kind
        for after in (0, 1, 2, 5)
        for verdict in judge_row(levels((60, 1.0), (1, 1.2), (after, 1.0)), Again(1.0))
    ]
    assert set(kinds) <= {Kind.DISMISSED}


@pytest.mark.parametrize("fact", ["host_name", "cuda_driver", "cudnn_version"])
def test_an_event_explains_a_change(fact: str) -> None:
    seconds = levels((60, 1.0), (3, 1.06))
    again = Again(1.06)
    (verdict,) = judge_row(seconds, again, nights=make_nights(63, 60, fact))
    assert verdict.kind == Kind.EXPLAINED
    assert f"{fact} a → b" in verdict.note
    assert again.asked == []
    # An event of another time, of another device's library, or a commit explains nothing.
    for nights in (
        make_nights(63, 50, fact),
        make_nights(63, 60, "onednn_version"),
        make_nights(63, 60, "commit"),
    ):
        (verdict,) = judge_row(seconds, again, nights=nights)
        assert verdict.kind == Kind.REGRESSION
    (verdict,) = judge_row(
        seconds, again, nights=make_nights(63, 60, fact), rules=replace(RULES, excuses=("commit",))
    )
    assert verdict.kind == Kind.REGRESSION


def test_a_change_is_called_once() -> None:
    seconds = levels((60, 1.0), (20, 1.06))
    called: list[Verdict] = []
    for count in range(58, 81):
        called += judge_row(seconds[:count], Again(1.06 if count > 60 else 1.0), called)
    kinds = [verdict.kind for verdict in called if verdict.kind != Kind.WAITING]
    assert kinds == [Kind.REGRESSION]
    # And the next one is judged against the new level.
    seconds += levels((3, 1.12), seed=4)
    (verdict,) = judge_row(seconds, Again(1.12), called)
    assert verdict.kind == Kind.REGRESSION
    assert verdict.before == pytest.approx(1.06e-3, rel=0.01)


def test_no_new_runs_no_call() -> None:
    (verdict,) = judge_row(levels((60, 1.0), (3, 1.06)), None)
    assert verdict.kind == Kind.UNCHECKED
    (verdict,) = judge_row(levels((60, 1.0), (3, 1.06)), lambda _rows, _times: {})
    assert verdict.kind == Kind.UNCHECKED


def test_a_young_history_is_not_judged() -> None:
    assert judge_row(levels((4, 1.0), (2, 1.5)), Again(1.5)) == []


def test_a_row_that_breaks() -> None:
    seconds = [*levels((10, 1.0)), None]
    (verdict,) = judge_row(seconds, Again(None))
    assert verdict.kind == Kind.BROKEN
    assert verdict.note == "error: fell over"
    (verdict,) = judge_row(seconds, Again(1.0))
    assert verdict.kind == Kind.FLAKY
    assert judge_row([*seconds, None], Again(None)) == []  # said the night before
    assert judge_row([None, None, None], Again(None)) == []  # never ran
    nights = make_nights(11)
    skipped = samples(nights, seconds) | {nights[-1].key: Sample(ROW, failure="skipped: too large")}
    assert judge(nights, {ROW: skipped}, (), Again(None), RULES) == []


def test_the_summary_says_what_was_called() -> None:
    nights = make_nights(63)
    seconds = levels((60, 1.0), (3, 1.06))
    verdicts = judge_row(seconds, Again(1.06), nights=nights)
    text = markdown("box", nights, {ROW: Sample(ROW, seconds[-1])}, [], verdicts)
    assert headline(verdicts) == "1 regression"
    assert text.startswith("# box, 2026-03-04T03:00:00+00:00: 1 regression\n")
    assert "1 rows measured, 0 skipped, 0 errors; night 63, run `n62`." in text
    assert f"| {ROW} | 2026-03-02 | 1.00 ms | 1.05 ms | +" in text
    assert headline([]) == "nothing"
