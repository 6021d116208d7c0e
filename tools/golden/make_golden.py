# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/<op>.json: what PyTorch says each operator computes.

    python3 tools/golden/make_golden.py --out tests/golden

Tiny seeded inputs, in double, on the CPU. tests/golden_test.cc runs every
operator's reference.cc on the same inputs, so that a misread definition cannot
hide behind a reference that all providers agree with. Where PyTorch has no such
operator (the scans), the recurrence is written here as its paper has it and is
itself compared with the slow path of Transformers, if that can be imported.

Inputs are multiples of 1/256: exact in every type and short in the file.
Outputs have 12 digits.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import argparse
import collections
import importlib
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812
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


def rmsnorm() -> Iterator[Case]:
    """Zhang and Sennrich 2019; gates and groups as in Mamba-2's RMSNormGated."""
    inputs = Inputs(1)
    gates = ["none", "before", "after"]
    plain = itertools.product([(1, 1, 1, 1), (2, 3, 7, 1), (1, 1, 33, 1)], [False, True], gates)
    grouped = itertools.product([(2, 3, 12, 3), (1, 2, 4, 4)], [False, True], gates)
    for (batch, seqlen, width, groups), residual, gate in itertools.chain(plain, grouped):
        dims = (batch, seqlen, width)
        t = {"x": inputs.activation(*dims), "weight": inputs.scale(width)}
        u = t["x"]
        if residual:
            t["residual"] = inputs.activation(*dims)
            u = t["residual_out"] = u + t["residual"]
        if gate != "none":
            t["gate"] = inputs.activation(*dims)
        if gate == "before":
            u = u * F.silu(t["gate"])
        parts = u.unflatten(-1, (groups, -1))
        t["y"] = F.rms_norm(parts, parts.shape[-1:], eps=EPSILON).flatten(-2) * t["weight"]
        if gate == "after":
            t["y"] = t["y"] * F.silu(t["gate"])
        yield (
            problem(
                batch,
                seqlen,
                width=width,
                groups=groups,
                residual=residual,
                gate=gate,
                epsilon=EPSILON,
            ),
            t,
        )


def layernorm() -> Iterator[Case]:
    """Ba, Kiros and Hinton 2016."""
    inputs = Inputs(2)
    for residual, (batch, seqlen, width) in itertools.product(
        [False, True], [(1, 1, 1), (2, 3, 7), (1, 2, 33)]
    ):
        t = {
            "x": inputs.activation(batch, seqlen, width),
            "weight": inputs.scale(width),
            "bias": inputs.bias(width),
        }
        u = t["x"]
        if residual:
            t["residual"] = inputs.activation(batch, seqlen, width)
            u = t["residual_out"] = u + t["residual"]
        t["y"] = F.layer_norm(u, (width,), t["weight"], t["bias"], EPSILON)
        yield problem(batch, seqlen, width=width, residual=residual, epsilon=EPSILON), t


def gemm() -> Iterator[Case]:
    """F.linear."""
    inputs = Inputs(3)
    for (batch, seqlen, k, n), bias in itertools.product(
        [(1, 1, 1, 1), (2, 3, 7, 5), (1, 4, 33, 3)], [False, True]
    ):
        t = {"x": inputs.activation(batch, seqlen, k), "weight": inputs.weight(n, k)}
        if bias:
            t["bias"] = inputs.bias(n)
        t["y"] = F.linear(t["x"], t["weight"], t.get("bias"))
        yield problem(batch, seqlen, in_features=k, out_features=n, bias=bias), t


def attention() -> Iterator[Case]:
    """F.scaled_dot_product_attention, causal; a window or a past as a mask."""
    inputs = Inputs(4)
    for batch, seqlen, heads, kv_heads, head_dim, window, past in [
        (1, 1, 1, 1, 1, 0, 0),
        (2, 5, 4, 2, 3, 0, 0),
        (1, 9, 3, 1, 8, 0, 0),
        (1, 7, 6, 3, 2, 1, 0),
        (1, 9, 2, 2, 5, 3, 0),
        (1, 6, 2, 1, 4, 100, 0),
        (2, 3, 4, 2, 3, 0, 1),
        (1, 1, 2, 1, 4, 0, 5),
        (1, 4, 2, 2, 3, 3, 7),
        (1, 5, 2, 1, 4, 100, 2),
    ]:
        keys = past + seqlen
        t = {
            "q": inputs.activation(batch, seqlen, heads, head_dim),
            "k": inputs.activation(batch, keys, kv_heads, head_dim),
            "v": inputs.activation(batch, keys, kv_heads, head_dim),
        }
        behind = past + torch.arange(seqlen)[:, None] - torch.arange(keys)
        seen = (behind >= 0) & (behind < (window or keys))
        masked = bool(window or past)
        q, k, v = (x.transpose(1, 2) for x in t.values())
        t["o"] = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=seen if masked else None,
            is_causal=not masked,
            enable_gqa=True,
        ).transpose(1, 2)
        yield (
            problem(
                batch,
                seqlen,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                window=window,
                past=past,
            ),
            t,
        )


