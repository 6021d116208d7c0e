# SPDX-License-Identifier: Apache-2.0
"""How many samples a row takes, and what they say; needs no library."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Limits:
    """When to stop sampling; SamplerOptions of fixtures/sampler.h."""

    noise: float = 0.005
    least_samples: int = 20
    most_samples: int = 20000
    least_seconds: float = 0.1  # of samples, in sum
    warm_up_seconds: float = 0.05  # wall, at least; up to four times that
    most_seconds: float = 1.5  # wall
    fewest_samples: int = 3  # taken whatever the time
    # At the power limit samples count from so many wall seconds on, for at least so many.
    limited_warm_up_seconds: float = 0.5
    limited_seconds: float = 1.0


@dataclasses.dataclass
class Timing:
    """A call's samples, and what else was learnt of it."""

    samples: list[float]  # seconds, one call each
    graph: float | None = None  # seconds a call, replayed as a CUDA graph, hot
    host: float | None = None  # host seconds to enqueue one call
    event: float | None = None  # seconds a call between events around it
    peak: int | None = None  # most bytes that were allocated in the samples
    remark: str = ""

    @property
    def median(self) -> float:
        """Seconds a call."""
        return statistics.median(self.samples)

    @property
    def noise(self) -> float:
        """Relative half-width of the median's interval."""
        return noise(self.samples)

    @property
    def p10(self) -> float:
        """The 10th percentile, in seconds."""
        return sorted(self.samples)[(len(self.samples) - 1) // 10]

    @property
    def p90(self) -> float:
        """The 90th percentile, in seconds."""
        return sorted(self.samples)[-1 - (len(self.samples) - 1) // 10]


def noise(samples: list[float]) -> float:
    """Relative half-width of the 95 % interval of the median.

    By order statistics, so that no distribution is assumed; below six samples
    it is the whole range.
    """
    n = len(samples)
    if n == 1:
        return 1.0
    if n > 200:  # the normal approximation is exact to a rank here
        low = math.floor(0.5 * n - 0.98 * math.sqrt(n)) - 1
    else:  # the largest k with P(Binomial(n, 1/2) <= k) <= 0.025
        low, probability = 0, 0.5**n
        at_most = probability
        while at_most + probability * (n - low) / (low + 1) <= 0.025:
            probability *= (n - low) / (low + 1)
            at_most += probability
            low += 1
    ordered = sorted(samples)
    width = ordered[n - 1 - low] - ordered[low]
    return min(1.0, 0.5 * width / statistics.median(ordered))


def warm_up(limits: Limits, take: Callable[[], list[float]]) -> None:
    """Takes samples for nothing until the device is as warm as it will be.

    As WarmUp of fixtures/sampler.cc.
    """
    previous = math.inf
    start = time.perf_counter()
    while True:
        median = statistics.median(take())
        agrees = abs(median - previous) <= max(0.02, 2 * limits.noise) * median
        previous = median
        elapsed = time.perf_counter() - start
        if elapsed >= limits.most_seconds / 3 or elapsed >= 4 * limits.warm_up_seconds:
            return
        if elapsed >= limits.warm_up_seconds and agrees:
            return


def sample(
    limits: Limits,
    take: Callable[[], list[float]],
    power_limited: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Samples, a few more by each `take`, until one of the limits is met.

    `power_limited` says whether the chip met its power limit since it was last
    asked: what it did before, and as long as it seeks the clock that it can keep
    up, is faster, and does not count.
    """
    samples: list[float] = []
    start = time.perf_counter()
    look = limits.least_samples
    keep_from: float | None = None
    keep_until = 0.0
    while len(samples) < limits.most_samples:
        begin = time.perf_counter() - start
        taken = take()
        late = begin > limits.most_seconds * 2 / 3
        if keep_from is None and power_limited() and not late:
            keep_from = max(begin, min(limits.limited_warm_up_seconds, limits.most_seconds / 3))
            keep_until = keep_from + limits.limited_seconds
            samples, look = [], limits.least_samples
        if keep_from is not None and begin < keep_from:
            continue
        samples += taken
        n = len(samples)
        elapsed = time.perf_counter() - start
        if n >= limits.fewest_samples and elapsed > limits.most_seconds:
            break
        if n >= look and sum(samples) >= limits.least_seconds and elapsed >= keep_until:
            if noise(samples) <= limits.noise:
                break
            look = n + n // 5 + 1  # each look is a chance to stop by luck
    return samples
