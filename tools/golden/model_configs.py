# SPDX-License-Identifier: Apache-2.0
"""The golden models: tiny, with every option that the real ones have.

Two layers or more of each kind, odd sizes, prompts longer than a window and
than a chunk of an SSM, and every factor far enough from one to be missed. Heads
of attention are multiples of 8: GPUs' kernels in 16 bits take no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

Config = dict[str, Any]
EPSILON = 1e-3  # of a norm: large enough for a wrong one to show


class Model(NamedTuple):
    """A golden model."""

    name: str
    config: Config
    seqlen: int = 37
    store: torch.dtype = torch.float32
    sharded: bool = False
    short_seqlen: int = 0  # a second case, in logits_short.json
    gain: float = 1.2  # of a weight matrix: deviation times sqrt(inputs)


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


def golden_models() -> Iterator[Model]:
    """In order: a model's place is its seed, so new ones go to the end."""
    yield Model(
        "qwen2",
        {
            **LLAMA_LIKE,
            "model_type": "qwen2",
            "hidden_size": 40,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "tie_word_embeddings": True,
        },
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
            "num_attention_heads": 2,  # of 24: 12 factors, no power of two
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "original_max_position_embeddings": 32,  # between the two prompts
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "short_factor": [1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.5],
                "long_factor": [1.25, 1.4, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 9.0, 12.0, 15.0],
            },
        },
        short_seqlen=21,
    )
    yield Model(
        "gpt_neo",
        {
            "model_type": "gpt_neo",
            "vocab_size": 59,
            "hidden_size": 48,
            "intermediate_size": 60,
            "num_layers": 4,
            "num_heads": 3,
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
            store=torch.bfloat16 if norm else torch.float32,
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
        # Deeper than the others, and less forgiving: at 1.2, f32 is off by 3e-4.
        gain=0.8,
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
        store=torch.bfloat16,
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
        store=torch.bfloat16,
    )
    mamba_ssm: Config = {
        "d_model": 40,
        "n_layer": 2,
        "vocab_size": 53,  # 56 rows, by the next
        "pad_vocab_size_multiple": 8,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
    }
    yield Model(
        "mamba_ssm_mamba",  # of the 8B Mamba's kind, d_state greater than 16
        {**mamba_ssm, "ssm_cfg": {"layer": "Mamba1", "d_state": 32}, "tie_embeddings": False},
    )
    yield Model(
        "mamba_ssm_mamba2",
        {
            **mamba_ssm,
            "ssm_cfg": {
                "layer": "Mamba2",
                "d_state": 24,
                "headdim": 20,
                "ngroups": 2,
                "chunk_size": 16,
            },
            "tie_embeddings": True,
        },
    )
    yield Model(
        "hymba",
        {
            "model_type": "hymba",
            "architectures": ["HymbaForCausalLM"],
            "vocab_size": 53,
            "hidden_size": 32,
            "intermediate_size": 44,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_memory_tokens": 5,
            "global_attn_idx": [0, 4],
            "sliding_window": 11,
            "kv_reuse_group": [[1, 2, 3]],
            "kq_norm": "none",
            "rope": True,
            "rope_theta": 100.0,
            "rope_type": "ntk",
            "max_position_embeddings": 128,
            "orig_max_position_embeddings": 64,
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_dt_rank": 3,
            "mamba_conv_bias": True,
            "mamba_proj_bias": False,
            "mamba_inner_layernorms": True,
            "hidden_act": "silu",
            "mlp_hidden_act": "silu",
            "num_experts": 1,
            "rms_norm_eps": EPSILON,
            "tie_word_embeddings": True,
        },
        store=torch.bfloat16,
    )
