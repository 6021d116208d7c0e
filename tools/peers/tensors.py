# SPDX-License-Identifier: Apache-2.0
"""Tensors of a problem and what they are filled with."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import dataclasses
import math

import torch

from peers.names import Layer, RowName

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


@dataclasses.dataclass(frozen=True)
class Spec:
    """A tensor: its role is one of fixtures/tensor.h."""

    name: str
    role: str
    dims: tuple[int, ...]
    dtype: torch.dtype
    limit: int = 0  # of an index
    touched: int | None = None  # bytes, where a call needs but a part

    @property
    def bytes(self) -> int:
        """What a call reads or writes of the contiguous tensor."""
        whole = math.prod(self.dims) * self.dtype.itemsize
        return whole if self.touched is None else self.touched


@dataclasses.dataclass(frozen=True)
class Problem:
    """A row's problem, whichever library runs it."""

    name: RowName
    axes: Layer
    specs: list[Spec]
    flops: float

    @property
    def bytes_moved(self) -> int:
        """Each input read once, each output written once."""
        return sum(spec.bytes for spec in self.specs)

    def make_inputs(self, device: str, seed: int = 1) -> dict[str, torch.Tensor]:
        """Seeded inputs by tensor name; outputs are the library's to make."""
        generator = torch.Generator(device).manual_seed(seed)
        return {
            spec.name: _fill(spec, device, generator)
            for spec in self.specs
            if spec.role != "output"
        }


def _fill(spec: Spec, device: str, generator: torch.Generator) -> torch.Tensor:
    """fixtures/inputs.cc, from another generator."""

    def normal(scale: float) -> torch.Tensor:
        x = torch.empty(spec.dims, dtype=spec.dtype, device=device)
        return x.normal_(0.0, scale, generator=generator)

    def uniform(low: float, high: float) -> torch.Tensor:
        x = torch.empty(spec.dims, dtype=torch.float32, device=device)
        return x.uniform_(low, high, generator=generator)

    last = spec.dims[-1]
    match spec.role:
        case "activation":
            return normal(1.0)
        case "weight":
            return normal(last**-0.5)
        case "scale":
            return uniform(0.5, 1.5).to(spec.dtype)
        case "bias":
            return normal(0.1)
        case "step" | "state":
            return normal(0.5)
        case "step_bias":
            step = 0.001 * 100.0 ** uniform(0.0, 1.0)
            return step.expm1().log().to(spec.dtype)
        case "decay":
            steps = torch.arange(1, last + 1, device=device)
            return (-steps * uniform(0.9, 1.1)).to(spec.dtype)
        case "head_decay":
            return uniform(-16.0, -1.0).to(spec.dtype)
        case "frequency":
            places = torch.arange(last, device=device)
            return (5e5 ** (-(places + uniform(0.0, 1.0)) / last)).to(spec.dtype)
        case "index":
            x = torch.empty(spec.dims, dtype=spec.dtype, device=device)
            return x.random_(0, spec.limit, generator=generator)
    raise ValueError(f"{spec.name} has the role {spec.role}")
