# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/models/<name>/: tiny checkpoints and what they compute.

    python3 tools/golden/make_models.py --out tests/golden/models

Each folder has `config.json` and the weights as `save_pretrained` writes them,
and `logits.json`: token ids and the logits of a forward pass in double, by
Transformers, or by published_models.py where Transformers has no such model.

Weights are seeded, and have at most eight significant bits: exact in f32, bf16
and f16, so that a forward in bf16 rounds activations alone. Every tensor must
move the logits, or the script fails. Decode step i is the logits at position
seqlen + i of one forward over prompt and decoded tokens: the definition, with
no cache in it; that feeding tokens one at a time with Transformers' cache gives
the same is checked here.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

import argparse
import copy
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BATCH = 2
DECODED = 8
LARGEST = 12.0  # of any logit
EPSILON = 1e-3  # of a norm: large enough for a wrong one to show

Config = dict[str, Any]


class InDouble(TorchFunctionMode):
    """Where a model asks for float32 in its forward, it gets float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is Tensor.float:
            func = Tensor.double

        def widen(value: object) -> object:
            return torch.float64 if value is torch.float32 else value

        wide = {k: widen(v) for k, v in (kwargs or {}).items()}
        return func(*(widen(a) for a in args), **wide)


class Model(NamedTuple):
    """A golden model."""

    name: str
    config: Config
    seqlen: int = 37
    store: torch.dtype = torch.float32
    sharded: bool = False
    short_seqlen: int = 0  # a second case, in logits_short.json


LLAMA_LIKE: Config = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": EPSILON,
}
MAMBA_LIKE: Config = {
    "vocab_size": 53,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "layer_norm_epsilon": EPSILON,
    "conv_kernel": 4,
    "expand": 2,
}


def transformers_models() -> Iterator[Model]:
    """By model_type, as config.json has it."""
    yield Model(
        "qwen2",
        {**LLAMA_LIKE, "model_type": "qwen2", "tie_word_embeddings": True},
        sharded=True,
    )
    yield Model(
        "llama",
        {
            **LLAMA_LIKE,
            "model_type": "llama",
            "hidden_size": 40,
            "head_dim": 16,
            # Wavelengths of 6 to 3,500: some kept, some blended, some scaled.
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    )
    yield Model(
        "mamba",
        {**MAMBA_LIKE, "model_type": "mamba", "state_size": 16, "time_step_rank": 5},
    )
    for groups, store in ((1, torch.float32), (2, torch.float16)):
        yield Model(
            f"mamba2_groups{groups}",
            {
                **MAMBA_LIKE,
                "model_type": "mamba2",
                "state_size": 24,
                "num_heads": 4,
                "head_dim": 20,
                "n_groups": groups,
                "chunk_size": 16,
                "tie_word_embeddings": groups == 1,
            },
            store=store,
        )


    yield Model(
        "phi3",
        {
            **LLAMA_LIKE,
            "model_type": "phi3",
            "num_key_value_heads": 4,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "original_max_position_embeddings": 32,  # between the two prompts
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "short_factor": [1.1, 1.2, 1.3, 1.5, 1.8, 2.2],
                "long_factor": [1.25, 1.5, 2.5, 4.0, 7.0, 12.0],
            },
        },
        short_seqlen=21,
    )
    yield Model(
        "nemotron",  # the 8B Transformer of arXiv:2406.07887 is of this kind
        {
            "model_type": "nemotron",
            "vocab_size": 61,
            "hidden_size": 48,
            "intermediate_size": 104,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 16,
            "hidden_act": "relu2",
            "norm_eps": EPSILON,
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "partial_rotary_factor": 0.5,
            },
        },
    )
    yield Model(
        "gpt_neo",
        {
            "model_type": "gpt_neo",
            "vocab_size": 59,
            "hidden_size": 40,
            "intermediate_size": 60,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 11,
            "max_position_embeddings": 64,
            "layer_norm_epsilon": EPSILON,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
    )
    for name, norm in (("falcon_h1", False), ("falcon_h1_norm", True)):
        yield Model(
            name,
            {
                **LLAMA_LIKE,
                "model_type": "falcon_h1",
                "hidden_size": 40,
                "head_dim": 16,
                "mamba_d_ssm": 72,
                "mamba_n_heads": 6,
                "mamba_d_head": 12,
                "mamba_n_groups": 2 if norm else 1,
                "mamba_d_state": 20,
                "mamba_d_conv": 4,
                "mamba_chunk_size": 16,
                "mamba_rms_norm": norm,
                "mamba_norm_before_gate": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
                "tie_word_embeddings": not norm,
                "embedding_multiplier": 1.7,
                "lm_head_multiplier": 0.6,
                "mlp_multipliers": [0.8, 0.7],
                "key_multiplier": 1.4,
                "attention_in_multiplier": 1.1,
                "attention_out_multiplier": 0.9,
                "ssm_multipliers": [0.7, 1.3, 0.9, 1.2, 0.8],
                "ssm_in_multiplier": 1.2,
                "ssm_out_multiplier": 0.75,
            },
        )
    yield Model(
        "zamba2",
        {
            "model_type": "zamba2",
            "vocab_size": 59,
            "hidden_size": 32,
            "num_hidden_layers": 5,
            "layers_block_type": [
                "linear_attention",
                "hybrid",
                "linear_attention",
                "hybrid",
                "hybrid",
            ],
            "mamba_d_state": 12,
            "mamba_ngroups": 2,
            "n_mamba_heads": 4,
            "chunk_size": 16,
            "intermediate_size": 56,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "num_mem_blocks": 1,
            "use_shared_attention_adapter": True,
            "adapter_rank": 6,
            "use_mem_rope": True,
            "rms_norm_eps": EPSILON,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "use_mamba_kernels": False,
        },
        store=torch.bfloat16,
    )
    yield Model(
        "nemotron_h",
        {
            "model_type": "nemotron_h",
            "vocab_size": 53,
            "hidden_size": 40,
            "hybrid_override_pattern": "M-M*-M*-",
            "intermediate_size": 68,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "ssm_state_size": 12,
            "mamba_num_heads": 6,
            "mamba_head_dim": 12,
            "n_groups": 2,
            "conv_kernel": 4,
            "expand": 2,
            "chunk_size": 16,
            "layer_norm_epsilon": EPSILON,
            "use_mamba_kernels": False,
        },
    )


def exact(x: Tensor) -> Tensor:
    """The nearest with eight significant bits, and none below 2^-20."""
    return torch.round(x.to(torch.bfloat16).double() * 2**20) / 2**20


def fill(model: nn.Module, generator: torch.Generator) -> None:
    """Every parameter to a seeded value of the size that training would give it."""

    def uniform(p: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(p.shape, generator=generator, dtype=torch.float64)

    def normal(p: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)

    for name, p in model.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "A_log":
            value = torch.log(uniform(p, 0.5, 8.0))
        elif leaf == "D":
            value = uniform(p, 0.5, 1.5)
        elif leaf == "dt_bias" or name.endswith("dt_proj.bias"):
            # Large enough never to meet time_step_min, which Transformers' prefill
            # clamps to and its decode does not.
            dt = torch.exp(uniform(p, math.log(0.05), math.log(0.5)))
            value = dt + torch.log(-torch.expm1(-dt))  # softplus^-1
        elif leaf == "bias":
            value = normal(p, 0.2)
        elif p.ndim == 1:  # a norm's weight
            value = uniform(p, 0.5, 1.5)
        elif "embed" in name or "wte" in name or "wpe" in name:
            value = normal(p, 0.3)
        else:  # (out, in), or (channels, 1, width) of a conv
            value = normal(p, 1.2 * p[0].numel() ** -0.5)
        with torch.no_grad():
            p.copy_(exact(value))


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits (batch, positions, vocab) of a forward without a cache."""
    with torch.no_grad(), InDouble():
        logits = model(tokens, use_cache=False).logits
    assert logits.dtype == torch.float64
    return logits


