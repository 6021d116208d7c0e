# SPDX-License-Identifier: Apache-2.0
"""The entries of a result file; needs no library."""

from __future__ import annotations

from typing import Any

from peers.names import SUFFIX, RowName
from peers.sampling import Timing

Json = dict[str, Any]


def entry(name: RowName) -> Json:
    """A row without a time yet."""
    text = f"{name}{SUFFIX}"
    return {
        "name": text,
        "run_name": text,
        "run_type": "iteration",
        "repetitions": 1,
        "repetition_index": 0,
        "threads": 1,
        "iterations": 1,
        "real_time": 0.0,
        "cpu_time": 0.0,
        "time_unit": "ns",
    }


def skipped(message: str) -> Json:
    """What makes an entry a skipped row."""
    return {"skipped": True, "skip_message": message}


def failed(message: str) -> Json:
    """What makes an entry a failed row."""
    return {"error_occurred": True, "error_message": message}


def counters(timing: Timing, tokens: int) -> Json:
    """What every timed row has; a call handles so many `tokens`."""
    row: Json = {
        "real_time": timing.median * 1e9,
        "samples": len(timing.samples),
        "noise": timing.noise,
        "time_p10": timing.p10,
        "time_p90": timing.p90,
        "tokens_per_second": tokens / timing.median,
    }
    for name, value in (
        ("graph_time", timing.graph),
        ("host_time", timing.host),
        ("event_time", timing.event),
        ("peak_memory", timing.peak),
    ):
        if value is not None:
            row[name] = value
    if timing.remark:
        row["label"] = timing.remark
    return row


def work(timing: Timing, bytes_moved: int, flops: float) -> Json:
    """What an operator's row has besides."""
    return {
        "bytes_moved": bytes_moved,
        "bytes_per_second": bytes_moved / timing.median,
        "flops": flops,
        "flops_per_second": flops / timing.median,
    }


def tokens_of(name: RowName) -> int:
    """Tokens that a call of the row handles."""
    return name.batch * (1 if name.op == "decode" else name.seqlen)


def describe(row: Json) -> str:
    """One line for people."""
    name = row["name"].removesuffix(SUFFIX)
    if "skip_message" in row:
        return f"{name}  SKIPPED: {row['skip_message']}"
    if "error_message" in row:
        return f"{name}  ERROR: {row['error_message']}"
    parts = [name, f"{row['real_time'] * 1e-3:.1f} us +-{row['noise']:.1%}"]
    if "bytes_per_second" in row:
        parts.append(f"{row['bytes_per_second'] * 1e-9:.0f} GB/s")
        parts.append(f"{row['flops_per_second'] * 1e-12:.2f} TFLOP/s")
    parts += [
        f"{kind} {row[f'{kind}_time'] * 1e6:.1f} us"
        for kind in ("event", "graph")
        if f"{kind}_time" in row
    ]
    if "label" in row:
        parts.append(row["label"])
    return "  ".join(parts)
