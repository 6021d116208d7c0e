# SPDX-License-Identifier: Apache-2.0
"""What a row's name stands for: axes, tensors and arithmetic.

This mirrors the Problem, Visit and GetCost of each ops/<op>/<op>.h for the
layers in the sweeps, so that a peer is given the same problem and its row holds
the same bytes_moved and flops. A tensor's name and role decide its values
(inputs.py): tests/golden/peers/problems.json holds those of the C++ side. Needs no
library.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

from peers.names import Layer, RowName, Shapes
from peers.tensors import BYTES, Problem, Spec


class UnknownRowError(ValueError):
    """The name is well formed and stands for nothing that peers run."""


def _tokens(name: RowName, *dims: int) -> tuple[int, ...]:
    return (name.batch, name.seqlen, *dims)


def _rmsnorm(name: RowName, shapes: Shapes) -> Problem:
    model, role = name.model_and_role()
    layer = _layer(shapes, model)
    width = layer["d_inner"] if role == "gated" else layer["hidden"]
    if role not in ("", "add", "gated"):
        raise UnknownRowError(f"rmsnorm has no role {role}")
    groups = layer["groups"] if role == "gated" else 1
    dtype = name.dtype
    rows = _tokens(name, width)
    specs = [Spec("x", "activation", rows, dtype)]
    elements = float(math.prod(rows))
    flops = 4 * elements + 2 * groups * elements / width
    if role == "add":
        specs += [
            Spec("residual", "activation", rows, dtype),
            Spec("residual_out", "output", rows, dtype),
        ]
        flops += elements
    if role == "gated":
        specs.append(Spec("gate", "activation", rows, dtype))
        flops += 2 * elements
    specs += [Spec("weight", "scale", (width,), dtype), Spec("y", "output", rows, dtype)]
    return Problem(name, {"width": width, "groups": groups}, specs, flops)


def _layernorm(name: RowName, shapes: Shapes) -> Problem:
    width = _layer(shapes, name.shape)["hidden"]
    dtype = name.dtype
    rows = _tokens(name, width)
    specs = [
        Spec("x", "activation", rows, dtype),
        Spec("weight", "scale", (width,), dtype),
        Spec("bias", "bias", (width,), dtype),
        Spec("y", "output", rows, dtype),
    ]
    elements = float(math.prod(rows))
    return Problem(name, {"width": width}, specs, 7 * elements + 3 * elements / width)


def _gemm(name: RowName, shapes: Shapes) -> Problem:
    model, role = name.model_and_role()
    layer = _layer(shapes, model)
    if role == "lm_head":
        k, n = layer["hidden"], layer["vocab"]
    elif model in shapes.attention:
        heads = layer["heads"] * layer["head_dim"]
        kv_heads = layer["kv_heads"] * layer["head_dim"]
        k, n = {
            "qkv_proj": (layer["hidden"], heads + 2 * kv_heads),
            "o_proj": (heads, layer["hidden"]),
            "mlp_gate_up": (layer["hidden"], 2 * layer["intermediate"]),
            "mlp_down": (layer["intermediate"], layer["hidden"]),
        }[role]
    elif model in shapes.mamba:
        k, n = {
            "in_proj": (layer["hidden"], 2 * layer["d_inner"]),
            "x_proj": (layer["d_inner"], layer["dt_rank"] + 2 * layer["d_state"]),
            "dt_proj": (layer["dt_rank"], layer["d_inner"]),
            "out_proj": (layer["d_inner"], layer["hidden"]),
        }[role]
    else:
        k, n = {
            "in_proj": (
                layer["hidden"],
                layer["d_inner"] + layer["conv_channels"] + layer["heads"],
            ),
            "out_proj": (layer["d_inner"], layer["hidden"]),
        }[role]
    bias = role == "qkv_proj" and model.startswith("qwen")
    dtype = name.dtype
    specs = [
        Spec("x", "activation", _tokens(name, k), dtype),
        Spec("weight", "weight", (n, k), dtype),
        *([Spec("bias", "bias", (n,), dtype)] if bias else []),
        Spec("y", "output", _tokens(name, n), dtype),
    ]
    outputs = float(name.batch * name.seqlen * n)
    return Problem(
        name,
        {"in_features": k, "out_features": n},
        specs,
        2 * outputs * k + bias * outputs,
    )


def _attention(name: RowName, shapes: Shapes) -> Problem:
    model, role = name.model_and_role()
    layer = _layer(shapes, model)
    heads, kv_heads, head_dim = layer["heads"], layer["kv_heads"], layer["head_dim"]
    window = int(role.removeprefix("window") or 0)
    dtype = name.dtype
    queries = Spec("q", "activation", _tokens(name, heads, head_dim), dtype)
    keys = Spec("k", "activation", _tokens(name, kv_heads, head_dim), dtype)
    specs = [
        queries,
        keys,
        dataclasses.replace(keys, name="v"),
        dataclasses.replace(queries, name="o", role="output"),
    ]
    span = float(min(window or name.seqlen, name.seqlen))
    pairs = span * (span + 1) / 2 + (name.seqlen - span) * span
    flops = heads * name.batch * (pairs * (4 * head_dim + 3) + name.seqlen * head_dim)
    return Problem(name, {"window": window, "head_dim": head_dim}, specs, flops)


def _causal_conv1d(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    channels = layer.get("conv_channels", layer["d_inner"])
    width = layer["d_conv"]
    dtype = name.dtype
    rows = _tokens(name, channels)
    specs = [
        Spec("x", "activation", rows, dtype),
        Spec("weight", "weight", (channels, width), dtype),
        Spec("bias", "bias", (channels,), dtype),
        Spec("y", "output", rows, dtype),
        Spec("final_state", "output", (name.batch, width - 1, channels), dtype),
    ]
    flops = float(math.prod(rows)) * (2 * width + 1)
    return Problem(name, {"channels": channels, "width": width}, specs, flops)


def _selective_scan(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    d_inner, d_state = layer["d_inner"], layer["d_state"]
    dtype, f32 = name.dtype, "f32"
    channels = _tokens(name, d_inner)
    inputs = _tokens(name, d_state)
    specs = [
        Spec("x", "activation", channels, dtype),
        Spec("dt", "step", channels, dtype),
        Spec("A", "decay", (d_inner, d_state), f32),
        Spec("B", "activation", inputs, dtype),
        Spec("C", "activation", inputs, dtype),
        Spec("D", "scale", (d_inner,), f32),
        Spec("z", "activation", channels, dtype),
        Spec("dt_bias", "step_bias", (d_inner,), f32),
        Spec("y", "output", channels, dtype),
        Spec("final_state", "output", (name.batch, d_inner, d_state), f32),
    ]
    flops = float(math.prod(channels)) * (6 * d_state + 5)
    return Problem(name, layer, specs, flops)


def _ssd_scan(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    heads, head_dim = layer["heads"], layer["head_dim"]
    dtype, f32 = name.dtype, "f32"
    rows = _tokens(name, heads, head_dim)
    inputs = _tokens(name, layer["groups"], layer["d_state"])
    specs = [
        Spec("x", "activation", rows, dtype),
        Spec("dt", "step", _tokens(name, heads), dtype),
        Spec("A", "head_decay", (heads,), f32),
        Spec("B", "activation", inputs, dtype),
        Spec("C", "activation", inputs, dtype),
        Spec("D", "scale", (heads,), f32),
        Spec("dt_bias", "step_bias", (heads,), f32),
        Spec("y", "output", rows, dtype),
        Spec(
            "final_state",
            "output",
            (name.batch, heads, head_dim, layer["d_state"]),
            f32,
        ),
    ]
    steps = float(name.batch * name.seqlen * heads)
    flops = steps * head_dim * (5 * layer["d_state"] + 3) + 2 * steps
    return Problem(name, layer, specs, flops)


def _mamba2_inner(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    heads, head_dim, groups = layer["heads"], layer["head_dim"], layer["groups"]
    d_inner, channels, width = layer["d_inner"], layer["conv_channels"], layer["d_conv"]
    norm = groups == 1
    dtype, f32 = name.dtype, "f32"
    rows = _tokens(name, d_inner)
    specs = [
        Spec("xbc", "activation", _tokens(name, channels), dtype),
        Spec("conv_weight", "weight", (channels, width), dtype),
        Spec("conv_bias", "bias", (channels,), dtype),
        Spec("dt", "step", _tokens(name, heads), dtype),
        Spec("A", "head_decay", (heads,), f32),
        Spec("D", "scale", (heads,), f32),
        Spec("dt_bias", "step_bias", (heads,), f32),
        Spec("z", "activation", rows, dtype),
        *([Spec("norm_weight", "scale", (d_inner,), dtype)] if norm else []),
        Spec("y", "output", rows, dtype),
        *([Spec("squares", "output", _tokens(name, d_inner // 64), f32)] if norm else []),
        Spec("conv_state_out", "output", (name.batch, width - 1, channels), dtype),
        Spec(
            "state_out",
            "output",
            (name.batch, heads, head_dim, layer["d_state"]),
            f32,
        ),
    ]
    tokens = float(name.batch * name.seqlen)
    convolution = tokens * channels * (2 * width + 1)
    scan = tokens * d_inner * (5 * layer["d_state"] + 3) + 2 * tokens * heads
    gate = tokens * d_inner * (5 if norm else 2)
    return Problem(name, layer, specs, convolution + scan + gate)


def _rope(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    heads, kv_heads, head_dim = layer["heads"], layer["kv_heads"], layer["head_dim"]
    dtype = name.dtype
    queries = Spec("q", "activation", _tokens(name, heads, head_dim), dtype)
    keys = Spec("k", "activation", _tokens(name, kv_heads, head_dim), dtype)
    inputs = [queries, keys, dataclasses.replace(keys, name="v")]
    specs = [
        *inputs,
        Spec("inverse_frequency", "frequency", (head_dim // 2,), "f32"),
        *(dataclasses.replace(s, name=f"{s.name}_out", role="output") for s in inputs),
    ]
    angles = float(name.seqlen * head_dim // 2)
    position = 4096 if name.seqlen == 1 else 0
    axes = {"head_dim": head_dim, "position": position}
    return Problem(name, axes, specs, angles * (3 + 6 * name.batch * (heads + kv_heads)))


def _embedding(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    vocab, width = layer["vocab"], layer["hidden"]
    dtype = name.dtype
    tokens = name.batch * name.seqlen
    distinct = -vocab * math.expm1(tokens * math.log1p(-1 / vocab))  # of uniform ones
    specs = [
        Spec("tokens", "index", _tokens(name), "i32", limit=vocab),
        Spec(
            "table",
            "activation",
            (vocab, width),
            dtype,
            touched=round(distinct) * width * BYTES[dtype],
        ),
        Spec("y", "output", _tokens(name, width), dtype),
    ]
    return Problem(name, {"vocab": vocab, "width": width}, specs, float(tokens * width))


def _activation(name: RowName, shapes: Shapes) -> Problem:
    # The layers of the 8B hybrid that are not Mamba-2's have no table.
    is_hybrid = name.shape == "mamba2-hybrid-8b.mlp"
    width = 16384 if is_hybrid else _layer(shapes, name.shape)["intermediate"]
    dtype = name.dtype
    specs = [
        Spec("x", "activation", _tokens(name, width if is_hybrid else 2 * width), dtype),
        Spec("y", "output", _tokens(name, width), dtype),
    ]
    elements = float(name.batch * name.seqlen * width)
    axes = {"width": width, "gated": int(not is_hybrid)}  # silu; or relu squared
    return Problem(name, axes, specs, elements * (1 if is_hybrid else 2))


def _copy(name: RowName, _: Shapes) -> Problem:
    width = name.shape.removeprefix("custom.width")
    if not width.isdecimal():
        raise UnknownRowError(f"a copy's shape is custom.width<n>, not {name.shape}")
    dtype = name.dtype
    x = Spec("x", "activation", _tokens(name, int(width)), dtype)
    return Problem(name, {}, [x, dataclasses.replace(x, name="y", role="output")], 0.0)


def _attention_decode(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    heads, kv_heads, head_dim = layer["heads"], layer["kv_heads"], layer["head_dim"]
    dtype = name.dtype
    query = Spec("q", "activation", (name.batch, heads, head_dim), dtype)
    keys = Spec("k", "activation", _tokens(name, kv_heads, head_dim), dtype)
    specs = [
        query,
        keys,
        dataclasses.replace(keys, name="v"),
        dataclasses.replace(query, name="o", role="output"),
    ]
    rows = float(name.batch * heads)
    flops = rows * (name.seqlen * (4 * head_dim + 3) + head_dim)
    return Problem(name, {"head_dim": head_dim}, specs, flops)


def _selective_scan_step(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    d_inner, d_state = layer["d_inner"], layer["d_state"]
    dtype, f32 = name.dtype, "f32"
    channels, inputs = (name.batch, d_inner), (name.batch, d_state)
    state = Spec("state", "state", (name.batch, d_inner, d_state), f32)
    specs = [
        Spec("x", "activation", channels, dtype),
        Spec("dt", "step", channels, dtype),
        Spec("A", "decay", (d_inner, d_state), f32),
        Spec("B", "activation", inputs, dtype),
        Spec("C", "activation", inputs, dtype),
        Spec("D", "scale", (d_inner,), f32),
        Spec("z", "activation", channels, dtype),
        Spec("dt_bias", "step_bias", (d_inner,), f32),
        state,
        Spec("y", "output", channels, dtype),
        dataclasses.replace(state, name="state_out", role="output"),
    ]
    return Problem(name, layer, specs, float(math.prod(channels)) * (6 * d_state + 5))


def _ssd_step(name: RowName, shapes: Shapes) -> Problem:
    layer = _layer(shapes, name.shape)
    heads, head_dim, d_state = layer["heads"], layer["head_dim"], layer["d_state"]
    dtype, f32 = name.dtype, "f32"
    channels = (name.batch, heads, head_dim)
    inputs = (name.batch, layer["groups"], d_state)
    state = Spec("state", "state", (*channels, d_state), f32)
    specs = [
        Spec("x", "activation", channels, dtype),
        Spec("dt", "step", (name.batch, heads), dtype),
        Spec("A", "head_decay", (heads,), f32),
        Spec("B", "activation", inputs, dtype),
        Spec("C", "activation", inputs, dtype),
        Spec("D", "scale", (heads,), f32),
        Spec("dt_bias", "step_bias", (heads,), f32),
        state,
        Spec("y", "output", channels, dtype),
        dataclasses.replace(state, name="state_out", role="output"),
    ]
    steps = float(name.batch * heads)
    return Problem(name, layer, specs, steps * head_dim * (5 * d_state + 3) + 2 * steps)


def _layer(shapes: Shapes, model: str) -> Layer:
    for table in (shapes.attention, shapes.mamba, shapes.mamba2):
        if model in table:
            return table[model]
    raise UnknownRowError(f"ops/shapes.h has no model {model}")


MAKERS: dict[str, Callable[[RowName, Shapes], Problem]] = {
    "rmsnorm": _rmsnorm,
    "layernorm": _layernorm,
    "gemm": _gemm,
    "attention": _attention,
    "causal_conv1d": _causal_conv1d,
    "selective_scan": _selective_scan,
    "ssd_scan": _ssd_scan,
    "mamba2_inner": _mamba2_inner,
    "rope": _rope,
    "embedding": _embedding,
    "activation": _activation,
    "copy": _copy,
    "attention_decode": _attention_decode,
    "selective_scan_step": _selective_scan_step,
    "ssd_step": _ssd_step,
}


def make_problem(name: RowName, shapes: Shapes) -> Problem:
    """UnknownRowError where no operator here has such a row."""
    if name.op not in MAKERS:
        raise UnknownRowError(f"no peer runs the operator {name.op}")
    try:
        return MAKERS[name.op](name, shapes)
    except KeyError as error:
        raise UnknownRowError(f"{name}: no {error} in its table") from error


def _copies() -> list[tuple[int, int]]:
    """Powers of two of tokens, from 2,048 on with four more to the octave."""
    octaves = [64 << octave for octave in range(14)]
    first, last = 2048, octaves[-1]
    lengths = [
        seqlen * eighths // 8
        for seqlen in octaves
        if first <= seqlen < last
        for eighths in (9, 10, 12, 14)
    ]
    return [(1, seqlen) for seqlen in octaves + lengths]


def sweep(shapes: Shapes, dtype: str, device: str) -> Iterator[RowName]:
    """The operators' Sweep()s, by name; the provider is left as "*"."""
    decode = [(1, 1), (16, 1)]
    logits = [(1, 1), (8, 1), (1, 4096)]
    long = shapes.extents

    def rows(op: str, shape: str, extents: list[tuple[int, int]]) -> Iterator[RowName]:
        for batch, seqlen in extents:
            yield RowName(op, "*", shape, dtype, device, batch, seqlen)

    for model in itertools.chain(shapes.attention, shapes.mamba, shapes.mamba2):
        yield from rows("rmsnorm", model, long)
        yield from rows("rmsnorm", f"{model}.add", long)
        yield from rows("layernorm", model, long)
    for model in shapes.mamba2:
        yield from rows("rmsnorm", f"{model}.gated", long)
    for table, roles in (
        (shapes.attention, ("qkv_proj", "o_proj", "mlp_gate_up", "mlp_down")),
        (shapes.mamba, ("in_proj", "x_proj", "dt_proj", "out_proj")),
        (shapes.mamba2, ("in_proj", "out_proj")),
    ):
        for model in table:
            for role in roles:
                yield from rows("gemm", f"{model}.{role}", decode + long)
            yield from rows("gemm", f"{model}.lm_head", logits)
    for model in shapes.attention:
        yield from rows("attention", model, long)
    yield from rows("attention", "qwen2.5-1.5b", [(8, 4096)])
    yield from rows("attention", "qwen2.5-1.5b.window1024", long)
    for model in itertools.chain(shapes.mamba, shapes.mamba2):
        yield from rows("causal_conv1d", model, [*long, (8, 4096)])
    for model in shapes.mamba:
        yield from rows("selective_scan", model, [*long, (8, 4096), (64, 2048)])
    for model in shapes.mamba2:
        yield from rows("ssd_scan", model, [*long, (8, 4096), (32, 2048)])
        yield from rows("mamba2_inner", model, [*long, (8, 4096), (32, 2048)])
    for model in itertools.chain(shapes.attention, shapes.mamba, shapes.mamba2):
        yield from rows("embedding", model, decode + long)
    for model in shapes.attention:
        yield from rows("rope", model, decode + long)
        yield from rows("activation", model, decode + long)
        contexts = [(batch, seqlen) for batch in (1, 8) for _, seqlen in long]
        yield from rows("attention_decode", model, contexts)
    yield from rows("activation", "mamba2-hybrid-8b.mlp", decode + long)
    yield from rows("copy", "custom.width4096", _copies())
    steps = [(batch, 1024) for batch in (1, 8, 32)]
    for model in shapes.mamba:
        yield from rows("selective_scan_step", model, steps)
    for model in shapes.mamba2:
        yield from rows("ssd_step", model, steps)
