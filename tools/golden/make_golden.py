# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/<op>.json: what PyTorch says each operator computes.

    python3 tools/golden/make_golden.py --out tests/golden

Tiny seeded inputs, in double, on the CPU. tests/golden_test.cc runs every
operator's reference.cc on the same inputs, so that a misread definition cannot
hide behind a reference that all providers agree with. Where PyTorch has no such
operator (the scans), golden_scans.py writes the recurrence as its paper has it.
Outputs have 12 digits.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections.abc import Callable, Iterator

import torch
from golden_cases import CHECKED, Case
from golden_layers import (
    activation,
    attention,
    attention_decode,
    causal_conv1d,
    embedding,
    gemm,
    layernorm,
    rmsnorm,
    rope,
)
from golden_scans import selective_scan, selective_scan_step, ssd_scan, ssd_step
from torch import Tensor

OPERATORS: dict[str, Callable[[], Iterator[Case]]] = {
    f.__name__: f
    for f in (
        rmsnorm,
        layernorm,
        gemm,
        attention,
        attention_decode,
        causal_conv1d,
        selective_scan,
        ssd_scan,
        selective_scan_step,
        ssd_step,
        rope,
        embedding,
        activation,
    )
}


def as_json(tensor: Tensor) -> dict[str, list[int] | list[float]]:
    """Flat values with their dims."""
    values = [float(f"{v:.12g}") for v in tensor.flatten().tolist()]
    assert all(math.isfinite(v) for v in values)
    return {"dims": list(tensor.shape), "values": values}


def main() -> None:
    """Writes every operator's file."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden"))
    out: pathlib.Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, make in OPERATORS.items():
        cases = [
            json.dumps(
                {"problem": axes, "tensors": {k: as_json(v) for k, v in tensors.items()}},
                separators=(",", ":"),
            )
            for axes, tensors in make()
        ]
        path = out / f"{name}.json"
        path.write_text(
            f'{{"operator":"{name}","made_with":"torch {torch.__version__}","cases":[\n'
            + ",\n".join(cases)
            + "\n]}\n"
        )
        print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")
    print("agreed with Transformers:", dict(CHECKED) or "not installed")


if __name__ == "__main__":
    main()