def step_by_step(model: nn.Module, tokens: Tensor, prompt: int) -> Tensor:
    """The same, by a prefill of `prompt` tokens and one at a time after it."""
    outputs = []
    with torch.no_grad(), InDouble():
        out = model(tokens[:, :prompt], use_cache=True)
        for i in range(prompt, tokens.shape[1]):
            outputs.append(out.logits)
            kind = "cache_params" if hasattr(out, "cache_params") else "past_key_values"
            cache = {kind: getattr(out, kind)}
            out = model(tokens[:, i : i + 1], use_cache=True, **cache)
        outputs.append(out.logits)
    return torch.cat(outputs, dim=1)


def check_every_tensor_counts(model: nn.Module, tokens: Tensor, logits: Tensor) -> None:
    """Fails where some tensor could be forgotten and nobody would see it."""
    generator = torch.Generator().manual_seed(99)
    for name, p in model.named_parameters():
        kept = p.detach().clone()
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            p.add_(0.1 * kept.abs().mean() * noise)
            moved = (logits_of(model, tokens) - logits).abs().amax(dim=(1, 2))
            p.copy_(kept)
        assert moved.min() > 1e-3, f"{name}: moves the logits by {moved.tolist()} alone"


def numbers(config: Config | list[Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a configuration has a float."""
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, float):
            yield *path, key
        elif isinstance(value, dict | list):
            yield from numbers(value, (*path, key))


def check_every_number_counts(config: Config, net: nn.Module, prompts: list[Tensor]) -> None:
    """Fails where a float of config.json could be ignored: a factor, an epsilon."""
    logits = [logits_of(net, tokens) for tokens in prompts]
    for *parents, key in numbers(config):
        changed = copy.deepcopy(config)
        at = changed
        for parent in parents:
            at = at[parent]
        at[key] *= 1.2
        other = build(changed)
        other.load_state_dict(net.state_dict())
        moved = max(
            (logits_of(other, tokens) - before).abs().max().item()
            for tokens, before in zip(prompts, logits, strict=True)
        )
        assert moved > 1e-3, f"{parents} {key}: moves the logits by {moved} alone"


def case(made_with: str, tokens: Tensor, seqlen: int, logits: Tensor) -> str:
    """logits.json."""

    def rounded(x: Tensor) -> list[list[list[float]]]:
        return [[[float(f"{v:.7g}") for v in row] for row in one] for one in x.tolist()]

    fields = {
        "made_with": made_with,
        "prompt": tokens[:, :seqlen].tolist(),
        "decode": tokens[:, seqlen:].tolist(),
        "prefill_logits": rounded(logits[:, :seqlen]),
        "decode_logits": rounded(logits[:, seqlen:]),
    }
    lines = [f'"{k}":{json.dumps(v, separators=(",", ":"))}' for k, v in fields.items()]
    return "{" + ",\n".join(lines) + "}\n"


def build(config: Config) -> nn.Module:
    """Transformers' model, by config.json's model_type."""
    made = transformers.AutoConfig.for_model(**copy.deepcopy(config))
    made._attn_implementation = "eager"
    with InDouble():  # its buffers, RoPE's frequencies, too
        return transformers.AutoModelForCausalLM.from_config(made).double().eval()


def write(model: Model, seed: int, out: pathlib.Path) -> None:
    """One folder."""
    folder = out / model.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    torch.set_default_dtype(torch.float64)
    net = build(model.config)
    generator = torch.Generator().manual_seed(seed)
    fill(net, generator)
    vocab = model.config["vocab_size"]
    prompts: list[Tensor] = []
    for seqlen, name in ((model.seqlen, "logits"), (model.short_seqlen, "logits_short")):
        if not seqlen:
            continue
        tokens = torch.randint(vocab, (BATCH, seqlen + DECODED), generator=generator)
        logits = logits_of(net, tokens)
        largest = logits.abs().max().item()
        assert 1.0 < largest < LARGEST, f"{model.name}: logits of up to {largest}"
        # One sequence at a time: Falcon-H1's gated norm mixes them in decode.
        stepped = torch.cat([step_by_step(net, row[None], seqlen) for row in tokens])
        torch.testing.assert_close(stepped, logits, rtol=1e-9, atol=1e-9)
        check_every_tensor_counts(net, tokens, logits)
        prompts.append(tokens)
        made_with = f"torch {torch.__version__}, transformers {transformers.__version__}"
        (folder / f"{name}.json").write_text(case(made_with, tokens, seqlen, logits))
    check_every_number_counts(model.config, net, prompts)
    net = net.to(model.store)
    net.save_pretrained(folder, max_shard_size="40KB" if model.sharded else "5GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{folder}: {parameters} parameters, {size} bytes, logits up to {largest:.3g}")


def main() -> None:
    """Writes every model's folder, or those named."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/models"))
    parser.add_argument("--only", nargs="*", default=[], help="names; all by default")
    arguments = parser.parse_args()
    for seed, model in enumerate(transformers_models()):
        if not arguments.only or model.name in arguments.only:
            write(model, seed, arguments.out)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    main()
