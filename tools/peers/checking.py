# SPDX-License-Identifier: Apache-2.0
"""Peers' outputs against the suite's: whether both compute the same of the same."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import torch

from peers.filling import make_inputs
from peers.names import RowName
from peers.providers import EPSILON, Peer
from peers.tensors import Problem

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "peers"

# Of |error| / (|ours| + rms). The libraries round to bf16 (2^-9) between their
# operations, at places of their own; another input, or one in another order, makes
# an error near 1.
MOST = 2.0**-5


@functools.cache
def _golden() -> dict[str, Any]:
    """What the references compute, in double, of the rows' inputs: by name."""
    rows = json.loads((GOLDEN / "problems.json").read_text())["rows"]
    return {row["row"]: row["output"] for row in rows if "output" in row}


def golden_rows(device: str) -> list[RowName]:
    """The rows that can be checked."""
    names = (RowName.parse(name) for name in _golden())
    return [RowName(n.op, "*", n.shape, n.dtype, device, n.batch, n.seqlen) for n in names]


def error(problem: Problem, peer: Peer, device: str) -> float:
    """The largest error of the first output, at places of it; raises as the library does."""
    name = problem.name
    golden = _golden()[
        str(RowName(name.op, "*", name.shape, name.dtype, "cuda", name.batch, name.seqlen))
    ]
    (output,) = (spec for spec in problem.specs if spec.name == golden["tensor"])
    with torch.inference_mode():
        y = _in_our_layout(name.op, peer.build(problem, make_inputs(problem, device))())
    if tuple(y.shape) != output.dims:
        raise ValueError(f"the output has the shape {tuple(y.shape)}, not {output.dims}")
    ours, rms = _whole(golden, output.dims[-1])
    theirs = y.reshape(-1)[torch.tensor(golden["places"], device=device)].cpu().double()
    return float(((theirs - ours).abs() / (ours.abs() + rms)).max())


def _whole(golden: dict[str, Any], width: int) -> tuple[torch.Tensor, float]:
    """Our values and their rms, with a norm's factor of a token where our output has none."""
    ours = torch.tensor(golden["values"], dtype=torch.float64)
    if "squares" not in golden:
        return ours, golden["rms"]
    squares = torch.tensor(golden["squares"], dtype=torch.float64)
    ours = ours / (squares / width + EPSILON).sqrt()
    return ours, float(ours.square().mean().sqrt())


def _in_our_layout(op: str, result: object) -> torch.Tensor:
    y = result[0] if isinstance(result, tuple) else result
    assert isinstance(y, torch.Tensor)
    match op:
        case "attention" | "rope":  # heads before tokens
            return y.transpose(1, 2)
        case "attention_decode":
            return y.squeeze(2)
        case "causal_conv1d" | "selective_scan":  # channels before tokens
            return y.mT
    return y
