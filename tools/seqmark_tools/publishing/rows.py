# SPDX-License-Identifier: Apache-2.0
"""Tables of SSM-Scope's artifact as rows of ours: seconds, bytes, joules."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from seqmark_tools.results import RowName

Json = dict[str, Any]
Line = dict[str, str]
Lines = list[Line]

PROVIDER = "ssm-scope"
MIB = 1 << 20
# What the artifact calls our models.
_MODELS = {
    "qwen25-instruct": "qwen2.5-0.5b",
    "qwen25-1.5b-instruct": "qwen2.5-1.5b",
    "qwen25-instruct-int4": "qwen2.5-0.5b-gptq-int4",
    "llama3_2": "llama-3.2-1b",
    "tinyllama": "tinyllama-1.1b",
    "phi3": "phi-3-mini",
    "zamba2": "zamba2-1.2b",
    "hymba": "hymba-1.5b",
    "gen_qwen25-instruct": "qwen2.5-0.5b",
    "gen_falcon-h1": "falcon-h1-0.5b",
    "gen_mamba2": "mamba2-780m",
}
_F16 = ("mamba-", "mamba2-", "gpt-neo-", "qwen2.5-0.5b-gptq-int4")


def entry(op: str, model: str, seqlen: int, seconds: float | None, **counters: float) -> Json:
    """A row; without a time its real_time is 0, which means nothing."""
    shape = _MODELS.get(model, model)
    name = RowName(
        op=op,
        shape=shape,
        dtype="f16" if shape.startswith(_F16) else "bf16",
        device="cuda",
        batch=1,
        seqlen=seqlen,
        provider=PROVIDER,
    )
    return {
        "name": str(name),
        "run_name": str(name),
        "run_type": "iteration",
        "real_time": seconds or 0.0,
        "cpu_time": 0.0,
        "time_unit": "s",
        **counters,
    }


def of_fig1(lines: Lines, _: str) -> list[Json]:
    return [
        entry(
            {"ttft": "prefill", "tpot": "decode"}[line["metric"]],
            column.removesuffix("_ms"),
            int(line["seqlen"]),
            round(float(line[column]) * 1e-3, 9),
            samples=1,
        )
        for line in lines
        for column in line
        if column.endswith("_ms")
    ]


def of_fig3(lines: Lines, _: str) -> list[Json]:
    tasks = ("mmlu", "hellaswag", "winogrande", "arc_challenge", "truthfulqa")
    return [
        entry(
            "prefill",
            line["model"],
            int(line["seqlen"]),
            float(line["ttft_s"]),
            samples=10,
            **{f"accuracy_{task}": round(float(line[task]) / 100, 6) for task in tasks},
        )
        for line in lines
    ]


def of_memory(lines: Lines, _: str) -> list[Json]:
    """Parts are whole bytes and sum to the peak; what they call activations is the rest."""
    result = []
    for line in lines:
        total, weights, state = (
            round(float(line[column]) * MIB)
            for column in ("total_memory_mb", "model_size_mb", "kv_cache_mb")
        )
        parts: dict[str, float] = {"memory_weights": weights}
        if state > 0:
            parts["memory_state"] = state
        parts["memory_activations"] = total - sum(parts.values())
        reserved = round(float(line["reserved_memory_mb"]) * MIB)
        result.append(
            entry(
                "prefill",
                line["model_name"],
                int(line["seq_len"]),
                None,
                samples=1,
                peak_memory=total,
                **parts,
                reserved_memory=reserved,
            )
        )
    return result


def of_energy(lines: Lines, _: str) -> list[Json]:
    return [
        entry(
            "prefill",
            column.removesuffix("_joules"),
            int(line["seqlen"]),
            None,
            samples=50,
            energy=float(line[column]),
            energy_per_token=float(line[column]) / int(line["seqlen"]),
        )
        for line in lines
        for column in line
        if column.endswith("_joules")
    ]


def of_generation(lines: Lines, _: str) -> list[Json]:
    result = []
    for line in lines:
        model, seqlen = line["model_name"].partition("_cuda_")[0], int(line["input_seq_length"])
        tokens, total = int(line["output_tokens"]), float(line["total_time_seconds"])
        result.append(
            entry("prefill", model, seqlen, float(line["prefill_time_seconds"]), samples=1)
        )
        result.append(
            entry(
                "decode",
                model,
                seqlen,
                float(line["tpot_seconds"]),
                samples=1,
                tokens_per_second=float(line["throughput_tokens_per_sec"]),
                output_tokens=tokens,
                total_time=total,
                overall_tokens_per_second=(seqlen + tokens) / total,
            )
        )
    return result


def of_breakdown(lines: Lines, machine: str) -> list[Json]:
    """Rows of one machine, out of the table of classes and that of operators."""
    forwards: dict[tuple[str, int], Lines] = defaultdict(list)
    for line in lines:
        if line["device"] == machine:
            forwards[line["model"], int(line["seqlen"])].append(line)
    return [_breakdown(*key, lines) for key, lines in forwards.items()]


_RUNS = 10
_MICRO = 1e-6
# The artifact's classes, with its spelling; those that are always 0 are left out.
_CLASSES = {
    "GEMM": "gemm",
    "SSM_Scan": "ssm_scan",
    "nomralization": "norm",
    "arithmetic": "arithmetic",
    "memory": "memory",
    "activation": "activation",
    "logit_computation": "softmax",
    "embedding": "embedding",
    "other": "other",
}


_GEMMS = ("aten::linear", "aten::matmul")
_SCANS = (
    "mambachunkscancombinedfn",
    "mambainnerfn",
    "mambasplitconv1dscancombinedfn",
    "selectivescanfn",
)


def _breakdown(model: str, seqlen: int, lines: Lines) -> Json:
    """A forward: shares of our classes of the device's time, and shares as published."""
    # The table of operators repeats the classes' sums.
    host = {line.get("op_class") or line["op"]: float(line["cpu_us_sum10"]) for line in lines}
    gpu = {line.get("op_class") or line["op"]: float(line["gpu_us_sum10"]) for line in lines}
    both = {key: host[key] + gpu[key] for key in _CLASSES}

    def time(*operators: str) -> float:
        return sum(gpu.get(operator, 0.0) for operator in operators)

    flex_attention = [key for key in gpu if key.startswith("torch-compiled region")]
    shares = {
        "gemm": time(*_GEMMS),
        "attention": time(
            "aten::scaled_dot_product_attention", *flex_attention, "logit_computation"
        ),
        "ssm_scan": time(*_SCANS),
        "conv": time("causalconv1dfn"),
        "norm": gpu["nomralization"],
        "elementwise": time("activation", "arithmetic", "memory"),
        "embedding": gpu["embedding"],
    }
    whole = gpu["inference_prof"]
    shares["other"] = max(whole - sum(shares.values()), 0.0)
    return entry(
        "prefill",
        model,
        seqlen,
        whole / _RUNS * _MICRO,
        samples=_RUNS,
        host_time=host["inference_prof"] / _RUNS * _MICRO,
        **{f"share_{name}": part / whole for name, part in shares.items()},
        **{
            f"published_share_{name}": both[key] / sum(both.values())
            for key, name in _CLASSES.items()
        },
    )
