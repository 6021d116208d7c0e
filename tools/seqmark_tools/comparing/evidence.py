# SPDX-License-Identifier: Apache-2.0
"""How sure a difference is.

Everything is on the scale of log ratios, new over base: 0.02 is 2 % more. Each function takes many
rows at once, since rows say of each other how much processes differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Array = NDArray[np.float64]
Numbers = Sequence[float] | NDArray[Any]

# Rows fewer than these say too little of how processes differ.
ENOUGH_ROWS = 20
# How much the log ratio of one process to another of the same program varies: Student's t with
# three degrees of freedom, of this scale: likeliest for 948 rows run twice on an H200. The tails
# are heavy since a library may pick another algorithm: with four degrees 17 of those rows would be
# called changed, with two a row that takes twice as long would not be.
PROCESS_SCALE = 0.007
PROCESS_DEGREES = 3.0
# Processes that agree better than this do so by luck, or by the step of the clock.
LEAST_SPREAD = 0.001


@dataclass(frozen=True)
class Evidence:
    """Of each row: log ratio, its interval, and the p-value of there being no difference."""

    effect: Array
    low: Array
    high: Array
    p: Array
    method: str  # in words


def counted(effect: Numbers) -> Evidence:
    """Quantities that a program has without noise: any difference is one."""
    exact = np.asarray(effect, dtype=float)
    p = np.where(np.abs(exact) > 1e-9, 0.0, 1.0)
    return Evidence(exact, exact, exact, p, "counted, without noise")


def one_process(effect: Numbers, within: Numbers, alpha: float, *, fit: bool) -> Evidence:
    """One process a side.

    Noise within a process, `within` (standard error of the log ratio), says nothing of what differs
    from process to process: addresses, clocks, algorithms chosen. With `fit` that spread is taken
    from the rows themselves, most of which are supposed not to have changed: an empirical null
    (Efron, Large-scale simultaneous hypothesis testing, JASA 99, 2004), its scale by the median so
    that changed rows do not widen it much. Else, or with few rows, it is PROCESS_SCALE.
    """
    d, w = np.asarray(effect, dtype=float), np.asarray(within, dtype=float)
    if fit and len(d) >= ENOUGH_ROWS:
        spread = max(_spread(d - np.median(d), w), LEAST_SPREAD)
        origin = f"found over these {len(d)} rows"
    else:
        spread, origin = PROCESS_SCALE, "assumed, as on an H200"
    error = np.hypot(spread, w)
    method = (
        f"one process a side: noise within it, and {100 * spread:.1f} % between processes "
        f"({origin}; Student's t, {PROCESS_DEGREES:.0f} degrees)"
    )
    return _student(d, error, np.full_like(d, PROCESS_DEGREES), alpha, method)


def _spread(centred: Array, within: Array) -> float:
    """The scale s for which half of |d| / sqrt(s^2 + w^2) is below Student's upper quartile."""
    quartile = float(stats.t.ppf(0.75, PROCESS_DEGREES))

    def excess(scale: float) -> float:
        return float(np.median(np.abs(centred) / np.hypot(scale, within))) - quartile

    highest = float(np.max(np.abs(centred))) / quartile + LEAST_SPREAD
    if excess(LEAST_SPREAD) <= 0 or excess(highest) >= 0:
        return LEAST_SPREAD
    return float(optimize.brentq(excess, LEAST_SPREAD, highest))


def processes(base: Sequence[Array], new: Sequence[Array], alpha: float) -> Evidence:
    """Several processes on a side at least: `base` and `new` hold each row's log values.

    Student's t of the processes' medians with one variance for both sides, so that a side may be a
    single process; its tails are then those of one_process. Simulated over 500 rows without a
    change it is wrong in one row or more in at most 7 % of trials with normal, t(3) or unequal
    deviations. Where 5 % of the rows have two modes 8 % apart it was wrong in 12 % of 60 trials
    with five processes a side, in every second trial with three.
    """
    effect = np.array([n.mean() - b.mean() for b, n in zip(base, new, strict=True)])
    squares = [
        float(((b - b.mean()) ** 2).sum() + ((n - n.mean()) ** 2).sum())
        for b, n in zip(base, new, strict=True)
    ]
    degrees = np.array([len(b) + len(n) - 2.0 for b, n in zip(base, new, strict=True)])
    share = np.array([1 / len(b) + 1 / len(n) for b, n in zip(base, new, strict=True)])
    lone = np.array([min(len(b), len(n)) == 1 for b, n in zip(base, new, strict=True)])
    most = np.where(lone, PROCESS_DEGREES, np.inf)
    variance = np.array(squares) / degrees
    return _by_variance(effect, variance, degrees, share, alpha, "processes", most)


