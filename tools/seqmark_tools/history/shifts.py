# SPDX-License-Identifier: Apache-2.0
"""Change points of a series, by Apache Otava.

Otava splits windows of the series where its E-divisive statistic is largest (Matteson and James,
"A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data", 2014) and keeps
the splits that Student's t-test finds significant (Fleming et al., "Hunter: Using Change Point
Detection to Hunt for Performance Regressions", 2023).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from otava.analysis import compute_change_points


@dataclass(frozen=True)
class Detection:
    """How change points are looked for. results/examples/nightly.md says what these find."""

    window: int = 50  # nights that are looked at together
    max_pvalue: float = 1e-5  # of the t-test
    min_effect: float = 0.02  # least relative change


@dataclass(frozen=True)
class Shift:
    """A change point."""

    index: int  # the first value at the new level
    before: float  # means of the values on both sides, up to the next change points
    after: float
    pvalue: float

    @property
    def effect(self) -> float:
        """Relative change: 0.05 is 5 % more."""
        return self.after / self.before - 1


FEWEST = 4  # values that can have a change point


def shifts(seconds: Sequence[float], detection: Detection) -> list[Shift]:
    """The change points of a series of positive values, in order."""
    if len(seconds) < FEWEST:
        return []
    with warnings.catch_warnings():
        # Equal values have no variance to divide by: no change point, or a sure one.
        warnings.simplefilter("ignore", RuntimeWarning)
        points, _ = compute_change_points(
            [float(value) for value in seconds],
            window_len=detection.window,
            max_pvalue=detection.max_pvalue,
            min_magnitude=detection.min_effect,
        )
    return [
        Shift(
            index=int(point.index),
            before=float(point.stats.mean_1),
            after=float(point.stats.mean_2),
            pvalue=float(point.stats.pvalue),
        )
        for point in points
    ]
