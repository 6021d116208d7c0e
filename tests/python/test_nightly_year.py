# SPDX-License-Identifier: Apache-2.0
"""A part of the synthetic year; results/examples/nightly.md has the whole."""

from __future__ import annotations

from seqmark_tools.nightly.judge import Rules
from seqmark_tools.nightly.year import Scenario, make_year, simulate


def test_planted_changes_are_found_and_others_are_not_called() -> None:
    scenario = Scenario("small", rows=40, nights=120)
    outcome = simulate(scenario, Rules(), 2)
    assert outcome.planted == 20
    assert outcome.found_within(3) >= 0.95
    assert outcome.false_slower + outcome.false_faster == 0
    assert outcome.moved == 4
    assert outcome.explained == 4
    assert 20 <= outcome.suspects < 80


def test_without_changes_nothing_is_called() -> None:
    quiet = Scenario("quiet", rows=40, nights=90, changed=0, moved=0)
    outcome = simulate(quiet, Rules(), 2)
    assert outcome.planted == 0
    assert outcome.false_slower + outcome.false_faster == 0


def test_years_are_the_same_each_time() -> None:
    scenario = Scenario("same", rows=10, nights=60)
    one, two = make_year(scenario, 3), make_year(scenario, 3)
    assert one.planted is not None
    assert one.planted == two.planted
    assert (one.own == two.own).all()
    assert abs(one.own.std() ** 2 + one.night.std() ** 2 - scenario.noise**2) < 0.5e-4
    before, after = one.level[one.planted - 1], one.level[one.planted]
    assert abs(abs(after / before - 1) - scenario.effect) < 1e-12
