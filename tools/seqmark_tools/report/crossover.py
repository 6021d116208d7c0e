# SPDX-License-Identifier: Apache-2.0
"""Where one curve overtakes another, by interpolation between the lengths measured."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

Curve = list[tuple[float, float]]
"""(length, value), both above zero, sorted by length, one value a length."""


@dataclass(frozen=True)
class Crossing:
    """From `length` on, `overtaker` is below the other; measured at `between`."""

    length: float
    overtaker: int
    between: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two curves over the lengths that both cover; ratios are first over second."""

    low: float
    high: float
    ratio_low: float
    ratio_high: float
    crossings: list[Crossing]

    @property
    def leader(self) -> int | None:
        """The curve that is below at the longest length: 0, 1, or None where they are equal."""
        if self.ratio_high == 1:
            return None
        return 0 if self.ratio_high < 1 else 1


def interpolate(curve: Curve, x: float) -> float:
    """The value at `x` on straight lines between the points in log-log: power laws stay exact."""
    index = min(max(bisect_right(curve, x, key=lambda point: point[0]), 1), len(curve) - 1)
    (x0, y0), (x1, y1) = curve[index - 1], curve[index]
    place = (math.log(x) - math.log(x0)) / (math.log(x1) - math.log(x0))
    return math.exp(math.log(y0) + place * (math.log(y1) - math.log(y0)))


def compare(first: Curve, second: Curve) -> Comparison | None:
    """Compares where both were measured; None where the curves share no stretch of lengths."""
    if len(first) < 2 or len(second) < 2:
        return None
    low = max(first[0][0], second[0][0])
    high = min(first[-1][0], second[-1][0])
    if low >= high:
        return None
    lengths = sorted({x for x, _ in (*first, *second) if low <= x <= high} | {low, high})
    gaps = [math.log(interpolate(first, x) / interpolate(second, x)) for x in lengths]
    crossings = list(_crossings(lengths, gaps))
    return Comparison(low, high, math.exp(gaps[0]), math.exp(gaps[-1]), crossings)


def _crossings(lengths: list[float], gaps: list[float]) -> Iterable[Crossing]:
    """Changes of sign of the log ratio, which is a straight line in log x between the lengths.

    Curves that only touch do not cross; where they are equal for a while, the last equal length is
    where one leaves the other behind.
    """
    before = None
    for index, gap in enumerate(gaps):
        if gap == 0:
            continue
        if before is not None and (gaps[before] < 0) != (gap < 0):
            left = index - 1  # the last point that is not yet past the crossing
            x0, x1 = lengths[left], lengths[index]
            place = gaps[left] / (gaps[left] - gap)
            length = math.exp(math.log(x0) + place * (math.log(x1) - math.log(x0)))
            yield Crossing(length, 0 if gap < 0 else 1, (x0, x1))
        before = index
