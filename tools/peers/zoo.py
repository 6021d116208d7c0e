# SPDX-License-Identifier: Apache-2.0
"""The models of models/configs/, in the terms of the libraries; needs none.

A file is the config.json of Transformers, or that of mamba_ssm, which has
"d_model"; Transformers runs the models of the latter too, by other names.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from peers.names import RowName, Shapes

Json = dict[str, Any]
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "models" / "configs"
OPERATIONS = ("prefill", "decode")
LONGEST_MEASURED = 57344  # tokens: as far as Transformers was run in print
MOST_DECODED = 128  # tokens after a context, at most


class UnknownModelError(ValueError):
    """There is no such model, or its configuration is not understood."""


def models(folder: pathlib.Path = CONFIGS) -> list[str]:
    """The names of the models, sorted."""
    return sorted(path.stem for path in folder.glob("*.json"))


def read(model: str, folder: pathlib.Path = CONFIGS) -> Json:
    """A model's config.json; UnknownModelError where there is none."""
    path = folder / f"{model}.json"
    if not path.is_file():
        raise UnknownModelError(f"{folder} has no model {model}")
    config: Json = json.loads(path.read_text())
    return config


def is_mamba_ssm(config: Json) -> bool:
    """Whether the configuration is in mamba_ssm's form."""
    return "d_model" in config


def vocabulary(config: Json) -> int:
    """Rows of the embedding."""
    rows = int(config["vocab_size"])
    if is_mamba_ssm(config):
        multiple = int(config.get("pad_vocab_size_multiple", 8))
        rows += -rows % multiple
    return rows


def most_positions(config: Json) -> int | None:
    """How many positions the model has learned; None where they are computed."""
    return int(config["max_position_embeddings"]) if config.get("model_type") == "gpt_neo" else None


def refusal(name: RowName, config: Json) -> str:
    """Why no library could run the row; empty if one could."""
    positions = most_positions(config)
    needed = name.seqlen + (MOST_DECODED if name.op == "decode" else 0)
    if positions is not None and needed > positions:
        return f"the model has {positions} positions, fewer than {needed}"
    return ""


def for_transformers(config: Json) -> tuple[str, Json]:
    """The model_type and the fields that a configuration of Transformers takes."""
    if not is_mamba_ssm(config):
        fields = {k: v for k, v in config.items() if k not in ("architectures", "torch_dtype")}
        return str(fields.pop("model_type")), fields
    ssm = dict(config.get("ssm_cfg") or {})
    if config.get("attn_layer_idx") or config.get("d_intermediate"):
        raise UnknownModelError("Transformers has no mamba_ssm model with attention or an MLP")
    fields = {
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layer"],
        "vocab_size": vocabulary(config),
        "residual_in_fp32": config.get("residual_in_fp32", True),
        "tie_word_embeddings": config.get("tie_embeddings", True),
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": ssm.pop("d_conv", 4),
        "expand": ssm.pop("expand", 2),
    }
    layer = ssm.pop("layer", "Mamba1")
    if layer == "Mamba1":
        fields["state_size"] = ssm.pop("d_state", 16)
        fields["time_step_rank"] = ssm.pop("dt_rank", "auto")
    else:
        fields["state_size"] = ssm.pop("d_state", 128)
        fields["head_dim"] = ssm.pop("headdim", 64)
        fields["n_groups"] = ssm.pop("ngroups", 1)
        fields["chunk_size"] = ssm.pop("chunk_size", 256)
        fields["num_heads"] = fields["expand"] * fields["hidden_size"] // fields["head_dim"]
    if ssm:
        raise UnknownModelError(f"ssm_cfg has {', '.join(sorted(ssm))}, which is not understood")
    return {"Mamba1": "mamba", "Mamba2": "mamba2"}[layer], fields


def sweep(shapes: Shapes, dtype: str, device: str) -> Iterator[RowName]:
    """Every model, prefill and decode, at batch 1 and the long extents."""
    seqlens = sorted({seqlen for _, seqlen in shapes.extents} | {LONGEST_MEASURED})
    for model in models():
        for operation in OPERATIONS:
            for seqlen in seqlens:
                yield RowName(operation, "*", model, dtype, device, 1, seqlen)
