# SPDX-License-Identifier: Apache-2.0
"""The peers: how each library is given an operator's problem.

A builder gets the problem and its inputs, puts them into the layout that the
library likes best (not timed), and returns the call to be timed. ImportError and
SkipError make a skipped row with the reason.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from peers.tensors import Problem
from peers.timing import Call

Inputs = dict[str, torch.Tensor]
Builder = Callable[[Problem, Inputs], Call]
EPSILON = 1e-5
BOTH = frozenset({"cpu", "cuda"})
CUDA = frozenset({"cuda"})


class SkipError(Exception):
    """The peer does not do this problem; the message says why."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """One library's way to run one operator."""

    op: str
    provider: str
    devices: frozenset[str]
    build: Builder
    optional: bool = False  # runs only where --providers names it


PEERS: list[Peer] = []


def _peer(
    op: str, provider: str, devices: frozenset[str], *, optional: bool = False
) -> Callable[[Builder], Builder]:
    def add(build: Builder) -> Builder:
        PEERS.append(Peer(op, provider, devices, build, optional))
        return build

    return add


# Norms.


@_peer("rmsnorm", "pytorch", BOTH)
def _rmsnorm(problem: Problem, t: Inputs) -> Call:
    width = (problem.axes["width"],)
    x, weight = t["x"], t["weight"]
    if "residual" in t:
        residual = t["residual"]

        def add() -> tuple[torch.Tensor, torch.Tensor]:
            u = x + residual
            return F.rms_norm(u, width, weight, EPSILON), u

        return add
    if "gate" in t:
        gate, groups = t["gate"], problem.axes["groups"]
        if groups > 1:
            part = (width[0] // groups,)
            return lambda: (
                F.rms_norm((x * F.silu(gate)).unflatten(-1, (groups, *part)), part, None, EPSILON)
                .flatten(-2)
                .mul(weight)
            )
        return lambda: F.rms_norm(x * F.silu(gate), width, weight, EPSILON)
    return lambda: F.rms_norm(x, width, weight, EPSILON)


@_peer("rmsnorm", "pytorch_compile", CUDA, optional=True)
def _rmsnorm_compiled(problem: Problem, t: Inputs) -> Call:
    return _compiled(_rmsnorm(problem, t))


@_peer("rmsnorm", "mamba_ssm", CUDA)
def _rmsnorm_triton(problem: Problem, t: Inputs) -> Call:
    if "gate" in t:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn

        group_size = problem.axes["width"] // problem.axes["groups"]
        return lambda: rmsnorm_fn(
            t["x"],
            t["weight"],
            None,
            z=t["gate"],
            eps=EPSILON,
            group_size=group_size,
            norm_before_gate=False,
        )
    from mamba_ssm.ops.triton.layer_norm import rms_norm_fn

    residual = t.get("residual")
    return lambda: rms_norm_fn(
        t["x"], t["weight"], None, residual=residual, eps=EPSILON, prenorm=residual is not None
    )


@_peer("layernorm", "pytorch", BOTH)
def _layernorm(problem: Problem, t: Inputs) -> Call:
    width = (problem.axes["width"],)
    return lambda: F.layer_norm(t["x"], width, t["weight"], t["bias"], EPSILON)


@_peer("layernorm", "pytorch_compile", CUDA, optional=True)
def _layernorm_compiled(problem: Problem, t: Inputs) -> Call:
    return _compiled(_layernorm(problem, t))


def _compiled(call: Call) -> Call:
    torch._dynamo.reset()  # each row is its own specialisation
    return torch.compile(call, dynamic=False)


# Matrix products.


@_peer("gemm", "pytorch", BOTH)
def _gemm(_: Problem, t: Inputs) -> Call:
    return lambda: F.linear(t["x"], t["weight"], t.get("bias"))


# Attention.


@_peer("attention", "pytorch", frozenset({"cpu"}))
def _attention_default(problem: Problem, t: Inputs) -> Call:
    return _attention(problem, t, None)


@_peer("attention", "pytorch_cudnn", CUDA)
def _attention_cudnn(problem: Problem, t: Inputs) -> Call:
    return _attention(problem, t, SDPBackend.CUDNN_ATTENTION)


@_peer("attention", "pytorch_flash", CUDA)
def _attention_flash(problem: Problem, t: Inputs) -> Call:
    return _attention(problem, t, SDPBackend.FLASH_ATTENTION)


def _attention(problem: Problem, t: Inputs, backend: SDPBackend | None) -> Call:
    if problem.axes["window"]:
        raise SkipError(
            "scaled_dot_product_attention has no sliding window but a mask of all pairs"
        )
    # Views: the kernels take (batch, seqlen, heads, head_dim) in memory.
    q, k, v = (t[name].transpose(1, 2) for name in ("q", "k", "v"))

    return _attend(q, k, v, backend, is_causal=True)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    backend: SDPBackend | None,
    *,
    is_causal: bool,
) -> Call:
    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True)

    if backend is None:
        return attend

    def attend_with() -> torch.Tensor:
        with sdpa_kernel(backend):
            return attend()

    return attend_with


# Convolutions.


