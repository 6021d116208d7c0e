# SPDX-License-Identifier: Apache-2.0
"""Golden cases of the operators that PyTorch has, or that are a line of it."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from golden_cases import EPSILON, Case, Function, Inputs, agrees_with_transformers, problem
from torch import Tensor


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