def pairs(differences: Sequence[Array], alpha: float) -> Evidence:
    """Both sides in each of several processes: `differences` holds each row's log ratios."""
    effect = np.array([d.mean() for d in differences])
    degrees = np.array([len(d) - 1.0 for d in differences])
    variance = np.array([d.var(ddof=1) for d in differences])
    share = np.array([1 / len(d) for d in differences])
    return _by_variance(effect, variance, degrees, share, alpha, "differences within processes")


def _by_variance(
    effect: Array,
    variance: Array,
    degrees: Array,
    share: Array,
    alpha: float,
    of: str,
    most_degrees: Array | float = np.inf,
) -> Evidence:
    variance = np.maximum(variance, LEAST_SPREAD**2)
    method = f"Student's t of the {of}"
    if len(effect) >= ENOUGH_ROWS:
        prior, prior_degrees = _prior(variance, degrees)
        method += f", variances shrunk towards {100 * math.sqrt(prior):.2f} % squared"
        if np.isinf(prior_degrees):
            variance = np.full_like(variance, prior)
        else:
            total = prior_degrees + degrees
            variance = (prior_degrees * prior + degrees * variance) / total
        # No more degrees than all rows have together.
        degrees = np.minimum(prior_degrees + degrees, degrees.sum())
    degrees = np.minimum(degrees, most_degrees)
    return _student(effect, np.sqrt(variance * share), degrees, alpha, method)


def _prior(variance: Array, degrees: Array) -> tuple[float, float]:
    """What many rows' variances say of any: a variance, and how many degrees it is worth.

    Smyth, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3 (2004),
    section 6.2: moments of the logarithm of scaled F variables.
    """
    e = np.log(variance) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = float(e.var(ddof=1) - special.polygamma(1, degrees / 2).mean())
    if excess <= 0:
        return float(np.exp(e.mean())), np.inf

    def above(x: float) -> float:
        return float(special.polygamma(1, x)) - excess

    # trigamma(x) is between 1/x and 1/x + 1/x^2.
    half = float(optimize.brentq(above, 1e-8, 1 + 1 / excess + 1 / math.sqrt(excess)))
    return float(np.exp(e.mean() + special.digamma(half) - np.log(half))), 2 * half


def _student(effect: Array, error: Array, degrees: Array, alpha: float, method: str) -> Evidence:
    p = 2 * stats.t.sf(np.abs(effect) / error, degrees)
    reach = stats.t.isf(alpha / 2, degrees) * error
    return Evidence(effect, effect - reach, effect + reach, np.asarray(p), method)


def corrected(p: Numbers) -> Array:
    """The p-values corrected for their number, by Benjamini and Hochberg's procedure."""
    if len(p) == 0:
        return np.array([])
    return np.asarray(stats.false_discovery_control(p, method="bh"), dtype=float)


def geometric_mean(effect: Numbers, alpha: float) -> tuple[float, float, float]:
    """The mean log ratio over rows and its bootstrap interval (BCa), rows being drawn anew.

    Efron, Better bootstrap confidence intervals, JASA 82 (1987). The interval is that of a set of
    rows such as these; fewer than three of them bound nothing.
    """
    d = np.asarray(effect, dtype=float)
    mean = float(d.mean())
    if len(d) < 3:
        return mean, -math.inf, math.inf
    if np.ptp(d) == 0:
        return mean, mean, mean
    interval = stats.bootstrap(
        (d,),
        np.mean,
        confidence_level=1 - alpha,
        n_resamples=4999,
        batch=max(1, 2_000_000 // len(d)),
        random_state=np.random.default_rng(1),
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)
