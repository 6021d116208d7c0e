# SPDX-License-Identifier: Apache-2.0
"""Models that Transformers does not have, in plain PyTorch, by their papers.

Their config.json and tensor names are those of their published checkpoints:
mamba_ssm's own form of Mamba (Gu and Dao 2023) and Mamba-2 (Dao and Gu 2024),
and nvidia/Hymba-1.5B's of Hymba (Dong et al. 2024). A module is named as its
checkpoint names it, and computes a forward over the whole sequence: no cache,
no kernel, recurrences step by step.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,misc"
from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Config = dict[str, Any]
MAMBA_SSM_EPSILON = 1e-5  # of every norm: not in its config


class Output(NamedTuple):
    """What Transformers' models return, as far as it is needed."""

    logits: Tensor


class RMSNorm(nn.Module):
    """Zhang and Sennrich 2019; over each of `groups` parts by itself."""

    def __init__(self, width: int, epsilon: float, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon, self.groups = epsilon, groups

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(parts.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (parts * scale).flatten(-2) * self.weight


def linear(width: int, out: int, bias: bool = False) -> nn.Linear:
    """Most projections have no bias."""
    return nn.Linear(width, out, bias=bias)


def depthwise(channels: int, width: int) -> nn.Conv1d:
    """Parameters of the causal convolution."""
    return nn.Conv1d(channels, channels, width, groups=channels)


def causal_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """SiLU of the convolution of (b, l, c) with zeros before it."""
    padded = F.pad(x.mT, (conv.kernel_size[0] - 1, 0))
    return F.silu(conv(padded)).mT


def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """h_t = exp(dt_t a) h_(t-1) + dt_t b_t x_t, y_t = c_t h_t.

    x, dt: (b, l, d); a: (d, n); b, c: (b, l, d, n) or (b, l, 1, n).
    """
    state = torch.zeros(x.shape[0], *a.shape)
    ys = []
    for i in range(x.shape[1]):
        decay = torch.exp(dt[:, i, :, None] * a)
        state = decay * state + (dt[:, i] * x[:, i])[..., None] * b[:, i]
        ys.append((state * c[:, i]).sum(-1))
    return torch.stack(ys, dim=1)


class Mamba(nn.Module):
    """mamba_ssm's Mamba."""

    def __init__(self, width: int, ssm: Config) -> None:
        super().__init__()
        inner = ssm.get("expand", 2) * width
        self.states: int = ssm.get("d_state", 16)
        self.rank: int = ssm.get("dt_rank", math.ceil(width / 16))
        self.in_proj = linear(width, 2 * inner)
        self.conv1d = depthwise(inner, ssm.get("d_conv", 4))
        self.x_proj = linear(inner, self.rank + 2 * self.states)
        self.dt_proj = linear(self.rank, inner, bias=True)
        self.A_log = nn.Parameter(torch.empty(inner, self.states))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = linear(inner, width)

    def forward(self, u: Tensor) -> Tensor:
        x, z = self.in_proj(u).chunk(2, dim=-1)
        x = causal_conv(self.conv1d, x)
        dt, b, c = self.x_proj(x).split([self.rank, self.states, self.states], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        y = scan(x, dt, -torch.exp(self.A_log), b.unsqueeze(2), c.unsqueeze(2))
        return self.out_proj((y + self.D * x) * F.silu(z))


class Mamba2(nn.Module):
    """mamba_ssm's Mamba2: its gated norm is over each group by itself."""

    def __init__(self, width: int, ssm: Config) -> None:
        super().__init__()
        self.inner: int = ssm.get("expand", 2) * width
        self.states: int = ssm.get("d_state", 128)
        self.groups: int = ssm.get("ngroups", 1)
        self.head_dim: int = ssm.get("headdim", 64)
        self.heads = self.inner // self.head_dim
        channels = self.inner + 2 * self.groups * self.states
        self.in_proj = linear(width, self.inner + channels + self.heads)
        self.conv1d = depthwise(channels, ssm.get("d_conv", 4))
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.empty(self.heads))
        self.norm = RMSNorm(self.inner, MAMBA_SSM_EPSILON, self.groups)
        self.out_proj = linear(self.inner, width)

    def forward(self, u: Tensor) -> Tensor:
        span = self.groups * self.states
        z, xbc, dt = self.in_proj(u).split([self.inner, self.inner + 2 * span, self.heads], dim=-1)
        x, b, c = causal_conv(self.conv1d, xbc).split([self.inner, span, span], dim=-1)

        def by_head(t: Tensor) -> Tensor:  # of a head's group, for each of its channels
            grouped = t.unflatten(-1, (self.groups, self.states))
            return grouped.repeat_interleave(self.inner // self.groups, dim=2)

        def by_channel(t: Tensor) -> Tensor:
            return t.repeat_interleave(self.head_dim, dim=-1)

        a = by_channel(-torch.exp(self.A_log))[:, None].expand(-1, self.states)
        dt = by_channel(F.softplus(dt + self.dt_bias))
        y = scan(x, dt, a, by_head(b), by_head(c)) + by_channel(self.D) * x
        return self.out_proj(self.norm(y * F.silu(z)))


class MambaSsm(nn.Module):
    """mamba_ssm's MambaLMHeadModel: a vocabulary rounded up, pre-norm blocks."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, multiple = config["d_model"], config["pad_vocab_size_multiple"]
        vocab = math.ceil(config["vocab_size"] / multiple) * multiple
        mixer = {"Mamba1": Mamba, "Mamba2": Mamba2}[config["ssm_cfg"].get("layer", "Mamba1")]
        self.backbone = nn.ModuleDict(
            {
                "embedding": nn.Embedding(vocab, width),
                "layers": nn.ModuleList(
                    nn.ModuleDict(
                        {
                            "norm": RMSNorm(width, MAMBA_SSM_EPSILON),
                            "mixer": mixer(width, config["ssm_cfg"]),
                        }
                    )
                    for _ in range(config["n_layer"])
                ),
                "norm_f": RMSNorm(width, MAMBA_SSM_EPSILON),
            }
        )
        self.lm_head = None if config["tie_embeddings"] else linear(width, vocab)

    def forward(self, tokens: Tensor, use_cache: bool = False) -> Output:
        assert not use_cache
        u = self.backbone["embedding"](tokens)
        for layer in self.backbone["layers"]:
            u = u + layer["mixer"](layer["norm"](u))
        head = self.lm_head or self.backbone["embedding"]
        return Output(F.linear(self.backbone["norm_f"](u), head.weight))


def rotated(x: Tensor, base: float) -> Tensor:
    """RoPE (Su et al. 2021) of (b, h, l, d), halves of d being the pairs."""
    half = x.shape[-1] // 2
    frequency = base ** -(torch.arange(half) / half)
    angle = torch.arange(x.shape[2])[:, None] * frequency
    a, b = x.split(half, dim=-1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class HymbaMixer(nn.Module):
    """Attention and Mamba on one projection, normed each and averaged.

    `heads` values of twice a key's width, so that both branches are as wide. A
    layer that shares another's keys and values projects queries alone.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        c, width = config, config["hidden_size"]
        self.inner: int = c["mamba_expand"] * width
        self.heads: int = c["num_attention_heads"]
        self.kv_heads: int = c["num_key_value_heads"]
        self.head_dim: int = width // self.heads
        self.states: int = c["mamba_d_state"]
        self.rank: int = c["mamba_dt_rank"]
        self.meta: int = c["num_memory_tokens"]
        self.window: int | None = None if layer in c["global_attn_idx"] else c["sliding_window"]
        stretch = 2 * c["max_position_embeddings"] / c["orig_max_position_embeddings"] - 1
        self.base: float = c["rope_theta"] * stretch ** (self.head_dim / (self.head_dim - 2))
        shared = any(layer in group[1:] for group in c["kv_reuse_group"])
        share = self.kv_heads / self.heads
        kv = [] if shared else [int(share * width), int(share * self.inner)]
        self.parts = [width, *kv, self.inner, self.inner]  # q, k, v, x, z
        self.in_proj = linear(width, sum(self.parts))
        self.conv1d = depthwise(self.inner, c["mamba_d_conv"])
        # Lists of one, as the checkpoints have them.
        self.x_proj = nn.ModuleList([linear(self.inner, self.rank + 2 * self.states)])
        self.dt_proj = nn.ModuleList([linear(self.rank, self.inner, bias=True)])
        self.A_log = nn.ParameterList([torch.empty(self.inner, self.states)])
        self.D = nn.ParameterList([torch.empty(self.inner)])
        epsilon = c["rms_norm_eps"]
        self.dt_layernorm = RMSNorm(self.rank, epsilon)
        self.B_layernorm = RMSNorm(self.states, epsilon)
        self.C_layernorm = RMSNorm(self.states, epsilon)
        self.pre_avg_layernorm1 = RMSNorm(self.inner, epsilon)
        self.pre_avg_layernorm2 = RMSNorm(self.inner, epsilon)
        self.out_proj = linear(self.inner, width)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal, over a window and the meta tokens; q (b, h, l, d)."""
        at = torch.arange(q.shape[2])
        behind = at[:, None] - at
        seen = behind >= 0
        if self.window:
            seen &= (behind < self.window) | (at < self.meta)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        score = (q @ k.mT) * self.head_dim**-0.5
        weight = score.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        return (weight @ v).transpose(1, 2).flatten(2)

    def mamba(self, x: Tensor, z: Tensor) -> Tensor:
        x = causal_conv(self.conv1d, x)
        dt, b, c = self.x_proj[0](x).split([self.rank, self.states, self.states], dim=-1)
        dt = F.softplus(self.dt_proj[0](self.dt_layernorm(dt)))
        b, c = self.B_layernorm(b).unsqueeze(2), self.C_layernorm(c).unsqueeze(2)
        y = scan(x, dt, -torch.exp(self.A_log[0]), b, c)
        return (y + self.D[0] * x) * F.silu(z)

    def forward(
        self, u: Tensor, shared: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, *kv, x, z = self.in_proj(u).split(self.parts, dim=-1)
        q = rotated(q.unflatten(-1, (self.heads, -1)).transpose(1, 2), self.base)
        if kv:
            k, v = (t.unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for t in kv)
            shared = (rotated(k, self.base), v)
        assert shared
        attended = self.pre_avg_layernorm1(self.attention(q, *shared))
        scanned = self.pre_avg_layernorm2(self.mamba(x, z))
        return self.out_proj((attended + scanned) / 2), shared


class HymbaMlp(nn.Module):
    """One expert of one: a gated MLP."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = linear(width, inner)
        self.up_proj = linear(width, inner)
        self.down_proj = linear(inner, width)

    def forward(self, u: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(u)) * self.up_proj(u))


class HymbaLayer(nn.Module):
    """Pre-norm mixer, pre-norm MLP."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        width, epsilon = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm = RMSNorm(width, epsilon)
        self.mamba = HymbaMixer(config, layer)
        self.pre_moe_layernorm = RMSNorm(width, epsilon)
        mlp = HymbaMlp(width, config["intermediate_size"])
        self.moe = nn.ModuleDict({"experts": nn.ModuleList([mlp])})

    def forward(
        self, u: Tensor, shared: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, own = self.mamba(self.input_layernorm(u), shared)
        u = u + mixed
        return u + self.moe["experts"][0](self.pre_moe_layernorm(u)), own


class HymbaModel(nn.Module):
    """Meta tokens before the prompt, which takes the positions after them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        self.producer = {i: g[0] for g in config["kv_reuse_group"] for i in g[1:]}
        self.embed_tokens = nn.Embedding(config["vocab_size"], width)
        self.memory_tokens = nn.Parameter(torch.empty(config["num_memory_tokens"], width))
        self.layers = nn.ModuleList(HymbaLayer(config, i) for i in range(layers))
        self.final_layernorm = RMSNorm(width, config["rms_norm_eps"])

    def forward(self, tokens: Tensor) -> Tensor:
        meta = self.memory_tokens.expand(tokens.shape[0], -1, -1)
        u = torch.cat((meta, self.embed_tokens(tokens)), dim=1)
        made: dict[int, tuple[Tensor, Tensor]] = {}
        for i, layer in enumerate(self.layers):
            u, made[i] = layer(u, made.get(self.producer.get(i, -1)))
        return self.final_layernorm(u[:, meta.shape[1] :])


class Hymba(nn.Module):
    """nvidia/Hymba-1.5B's form. A window counts the token itself.

    Its published code sees one key further back in prefill than in decode; the
    window here is decode's, and other models'.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = HymbaModel(config)
        self.lm_head = (
            None
            if config["tie_word_embeddings"]
            else linear(config["hidden_size"], config["vocab_size"])
        )

    def forward(self, tokens: Tensor, use_cache: bool = False) -> Output:
        assert not use_cache
        head = self.lm_head or self.model.embed_tokens
        return Output(F.linear(self.model(tokens), head.weight))
