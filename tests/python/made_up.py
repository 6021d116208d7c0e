# SPDX-License-Identifier: Apache-2.0
"""Small result documents to test the tools with."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Json = dict[str, Any]
NAME = "{op}/{provider}/{shape}/dtype:bf16/device:{device}/batch:1/seqlen:{seqlen}"
SUFFIX = "/iterations:1/manual_time"


def name(
    op: str = "rmsnorm",
    provider: str = "highway",
    shape: str = "qwen2.5-1.5b.add",
    device: str = "cpu",
    seqlen: int = 1024,
) -> str:
    return NAME.format(op=op, provider=provider, shape=shape, device=device, seqlen=seqlen) + SUFFIX


def entry(run_name: str, **fields: Any) -> Json:
    return {
        "name": run_name,
        "run_name": run_name,
        "run_type": "iteration",
        "repetitions": 1,
        "repetition_index": 0,
        "threads": 1,
        "iterations": 1,
        "real_time": 0.0,
        "cpu_time": 0.0,
        "time_unit": "ns",
        **fields,
    }


def measured(run_name: str, seconds: float = 1e-3, **fields: Any) -> Json:
    counters: Json = {
        "samples": 20.0,
        "noise": 0.004,
        "time_p10": seconds * 0.99,
        "time_p90": seconds * 1.02,
        "bytes_moved": 4e6,
        "bytes_per_second": 4e6 / seconds,
        "flops": 6e6,
        "flops_per_second": 6e6 / seconds,
        "sol": 0.4,
        "peak_memory": 5e6,
    }
    return entry(run_name, real_time=seconds * 1e9, **(counters | fields))


def document(*entries: Json) -> Json:
    return {
        "context": {
            "date": "2026-11-22T01:00:00+00:00",
            "host_name": "made-up",
            "executable": "build/seqmark_bench",
            "num_cpus": 2,
            "mhz_per_cpu": 2000,
            "cpu_scaling_enabled": False,
            "caches": [],
            "load_avg": [],
            "library_build_type": "release",
            "seqmark_schema": "1",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": "false",
            "command_line": "build/seqmark_bench --preset=smoke",
            "cpu_model": "Made Up & Sons <tm>",
        },
        "benchmarks": copy.deepcopy(list(entries)),
    }


def good() -> Json:
    """One of each kind of row."""
    median = name(op="gemm", provider="onednn", shape="qwen2.5-1.5b.mlp_up")
    return document(
        measured(name(), 2e-3)
        | {"tokens_per_second": 512e3, "energy": 1.0, "energy_per_token": 1 / 1024, "power": 500.0},
        measured(name(provider="native"), 1e-3),
        measured(name(seqlen=4096), 8e-3),
        measured(name(op="prefill", provider="auto", shape="mamba-130m"), 0.5)
        | {"memory_weights": 3e6, "memory_kv_state": 5e5, "memory_ssm_state": 15e5}
        | {"share_gemm": 0.75, "share_other": 0.25},
        measured(name(op="max_context", provider="auto").replace("seqlen:1024", "limit:8GiB"), 9.0)
        | {"max_seqlen": 9000.0},
        measured(median, 1e-3),
        measured(median, 2e-3, name=f"{median}_median", run_type="aggregate")
        | {"aggregate_name": "median", "aggregate_unit": "time"},
        entry(name(op="attention"), error_occurred=True, error_message="y[3] is 2 | want 1"),
        entry(name(op="ssd_scan"), skipped=True, skip_message="needs 9 GB, 2 GB are free"),
    )


def write(path: Path, content: Json | str) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


# Of the kernel of known length: what CUPTI says beyond its own time, and that.
EDGES, BY_ITSELF = 8e-7, 1.02e-5


def nvbench(seconds: dict[str, float], held: Sequence[float] = (), clock: float = 0) -> Json:
    """Rows' times, and before them a kernel of known length for each of what is `held`."""
    states = [
        ({"time/gpu/mean": BY_ITSELF + EDGES + x, "by_itself": BY_ITSELF}, f"known_kernel:{i}")
        for i, x in enumerate(held)
    ]
    for row, value in seconds.items():
        values = {"time/gpu/mean": value}
        states.append((values | ({"sm_clock_rate/mean": clock} if clock else {}), row))
    return {
        "benchmarks": [
            {
                "states": [
                    {
                        "axis_values": [{"name": "row", "value": row}],
                        "summaries": [
                            {
                                "tag": f"{'seqmark' if tag == 'by_itself' else 'nv/cold'}/{tag}",
                                "data": [
                                    {"name": "name", "value": "GPU Time"},
                                    {"name": "value", "value": str(value)},
                                ],
                            }
                            for tag, value in values.items()
                        ],
                    }
                    for values, row in states
                ]
            }
        ]
    }