@_peer("causal_conv1d", "pytorch", BOTH)
def _conv(problem: Problem, t: Inputs) -> Call:
    before = problem.axes["width"] - 1
    channels, seqlen = problem.axes["channels"], problem.name.seqlen
    x = t["x"].mT.contiguous()  # (batch, channels, seqlen)
    weight = t["weight"].unsqueeze(1)

    def convolve() -> torch.Tensor:
        y = F.conv1d(x, weight, t["bias"], padding=before, groups=channels)
        return F.silu(y[..., :seqlen])

    return convolve


@_peer("causal_conv1d", "causal_conv1d", CUDA)
def _conv_channel_last(_: Problem, t: Inputs) -> Call:
    from causal_conv1d import causal_conv1d_fn

    x = t["x"].mT  # a view, as Mamba-2 gives it
    return lambda: causal_conv1d_fn(
        x, t["weight"], t["bias"], activation="silu", return_final_states=True
    )


@_peer("causal_conv1d", "causal_conv1d_channel_first", CUDA)
def _conv_channel_first(_: Problem, t: Inputs) -> Call:
    from causal_conv1d import causal_conv1d_fn

    x = t["x"].mT.contiguous()  # as Mamba has it; this layout gives no final state
    return lambda: causal_conv1d_fn(x, t["weight"], t["bias"], activation="silu")


# Scans.


@_peer("selective_scan", "mamba_ssm", CUDA)
def _selective_scan(_: Problem, t: Inputs) -> Call:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    # (batch, channels, seqlen), the only layout it has
    x, dt, b, c, z = (t[name].mT.contiguous() for name in ("x", "dt", "B", "C", "z"))
    for name in ("x", "dt", "B", "C", "z"):
        del t[name]  # frees the other layout
    return lambda: selective_scan_fn(
        x,
        dt,
        t["A"],
        b,
        c,
        t["D"],
        z,
        t["dt_bias"],
        delta_softplus=True,
        return_last_state=True,
    )


@_peer("ssd_scan", "mamba_ssm", CUDA)
def _ssd_scan(problem: Problem, t: Inputs) -> Call:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return lambda: mamba_chunk_scan_combined(
        *(t[name] for name in ("x", "dt", "A", "B", "C")),
        chunk_size=problem.axes["chunk"],
        D=t["D"],
        dt_bias=t["dt_bias"],
        dt_softplus=True,
        return_final_states=True,
    )


@_peer("mamba2_inner", "mamba_ssm", CUDA)
def _mamba2_inner(problem: Problem, t: Inputs) -> Call:
    """The chain of its Mamba-2 layer where states are kept: convolution, scan, gated norm."""
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    axes = problem.axes
    d_inner, groups, d_state = axes["d_inner"], axes["groups"], axes["d_state"]
    heads = (axes["heads"], axes["head_dim"])
    inputs = t["xbc"].mT  # a view, as Mamba-2 gives it
    gate = None if "norm_weight" in t else t["z"].unflatten(-1, heads)

    def chain() -> tuple[torch.Tensor, ...]:
        xbc, inputs_out = causal_conv1d_fn(
            inputs, t["conv_weight"], t["conv_bias"], activation="silu", return_final_states=True
        )
        x, b, c = xbc.mT.split((d_inner, groups * d_state, groups * d_state), dim=-1)
        y, state = mamba_chunk_scan_combined(
            x.unflatten(-1, heads),
            t["dt"],
            t["A"],
            b.unflatten(-1, (groups, d_state)),
            c.unflatten(-1, (groups, d_state)),
            chunk_size=axes["chunk"],
            D=t["D"],
            z=gate,
            dt_bias=t["dt_bias"],
            dt_softplus=True,
            return_final_states=True,
        )
        y = y.flatten(-2)
        if gate is None:
            y = rmsnorm_fn(y, t["norm_weight"], None, z=t["z"], eps=EPSILON, norm_before_gate=False)
        return y, state, inputs_out

    return chain


