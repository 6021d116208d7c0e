# SPDX-License-Identifier: Apache-2.0
"""Tensors of a problem; needs no library."""

from __future__ import annotations

import dataclasses
import math

from peers.names import Layer, RowName

BYTES = {"bf16": 2, "f16": 2, "f32": 4, "i32": 4}


@dataclasses.dataclass(frozen=True)
class Spec:
    """A TensorSpec of fixtures/tensor.h."""

    name: str
    role: str
    dims: tuple[int, ...]
    dtype: str
    limit: int = 0  # of an index
    touched: int | None = None  # bytes, where a call needs but a part

    @property
    def elements(self) -> int:
        """How many it has."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """What a call reads or writes of the contiguous tensor."""
        whole = self.elements * BYTES[self.dtype]
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
