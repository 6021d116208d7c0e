# SPDX-License-Identifier: Apache-2.0
"""What compare calls a change, on data whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from seqmark_tools.comparing import evidence, sequential
from seqmark_tools.comparing.evidence import Evidence

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]
ROWS, ALPHA, MIN_EFFECT = 500, 0.05, 0.02
TRIALS = 40
# Of 40 trials with a false alarm in 5 %, more than 6 have one with a probability below 1 %.
MOST_ALARMS = 6


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return np.asarray(rng.normal(size=shape) * 0.01)


def heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return np.asarray(rng.standard_t(3, size=shape) * 0.005)


def unequal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return np.asarray(normal(rng, shape) * np.exp(0.7 * rng.normal(size=(shape[0], 1))))


def called(found: Evidence) -> NDArray[np.bool_]:
    effect = np.abs(np.expm1(found.effect))
    return np.asarray((evidence.corrected(found.p) <= ALPHA) & (effect >= MIN_EFFECT))


@pytest.mark.parametrize("draw", [normal, heavy, unequal])
@pytest.mark.parametrize("processes", [(3, 3), (5, 5), (5, 1)])
def test_processes_of_the_same_program(draw: Draw, processes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(TRIALS):
        values = draw(rng, (ROWS, sum(processes)))
        base, new = values[:, : processes[0]], values[:, processes[0] :]
        alarms += bool(called(evidence.processes(list(base), list(new), ALPHA)).any())
    assert alarms <= MOST_ALARMS


@pytest.mark.parametrize(
    ("processes", "noise", "power"), [(3, 0.005, 0.9), (5, 0.01, 0.9), (10, 0.01, 0.95)]
)
def test_processes_3_percent_slower(processes: int, noise: float, power: float) -> None:
    """Where a 3 % shift is found; one below --min-effect is too when it is measured larger."""
    rng = np.random.default_rng(1)
    found, false = [], []
    for _ in range(10):
        values = rng.normal(size=(ROWS, 2 * processes)) * noise
        values[:50, processes:] += math.log(1.03)
        decision = called(
            evidence.processes(list(values[:, :processes]), list(values[:, processes:]), ALPHA)
        )
        found.append(decision[:50].mean())
        false.append(decision[50:].sum() / max(decision.sum(), 1))
    assert np.mean(found) >= power
    assert np.mean(false) <= ALPHA


def test_few_rows_take_their_own_variance() -> None:
    rng = np.random.default_rng(2)
    p = np.concatenate(
        [
            evidence.processes(list(values[:, :4]), list(values[:, 4:]), ALPHA).p
            for values in (rng.normal(size=(10, 8)) * 0.01 for _ in range(300))
        ]
    )
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.012)
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.04)


def test_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(2000, 6)) * 0.01
    values[:, 3:] += 0.04
    found = evidence.processes(list(values[:, :3]), list(values[:, 3:]), ALPHA)
    assert np.mean((found.low < 0.04) & (found.high > 0.04)) == pytest.approx(0.95, abs=0.015)
    found = evidence.pairs(list(values[:, 3:] - values[:, :3]), ALPHA)
    assert np.mean((found.low < 0.04) & (found.high > 0.04)) == pytest.approx(0.95, abs=0.015)


def test_processes_that_agree_by_luck() -> None:
    """The clock's step makes medians equal: one step on is no proof."""
    base, new = np.log([1.248e-6] * 3), np.log([1.249e-6] * 3)
    found = evidence.processes([base], [new], ALPHA)
    assert np.isfinite(found.p).all()
    assert found.p[0] > 0.1


@pytest.mark.parametrize("draw", [normal, heavy])
def test_one_process_a_side_of_the_same_program(draw: Draw) -> None:
    """The noise within is a tenth of what processes differ by: alone it would call most rows."""
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(TRIALS):
        values = draw(rng, (ROWS, 2))
        within = np.full(ROWS, 0.001)
        found = evidence.one_process(values[:, 1] - values[:, 0], within, ALPHA, fit=True)
        alarms += bool(called(found).any())
    assert alarms <= MOST_ALARMS


def test_one_process_a_side_that_is_much_slower() -> None:
    rng = np.random.default_rng(5)
    effect = rng.normal(size=ROWS) * 0.005
    effect[:5] += math.log(1.5)
    found = evidence.one_process(effect, np.full(ROWS, 0.001), ALPHA, fit=True)
    assert list(np.flatnonzero(called(found))) == [0, 1, 2, 3, 4]
    assert "0.4 % between processes" in found.method, "t(3) of 0.44 % is as wide as normal 0.5 %"


def test_one_process_where_all_rows_are_slower() -> None:
    """A common shift is a change, not spread."""
    effect = np.random.default_rng(6).normal(size=ROWS) * 0.003 + math.log(1.1)
    assert called(evidence.one_process(effect, np.zeros(ROWS), ALPHA, fit=True)).all()


def test_few_rows_of_one_process_assume_a_spread() -> None:
    found = evidence.one_process([0.01, 0.3], [0.0, 0.0], ALPHA, fit=True)
    assert "assumed" in found.method
    assert list(called(found)) == [False, True]


def test_counted_quantities() -> None:
    found = evidence.counted([0.0, 0.5, -0.5])
    assert list(found.p) == [1.0, 0.0, 0.0]


def test_looking_after_every_round() -> None:
    """Of rows without a change at most 5 % are ever called, and as many intervals ever miss."""
    rng = np.random.default_rng(7)
    rows = 4000
    values = rng.normal(size=(rows, 30)) * 0.01
    ever, missed = np.zeros(rows, bool), np.zeros(rows, bool)
    often = np.zeros(rows, bool)
    for rounds in range(2, 31):
        seen = list(values[:, :rounds])
        found = sequential.rounds(seen, ALPHA)
        ever |= found.p <= ALPHA
        missed |= (found.low > 0) | (found.high < 0)
        often |= evidence.pairs(seen, ALPHA).p <= ALPHA
    assert ever.mean() <= ALPHA
    assert missed.mean() <= ALPHA
    assert (ever == missed).all(), "the interval is the test's"
    assert often.mean() > 2 * ALPHA, "which an ordinary test does not hold"


def test_rounds_until_it_is_decided() -> None:
    rng = np.random.default_rng(8)
    slower = sequential.rounds(list(rng.normal(size=(200, 6)) * 0.007 + math.log(1.05)), ALPHA)
    assert (slower.p <= ALPHA).mean() > 0.95
    same = sequential.rounds(list(rng.normal(size=(200, 12)) * 0.007), ALPHA)
    assert np.mean((same.low > -MIN_EFFECT) & (same.high < MIN_EFFECT)) > 0.9
    two = sequential.rounds([np.array([0.1, 0.1])], ALPHA)
    assert math.isinf(two.high[0]), "two rounds bound nothing"


def test_correction() -> None:
    assert list(evidence.corrected([])) == []
    corrected = evidence.corrected([0.01, 0.02, 0.9])  # by hand: 0.01 x 3, 0.02 x 3/2, 0.9
    assert list(corrected) == pytest.approx([0.03, 0.03, 0.9])


def test_geometric_mean() -> None:
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(200):
        mean, low, high = evidence.geometric_mean(list(rng.normal(size=60) * 0.05 + 0.03), ALPHA)
        assert low < mean < high
        covered += low < 0.03 < high
    assert covered >= 180
    assert evidence.geometric_mean([0.5, 0.5, 0.5], ALPHA) == (0.5, 0.5, 0.5)
    assert evidence.geometric_mean([0.5], ALPHA) == (0.5, -math.inf, math.inf)
