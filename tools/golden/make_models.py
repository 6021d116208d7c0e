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

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,misc"
from __future__ import annotations

import argparse
import copy
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import published_models
import torch
import transformers
from model_configs import Config, Model, golden_models
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

BATCH = 2
DECODED = 8
LARGEST = 12.0  # of any logit


class InDouble(TorchFunctionMode):
    """Where a model asks for float32 in its forward, it gets float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double

        def widen(value: object) -> object:
            return torch.float64 if value is torch.float32 else value

        wide = {k: widen(v) for k, v in (kwargs or {}).items()}
        return func(*(widen(a) for a in args), **wide)


def exact(x: Tensor) -> Tensor:
    """The nearest with eight significant bits, and none below 2^-20."""
    return torch.round(x.to(torch.bfloat16).double() * 2**20) / 2**20


def fill(model: nn.Module, generator: torch.Generator, gain: float) -> None:
    """Every parameter to a seeded value of the size that training would give it."""

    def uniform(p: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(p.shape, generator=generator, dtype=torch.float64)

    def normal(p: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)

    for name, p in model.named_parameters():
        # Without the index of a list of one.
        leaf = name.removesuffix(".0").rsplit(".", 1)[-1]
        if leaf == "A_log":
            value = torch.log(uniform(p, 0.5, 8.0))
        elif leaf == "D":
            value = uniform(p, 0.5, 1.5)
        elif leaf == "dt_bias" or ("dt_proj" in name and leaf == "bias"):
            # Large enough never to meet time_step_min, which Transformers' prefill
            # clamps to and its decode does not.
            dt = torch.exp(uniform(p, math.log(0.05), math.log(0.5)))
            value = dt + torch.log(-torch.expm1(-dt))  # softplus^-1
        elif leaf == "bias":
            value = normal(p, 0.2)
        elif p.ndim == 1:  # a norm's weight
            value = uniform(p, 0.5, 1.5)
        elif any(part in name for part in ("embed", "wte", "wpe", "memory_tokens")):
            value = normal(p, 0.3)
        else:  # (out, in), or (channels, 1, width) of a conv
            value = normal(p, gain * p[0].numel() ** -0.5)
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


def published_class(config: Config) -> type[nn.Module] | None:
    """That of published_models.py; none where Transformers has the model."""
    if "ssm_cfg" in config:
        return published_models.MambaSsm
    return published_models.Hymba if config["model_type"] == "hymba" else None


def build(config: Config) -> nn.Module:
    """The model of a config.json."""
    if kind := published_class(config):
        return kind(config).eval()
    made = transformers.AutoConfig.for_model(**copy.deepcopy(config))
    made._attn_implementation = "eager"
    with InDouble():  # its buffers, RoPE's frequencies, too
        return transformers.AutoModelForCausalLM.from_config(made).double().eval()


def transformers_twin(net: nn.Module, config: Config) -> nn.Module:
    """Transformers' model with the weights of mamba_ssm's."""
    weights = {k.replace("embedding.", "embeddings."): v for k, v in net.state_dict().items()}
    embedding = weights["backbone.embeddings.weight"]
    weights.setdefault("lm_head.weight", embedding)
    ssm, twin = (
        config["ssm_cfg"],
        {
            "vocab_size": embedding.shape[0],
            "hidden_size": config["d_model"],
            "num_hidden_layers": config["n_layer"],
            "state_size": config["ssm_cfg"]["d_state"],
            "tie_word_embeddings": config["tie_embeddings"],
        },
    )
    if ssm["layer"] == "Mamba1":
        model = build({**twin, "model_type": "mamba"})
    else:
        heads = 2 * config["d_model"] // ssm["headdim"]
        of_heads = {"num_heads": heads, "head_dim": ssm["headdim"], "n_groups": ssm["ngroups"]}
        model = build({**twin, **of_heads, "model_type": "mamba2"})
    model.load_state_dict(weights)
    return model


def check_another_way(net: nn.Module, config: Config, tokens: Tensor, seqlen: int) -> None:
    """Compares with what shares as little of the computation as can be had."""
    if "ssm_cfg" in config:
        net = copy.deepcopy(net)
        for module in net.modules():
            if isinstance(module, published_models.RMSNorm):
                module.groups = 1  # Transformers' Mamba-2 norms all groups as one
        other = logits_of(transformers_twin(net, config), tokens)
    elif published_class(config):  # at least nothing sees what comes after it
        other = torch.cat(
            [logits_of(net, tokens[:, :seqlen]), logits_of(net, tokens)[:, seqlen:]], dim=1
        )
    else:
        # One sequence at a time: Falcon-H1's gated norm mixes them in decode.
        other = torch.cat([step_by_step(net, row[None], seqlen) for row in tokens])
    torch.testing.assert_close(other, logits_of(net, tokens), rtol=1e-9, atol=1e-9)


def save(model: Model, net: nn.Module, folder: pathlib.Path) -> None:
    """config.json and the weights."""
    net = net.to(model.store)
    if published_class(model.config):
        (folder / "config.json").write_text(json.dumps(model.config, indent=2) + "\n")
        save_file(net.state_dict(), folder / "model.safetensors", {"format": "pt"})
    else:
        net.save_pretrained(folder, max_shard_size="40KB" if model.sharded else "5GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.chmod(0o644)


def write(model: Model, seed: int, out: pathlib.Path) -> None:
    """One folder."""
    folder = out / model.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    torch.set_default_dtype(torch.float64)
    net = build(model.config)
    generator = torch.Generator().manual_seed(seed)
    fill(net, generator, model.gain)
    prompts: list[Tensor] = []
    for seqlen, name in ((model.seqlen, "logits"), (model.short_seqlen, "logits_short")):
        if not seqlen:
            continue
        dims = (BATCH, seqlen + DECODED)
        tokens = torch.randint(model.config["vocab_size"], dims, generator=generator)
        logits = logits_of(net, tokens)
        largest = logits.abs().max().item()
        assert 1.0 < largest < LARGEST, f"{model.name}: logits of up to {largest}"
        check_another_way(net, model.config, tokens, seqlen)
        check_every_tensor_counts(net, tokens, logits)
        prompts.append(tokens)
        made_with = f"torch {torch.__version__}, transformers {transformers.__version__}"
        (folder / f"{name}.json").write_text(case(made_with, tokens, seqlen, logits))
    check_every_number_counts(model.config, net, prompts)
    save(model, net, folder)
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
    for seed, model in enumerate(golden_models()):
        if not arguments.only or model.name in arguments.only:
            write(model, seed, arguments.out)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    main()