@_peer("mamba2_inner", "mamba_ssm_split", CUDA)
def _mamba2_inner_split(problem: Problem, t: Inputs) -> Call:
    """Its one call for all of that, which keeps no state of the convolution."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_split_conv1d_scan_combined

    axes = problem.axes
    projected = torch.cat((t.pop("z"), t.pop("xbc"), t.pop("dt")), dim=-1)
    return lambda: mamba_split_conv1d_scan_combined(
        projected,
        t["conv_weight"],
        t["conv_bias"],
        t["dt_bias"],
        t["A"],
        D=t["D"],
        chunk_size=axes["chunk"],
        return_final_states=True,
        activation="silu",
        rmsnorm_weight=t.get("norm_weight"),
        rmsnorm_eps=EPSILON,
        headdim=axes["head_dim"],
        ngroups=axes["groups"],
        norm_before_gate=False,
    )


# What is between the layers.


@_peer("rope", "pytorch", BOTH)
def _rope(problem: Problem, t: Inputs) -> Call:
    """Transformers' rotate_half.

    Sines and cosines are made before, as a model makes them once for all its
    layers; and keys are not copied once more into a cache, but values are.
    """
    first = problem.axes["position"]
    positions = torch.arange(first, first + problem.name.seqlen, device=t["q"].device)
    angles = positions[:, None].double() * t["inverse_frequency"].double()
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos().to(t["q"].dtype), angles.sin().to(t["q"].dtype)
    q, k = t["q"].transpose(1, 2), t["k"].transpose(1, 2)
    v = t["v"]

    def rotate_half(x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return torch.cat((-x[..., half:], x[..., :half]), dim=-1)

    def rotate() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin, v.clone()

    return rotate


@_peer("rope", "pytorch_compile", CUDA, optional=True)
def _rope_compiled(problem: Problem, t: Inputs) -> Call:
    return _compiled(_rope(problem, t))


@_peer("embedding", "pytorch", BOTH)
def _embedding(_: Problem, t: Inputs) -> Call:
    return lambda: F.embedding(t["tokens"], t["table"])


@_peer("activation", "pytorch", BOTH)
def _activation(problem: Problem, t: Inputs) -> Call:
    x = t["x"]
    if not problem.axes["gated"]:
        return lambda: F.relu(x).square()
    gate, up = x.chunk(2, dim=-1)
    return lambda: F.silu(gate) * up


@_peer("activation", "pytorch_compile", CUDA, optional=True)
def _activation_compiled(problem: Problem, t: Inputs) -> Call:
    return _compiled(_activation(problem, t))


@_peer("copy", "pytorch", BOTH)
def _copy(_: Problem, t: Inputs) -> Call:
    y = torch.empty_like(t["x"])
    return lambda: y.copy_(t["x"])


# Decoding.


@_peer("attention_decode", "pytorch", frozenset({"cpu"}))
def _attention_decode_default(_: Problem, t: Inputs) -> Call:
    return _attention_decode(t, None)


@_peer("attention_decode", "pytorch_cudnn", CUDA)
def _attention_decode_cudnn(_: Problem, t: Inputs) -> Call:
    return _attention_decode(t, SDPBackend.CUDNN_ATTENTION)


@_peer("attention_decode", "pytorch_flash", CUDA)
def _attention_decode_flash(_: Problem, t: Inputs) -> Call:
    return _attention_decode(t, SDPBackend.FLASH_ATTENTION)


def _attention_decode(t: Inputs, backend: SDPBackend | None) -> Call:
    # (batch, heads, 1, head_dim); keys and values in memory as they come.
    q, k, v = t["q"].unsqueeze(2), t["k"].transpose(1, 2), t["v"].transpose(1, 2)
    return _attend(q, k, v, backend, is_causal=False)


@_peer("selective_scan_step", "pytorch", BOTH)
def _selective_scan_step(_: Problem, t: Inputs) -> Call:
    """The published step, where there is no kernel for it."""

    def step() -> torch.Tensor:
        dt = F.softplus(t["dt"] + t["dt_bias"])
        decay = torch.exp(dt[..., None] * t["A"])
        t["state"].mul_(decay).add_((dt * t["x"])[..., None] * t["B"][:, None])
        y = torch.einsum("bdn,bn->bd", t["state"], t["C"].float()) + t["D"] * t["x"]
        return (y * F.silu(t["z"])).to(t["x"].dtype)

    return step


@_peer("selective_scan_step", "mamba_ssm", CUDA)
def _selective_scan_step_triton(_: Problem, t: Inputs) -> Call:
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    return lambda: selective_state_update(
        *(t[name] for name in ("state", "x", "dt", "A", "B", "C", "D", "z", "dt_bias")),
        dt_softplus=True,
    )


@_peer("ssd_step", "pytorch", BOTH)
def _ssd_step(_: Problem, t: Inputs) -> Call:
    """The published step, where there is no kernel for it."""
    repeats = t["x"].shape[1] // t["B"].shape[1]  # heads a group

    def step() -> torch.Tensor:
        dt = F.softplus(t["dt"] + t["dt_bias"])
        decay = torch.exp(dt * t["A"])
        b = t["B"].float().repeat_interleave(repeats, dim=1)
        c = t["C"].float().repeat_interleave(repeats, dim=1)
        dx = dt[..., None] * t["x"]
        t["state"].mul_(decay[..., None, None]).add_(dx[..., None] * b[:, :, None])
        y = torch.einsum("bhpn,bhn->bhp", t["state"], c) + t["D"][:, None] * t["x"]
        return y.to(t["x"].dtype)

    return step


@_peer("ssd_step", "mamba_ssm", CUDA)
def _ssd_step_triton(_: Problem, t: Inputs) -> Call:
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    # As Mamba-2 calls it: what a head shares has strides of zero, by which the
    # kernel knows it.
    head_dim, d_state = t["state"].shape[2:]
    dt = t["dt"][..., None].expand(-1, -1, head_dim)
    a = t["A"][:, None, None].expand(-1, head_dim, d_state)
    d = t["D"][:, None].expand(-1, head_dim)
    dt_bias = t["dt_bias"][:, None].expand(-1, head_dim)
    return lambda: selective_state_update(
        t["state"], t["x"], dt, a, t["B"], t["C"], d, dt_bias=dt_bias, dt_softplus=True
    )