def attention_decode() -> Iterator[Case]:
    """F.scaled_dot_product_attention of one query; a window cuts the keys."""
    inputs = Inputs(8)
    for batch, seqlen, heads, kv_heads, head_dim, window in [
        (1, 1, 1, 1, 1, 0),
        (2, 5, 4, 2, 3, 0),
        (1, 9, 7, 1, 8, 0),
        (1, 7, 6, 3, 2, 1),
        (1, 9, 2, 2, 5, 3),
        (2, 6, 2, 1, 4, 100),
    ]:
        t = {
            "q": inputs.activation(batch, heads, head_dim),
            "k": inputs.activation(batch, seqlen, kv_heads, head_dim),
            "v": inputs.activation(batch, seqlen, kv_heads, head_dim),
        }
        first = max(0, seqlen - window) if window else 0
        k, v = (t[x][:, first:].transpose(1, 2) for x in "kv")
        o = F.scaled_dot_product_attention(t["q"].unsqueeze(2), k, v, enable_gqa=True)
        t["o"] = o.squeeze(2)
        yield (
            problem(
                batch, seqlen, heads=heads, kv_heads=kv_heads, head_dim=head_dim, window=window
            ),
            t,
        )


def causal_conv1d() -> Iterator[Case]:
    """F.conv1d per channel, padded on the left with the state or with zeros."""
    inputs = Inputs(5)
    for (batch, seqlen, channels), width, (bias, silu, initial) in itertools.product(
        [(1, 1, 1), (2, 5, 3), (1, 2, 4)],
        [2, 3, 4],
        [(True, True, False), (False, False, False), (True, True, True), (False, True, True)],
    ):
        t = {
            "x": inputs.activation(batch, seqlen, channels),
            "weight": inputs.weight(channels, width),
        }
        if bias:
            t["bias"] = inputs.bias(channels)
        before = torch.zeros(batch, width - 1, channels, dtype=torch.float64)
        if initial:
            before = t["initial_state"] = inputs.activation(*before.shape)
        padded = torch.cat([before, t["x"]], dim=1)
        y = F.conv1d(
            padded.transpose(1, 2), t["weight"].unsqueeze(1), t.get("bias"), groups=channels
        ).transpose(1, 2)
        t["y"] = F.silu(y) if silu else y
        t["final_state"] = padded[:, -(width - 1) :]
        yield (
            problem(
                batch,
                seqlen,
                channels=channels,
                width=width,
                bias=bias,
                silu=silu,
                initial_state=initial,
                final_state=True,
            ),
            t,
        )


