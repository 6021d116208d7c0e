# SPDX-License-Identifier: Apache-2.0
"""What the operators' golden cases are made of: seeded inputs, and a check.

Inputs are multiples of 1/256: exact in every type and short in the file.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import collections
import importlib
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

Problem = dict[str, float | bool | str]
Case = tuple[Problem, dict[str, Tensor]]
Function = Callable[..., tuple[Tensor, ...]]

EPSILON = 2.0**-17  # near 1e-5, and exact in f32, which Problem::epsilon is


class Inputs:
    """Seeded inputs, named by the role (fixtures/tensor.h) that they have."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def _normal(self, *dims: int, scale: float = 1.0) -> Tensor:
        x = torch.randn(dims, generator=self._generator, dtype=torch.float64)
        return torch.round(x * scale * 256) / 256

    def _uniform(self, *dims: int, low: float, high: float) -> Tensor:
        x = torch.rand(dims, generator=self._generator, dtype=torch.float64)
        return torch.round((low + (high - low) * x) * 256) / 256

    def activation(self, *dims: int) -> Tensor:
        """Deviation 1."""
        return self._normal(*dims)

    def weight(self, *dims: int) -> Tensor:
        """Deviation 1/sqrt(last axis)."""
        return self._normal(*dims, scale=dims[-1] ** -0.5)

    def scale(self, *dims: int) -> Tensor:
        """Around 1."""
        return self._uniform(*dims, low=0.5, high=1.5)

    def bias(self, *dims: int) -> Tensor:
        """Deviation 0.1."""
        return self._normal(*dims, scale=0.1)

    def step(self, *dims: int) -> Tensor:
        """Raw dt."""
        return self._normal(*dims, scale=0.5)

    def step_bias(self, *dims: int) -> Tensor:
        """A softplus of 0.01 to 0.7."""
        return self._uniform(*dims, low=-4.5, high=0.0)

    def decay(self, *dims: int) -> Tensor:
        """Negative."""
        return -self._uniform(*dims, low=0.25, high=4.0)

    def state(self, *dims: int) -> Tensor:
        """Deviation 0.5."""
        return self._normal(*dims, scale=0.5)

    def frequency(self, *dims: int) -> Tensor:
        """In 0..1."""
        return self._uniform(*dims, low=1 / 256, high=1.0)

    def index(self, *dims: int, limit: int) -> Tensor:
        """Whole numbers below the limit."""
        x = torch.randint(limit, dims, generator=self._generator)
        return x.to(torch.float64)


def problem(batch: int, seqlen: int, **axes: float | bool | str) -> Problem:
    """The fields of an operator's Problem, by name."""
    return {"batch": batch, "seqlen": seqlen, **axes}


CHECKED: collections.Counter[str] = collections.Counter()


def agrees_with_transformers(
    module: str,
    function: str,
    call: Callable[[Function], tuple[Tensor, ...]],
    expected: tuple[Tensor, ...],
) -> None:
    """Runs a slow path of Transformers, in double throughout."""
    try:
        path = importlib.import_module(f"transformers.models.{module}")
    except ImportError:
        return
    with mock.patch.object(Tensor, "float", Tensor.double):
        actual = call(getattr(path, function))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)
    CHECKED[function] += 1
