# SPDX-License-Identifier: Apache-2.0
"""A test that may be looked at after every round, and stopped when it is decided.

A round is a process of each side, its log ratio d. The evidence against "no difference" after n
rounds is the Bayes factor of normal d with unknown variance, the effect in standard deviations
being normal with variance SCALE under the alternative and the right Haar prior on the deviation
(Rouder et al., Bayesian t tests, Psychon. Bull. Rev. 16 (2009), with that prior in place of
Cauchy's):

    E_n = (1 + n g)^(-1/2) [ (1 + t^2/v) / (1 + t^2/(v (1 + n g))) ]^((v + 1) / 2),  v = n - 1

It is a test martingale under no difference, whatever the deviation, so that by Ville's inequality
it exceeds 1/alpha at any time with a probability of at most alpha, however often it is looked at;
the effects it does not exclude are an interval that holds at all times together (Wang and Ramdas,
Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance,
arXiv:2310.03722). Benjamini and Hochberg's procedure on 1/E bounds the false discoveries among the
rows, dependent as they are (Wang and Ramdas, False discovery rate control with e-values, J. R.
Stat. Soc. B 84 (2022)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqmark_tools.comparing.evidence import LEAST_SPREAD, Array, Evidence

# g: regressions worth finding are a few standard deviations of a process's median.
SCALE = 16.0


def rounds(differences: Sequence[Array], alpha: float) -> Evidence:
    """Evidence of each row's log ratios so far, two rounds at least; p is 1/E."""
    effect = np.array([d.mean() for d in differences])
    n = np.array([float(len(d)) for d in differences])
    error = np.sqrt(np.maximum([d.var(ddof=1) for d in differences], LEAST_SPREAD**2) / n)
    reach = error * _farthest(n, alpha)
    p = np.minimum(1.0, np.exp(-log_evidence(effect / error, n)))
    return Evidence(
        effect,
        effect - reach,
        effect + reach,
        p,
        f"t-test valid at all times of {int(n.max())} rounds",
    )


def log_evidence(t: Array, n: Array) -> Array:
    """Log E_n of the t statistic of n differences."""
    v, spread = n - 1, 1 + n * SCALE
    odds = np.log1p(t**2 / v) - np.log1p(t**2 / (v * spread))
    return np.asarray((v + 1) / 2 * odds - np.log(spread) / 2)


def _farthest(n: Array, alpha: float) -> Array:
    """The t for which E_n is 1/alpha: log_evidence, solved; infinite while no t is enough."""
    v, spread = n - 1, 1 + n * SCALE
    c = np.exp((np.log(spread) / 2 - np.log(alpha)) * 2 / (v + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = v * (c - 1) / (1 - c / spread)
    return np.where(c < spread, np.sqrt(np.maximum(squared, 0)), np.inf)
