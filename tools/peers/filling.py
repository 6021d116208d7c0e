# SPDX-License-Identifier: Apache-2.0
"""A problem's inputs as PyTorch's tensors."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import numpy as np
import torch

from peers import inputs
from peers.tensors import Problem, Spec

DTYPES = {
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
    "i32": torch.int32,
}


def make_inputs(problem: Problem, device: str) -> dict[str, torch.Tensor]:
    """The inputs that seqmark_bench gives the row, by tensor name, and in its layout.

    Outputs are the library's to make.
    """
    return {spec.name: fill(spec, device) for spec in problem.specs if spec.role != "output"}


def fill(spec: Spec, device: str) -> torch.Tensor:
    """Fill() of fixtures/inputs.cc: one block is computed, the rest are copies of it."""
    elements = inputs.block(spec)
    if elements.dtype == np.uint16:  # bf16's bits; older versions have no uint16
        elements = elements.view(np.int16)
    block = torch.from_numpy(elements.copy()).to(device).view(DTYPES[spec.dtype])
    if spec.elements > len(block):
        tensor = torch.empty(spec.elements, dtype=block.dtype, device=device)
        whole = spec.elements - spec.elements % len(block)
        tensor[:whole].view(-1, len(block))[:] = block
        tensor[whole:] = block[: spec.elements - whole]
        block = tensor
    return block.view(spec.dims)