def selective_scan_recurrence(
    t: dict[str, Tensor], initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The outputs and the last state of the tensors of a selective scan."""
    batch, seqlen, d_inner = t["x"].shape
    step = F.softplus(t["dt"] + t.get("dt_bias", 0.0))  # (b, l, d)
    state = initial_state
    if state is None:
        state = torch.zeros(batch, d_inner, t["A"].shape[1], dtype=torch.float64)
    y = torch.empty_like(t["x"])
    for i in range(seqlen):
        decay = torch.exp(step[:, i, :, None] * t["A"])
        added = torch.einsum("bd,bn,bd->bdn", step[:, i], t["B"][:, i], t["x"][:, i])
        state = decay * state + added
        y[:, i] = torch.einsum("bdn,bn->bd", state, t["C"][:, i])
    if "D" in t:
        y = y + t["D"] * t["x"]
    if "z" in t:
        y = y * F.silu(t["z"])
    return y, state


def selective_scan() -> Iterator[Case]:
    """Gu and Dao 2023, algorithm 2, discretised as in their code."""
    inputs = Inputs(6)
    every = {"has_d": True, "has_dt_bias": True, "has_z": True, "has_initial_state": True}
    none = dict.fromkeys(every, False)
    for (batch, seqlen, d_inner, d_state), options in [
        ((1, 1, 1, 1), every),
        ((1, 9, 5, 3), {**every, "has_initial_state": False}),
        ((2, 5, 3, 4), every),
        ((1, 6, 3, 5), none),
        ((1, 5, 2, 2), {**none, "has_z": True}),
        ((1, 5, 2, 3), {**none, "has_d": True, "has_dt_bias": True}),
        ((1, 4, 3, 2), {**none, "has_initial_state": True}),
    ]:
        t = {
            "x": inputs.activation(batch, seqlen, d_inner),
            "dt": inputs.step(batch, seqlen, d_inner),
            "A": inputs.decay(d_inner, d_state),
            "B": inputs.activation(batch, seqlen, d_state),
            "C": inputs.activation(batch, seqlen, d_state),
        }
        if options["has_d"]:
            t["D"] = inputs.scale(d_inner)
        if options["has_z"]:
            t["z"] = inputs.activation(batch, seqlen, d_inner)
        if options["has_dt_bias"]:
            t["dt_bias"] = inputs.step_bias(d_inner)
        if options["has_initial_state"]:
            t["initial_state"] = inputs.state(batch, d_inner, d_state)

        y, state = selective_scan_recurrence(t, t.get("initial_state"))
        t["y"], t["final_state"] = y, state
        if not options["has_initial_state"]:  # its function takes none

            def call(scan: Function, t: dict[str, Tensor] = t) -> tuple[Tensor, ...]:
                y, state = scan(
                    t["x"].mT,
                    t["dt"].mT,
                    t["A"],
                    t["B"].mT,
                    t["C"].mT,
                    D=t.get("D"),
                    z=t["z"].mT if "z" in t else None,
                    delta_bias=t.get("dt_bias"),
                    delta_softplus=True,
                    return_last_state=True,
                )
                return y.mT, state

            agrees_with_transformers(
                "mamba.modeling_mamba", "mamba_selective_scan", call, (y, state)
            )
        yield problem(batch, seqlen, d_inner=d_inner, d_state=d_state, **options), t


def ssd_recurrence(t: dict[str, Tensor], initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The outputs, before the gate, and the last state of Mamba-2's scan."""
    batch, seqlen, heads, head_dim = t["x"].shape
    step = F.softplus(t["dt"] + t.get("dt_bias", 0.0))  # (b, l, h)
    # Head h reads group h // (heads // groups).
    B, C = (t[k].repeat_interleave(heads // t[k].shape[2], dim=2) for k in "BC")  # noqa: N806
    state = initial_state
    if state is None:
        state = torch.zeros(batch, heads, head_dim, B.shape[-1], dtype=torch.float64)
    y = torch.empty_like(t["x"])
    for i in range(seqlen):
        decay = torch.exp(step[:, i] * t["A"])
        added = torch.einsum("bh,bhp,bhn->bhpn", step[:, i], t["x"][:, i], B[:, i])
        state = decay[..., None, None] * state + added
        y[:, i] = torch.einsum("bhpn,bhn->bhp", state, C[:, i])
    if "D" in t:
        y = y + t["D"][:, None] * t["x"]
    return y, state


def ssd_scan() -> Iterator[Case]:
    """Dao and Gu 2024, section 6: one decay a head; the gate of section 7."""
    inputs = Inputs(7)
    every = {"has_d": True, "has_dt_bias": True, "has_z": True, "has_initial_state": True}
    none = dict.fromkeys(every, False)
    for (batch, seqlen, heads, head_dim, groups, d_state), options in [
        ((1, 1, 1, 1, 1, 1), every),
        ((1, 9, 2, 3, 1, 5), {**none, "has_d": True, "has_dt_bias": True}),
        ((2, 5, 4, 2, 2, 3), every),
        ((1, 7, 3, 2, 3, 4), none),
        ((1, 4, 2, 2, 2, 3), {**none, "has_initial_state": True}),
        ((1, 6, 2, 3, 1, 2), {**none, "has_z": True, "has_dt_bias": True}),
    ]:
        states = (batch, heads, head_dim, d_state)
        t = {
            "x": inputs.activation(batch, seqlen, heads, head_dim),
            "dt": inputs.step(batch, seqlen, heads),
            "A": inputs.decay(heads),
            "B": inputs.activation(batch, seqlen, groups, d_state),
            "C": inputs.activation(batch, seqlen, groups, d_state),
        }
        if options["has_d"]:
            t["D"] = inputs.scale(heads)
        if options["has_dt_bias"]:
            t["dt_bias"] = inputs.step_bias(heads)
        if options["has_z"]:
            t["z"] = inputs.activation(batch, seqlen, heads, head_dim)
        if options["has_initial_state"]:
            t["initial_state"] = inputs.state(*states)

        y, state = ssd_recurrence(t, t.get("initial_state"))

        def call(scan: Function, t: dict[str, Tensor] = t) -> tuple[Tensor, ...]:
            return scan(
                *(t[k] for k in ("x", "dt", "A", "B", "C")),
                chunk_size=4,
                D=t.get("D"),
                dt_bias=t.get("dt_bias"),
                initial_states=t.get("initial_state"),
                dt_softplus=True,
                return_final_states=True,
            )

        agrees_with_transformers("mamba2.modeling_mamba2", "mamba2_chunk_scan", call, (y, state))
        t["y"] = y * F.silu(t["z"]) if options["has_z"] else y
        t["final_state"] = state
        yield (
            problem(
                batch,
                seqlen,
                heads=heads,
                head_dim=head_dim,
                groups=groups,
                d_state=d_state,
                **options,
            ),
            t,
        )


def step_case(
    recurrence: Callable[[dict[str, Tensor], Tensor | None], tuple[Tensor, Tensor]],
    t: dict[str, Tensor],
) -> None:
    """Adds to a step's tensors what the scan of one token puts out."""
    tokens = {k: v.unsqueeze(1) if k in ("x", "dt", "B", "C", "z") else v for k, v in t.items()}
    y, t["state_out"] = recurrence(tokens, t["state"])
    t["y"] = y.squeeze(1)


def selective_scan_step() -> Iterator[Case]:
    """The recurrence of selective_scan, once."""
    inputs = Inputs(8)
    for (batch, d_inner, d_state), has_z, has_d, has_dt_bias in [
        ((1, 1, 1), True, True, True),
        ((2, 5, 3), True, True, True),
        ((2, 3, 4), False, False, False),
        ((1, 4, 2), True, False, True),
    ]:
        t = {
            "x": inputs.activation(batch, d_inner),
            "dt": inputs.step(batch, d_inner),
            "A": inputs.decay(d_inner, d_state),
            "B": inputs.activation(batch, d_state),
            "C": inputs.activation(batch, d_state),
            "state": inputs.state(batch, d_inner, d_state),
        }
        if has_d:
            t["D"] = inputs.scale(d_inner)
        if has_z:
            t["z"] = inputs.activation(batch, d_inner)
        if has_dt_bias:
            t["dt_bias"] = inputs.step_bias(d_inner)
        step_case(selective_scan_recurrence, t)
        options = {"has_z": has_z, "has_d": has_d, "has_dt_bias": has_dt_bias}
        yield problem(batch, 7, d_inner=d_inner, d_state=d_state, **options), t


def ssd_step() -> Iterator[Case]:
    """The recurrence of ssd_scan, once."""
    inputs = Inputs(9)
    for (batch, heads, head_dim, groups, d_state), has_d, has_dt_bias, has_z in [
        ((1, 1, 1, 1, 1), True, True, True),
        ((2, 4, 3, 2, 5), True, True, True),
        ((2, 3, 2, 3, 4), False, False, False),
        ((1, 2, 3, 1, 2), True, True, False),
    ]:
        t = {
            "x": inputs.activation(batch, heads, head_dim),
            "dt": inputs.step(batch, heads),
            "A": inputs.decay(heads),
            "B": inputs.activation(batch, groups, d_state),
            "C": inputs.activation(batch, groups, d_state),
            "state": inputs.state(batch, heads, head_dim, d_state),
        }
        if has_d:
            t["D"] = inputs.scale(heads)
        if has_dt_bias:
            t["dt_bias"] = inputs.step_bias(heads)
        if has_z:
            t["z"] = inputs.activation(batch, heads, head_dim)
        step_case(ssd_recurrence, t)
        if has_z:
            t["y"] = t["y"] * F.silu(t["z"])
        options = {"has_d": has_d, "has_dt_bias": has_dt_bias, "has_z": has_z}
        yield (
            problem(
                batch, 7, heads=heads, head_dim=head_dim, groups=groups, d_state=d_state, **options
            ),
            t,
        )


def rope() -> Iterator[Case]:
    """Su et al. 2021, as products of complex numbers; halves paired as in Llama's code."""
    inputs = Inputs(8)
    for (batch, seqlen, heads, kv_heads, head_dim, rotary_dim), position, factor, has_v in [
        ((1, 1, 1, 1, 2, 2), 0, 1.0, False),
        ((2, 3, 2, 1, 6, 6), 5, 1.0, True),
        ((1, 4, 3, 1, 7, 4), 1000, 1.1875, True),
        ((1, 2, 4, 2, 8, 8), 2**20 - 1, 1.0, False),
        ((2, 3, 1, 1, 5, 0), 9, 1.0, True),
    ]:
        half = rotary_dim // 2
        t = {
            "q": inputs.activation(batch, seqlen, heads, head_dim),
            "k": inputs.activation(batch, seqlen, kv_heads, head_dim),
        }
        if has_v:
            t["v"] = t["v_out"] = inputs.activation(batch, seqlen, kv_heads, head_dim)
        if half:
            t["inverse_frequency"] = inputs.frequency(half)
        angle = torch.arange(position, position + seqlen, dtype=torch.float64)[:, None] * t.get(
            "inverse_frequency", torch.zeros(0, dtype=torch.float64)
        )
        turn = torch.polar(torch.full_like(angle, factor), angle)[:, None]  # (l, 1, half)
        for name in ("q", "k"):
            x1, x2, rest = t[name].split([half, half, head_dim - rotary_dim], dim=-1)
            turned = torch.complex(x1, x2) * turn
            t[f"{name}_out"] = torch.cat([turned.real, turned.imag, rest], dim=-1)
        if half and rotary_dim == head_dim:  # its function rotates all of a head
            angles = torch.cat([angle, angle], dim=-1)[None]

            def call(
                rotate: Function, t: dict[str, Tensor] = t, angles: Tensor = angles
            ) -> tuple[Tensor, ...]:
                cos, sin = angles.cos(), angles.sin()
                return rotate(t["q"], t["k"], cos, sin, unsqueeze_dim=2)

            agrees_with_transformers(
                "llama.modeling_llama",
                "apply_rotary_pos_emb",
                call,
                (t["q_out"], t["k_out"]),
            )
        yield (
            problem(
                batch,
                seqlen,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                rotary_dim=rotary_dim,
                position=position,
                factor=factor,
                has_v=has_v,
            ),
            t,
        )


def embedding() -> Iterator[Case]:
    """F.embedding."""
    inputs = Inputs(9)
    for (batch, seqlen, vocab, width), scale, positions, position in [
        ((1, 1, 1, 1), 1.0, 0, 0),
        ((2, 5, 7, 3), 1.0, 0, 0),
        ((2, 3, 4, 5), 2.5, 0, 0),
        ((2, 4, 9, 3), 1.5, 6, 2),
    ]:
        t = {
            "tokens": inputs.index(batch, seqlen, limit=vocab),
            "table": inputs.activation(vocab, width),
        }
        t["y"] = F.embedding(t["tokens"].long(), t["table"]) * scale
        if positions:
            t["positions"] = inputs.activation(positions, width)
            at = torch.arange(position, position + seqlen)
            t["y"] = t["y"] + F.embedding(at, t["positions"])
        yield (
            problem(
                batch,
                seqlen,
                vocab=vocab,
                width=width,
                scale=scale,
                learned_positions=positions > 0,
                max_position=positions,
                position=position,
            ),
            t,
        )


def activation() -> Iterator[Case]:
    """F.silu and F.gelu; squares of F.relu."""
    inputs = Inputs(10)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu2": lambda x: F.relu(x).square(),
    }
    for (batch, seqlen, width), function, gated in itertools.product(
        [(1, 1, 1), (2, 3, 5)], functions, [False, True]
    ):
        t = {"x": inputs.activation(batch, seqlen, width * (2 if gated else 1))}
        t["y"] = functions[function](t["x"][..., :width])
        if gated:
            t["y"] = t["y"] * t["x"][..., width:]
        yield problem(batch, seqlen, width=width, function=function, gated=gated), t


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


CHECKED: collections.Counter[str] = collections.Counter()
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


def problem(batch: int, seqlen: int, **axes: float | bool | str) -> Problem:
    """The fields of an operator's Problem, by name."""
    return {"batch": batch, "seqlen": seqlen, **axes}


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
