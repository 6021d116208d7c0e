// SPDX-License-Identifier: Apache-2.0
#include "models/checkpoint_names.h"

namespace seqmark {
namespace {

constexpr CheckpointNames kLlama = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .layers = "model.layers.",
    .norm = "input_layernorm",
    .mlp_norm = "post_attention_layernorm",
    .attention = "self_attn.",
    .o_proj = "self_attn.o_proj",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
};

constexpr CheckpointNames kPhi3 = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .layers = "model.layers.",
    .norm = "input_layernorm",
    .mlp_norm = "post_attention_layernorm",
    .fused_qkv = "self_attn.qkv_proj",
    .o_proj = "self_attn.o_proj",
    .fused_up = "mlp.gate_up_proj",
    .down = "mlp.down_proj",
};

constexpr CheckpointNames kGptNeo = {
    .embedding = "transformer.wte",
    .final_norm = "transformer.ln_f",
    .layers = "transformer.h.",
    .norm = "ln_1",
    .mlp_norm = "ln_2",
    .attention = "attn.attention.",
    .o_proj = "attn.attention.out_proj",
    .up = "mlp.c_fc",
    .down = "mlp.c_proj",
};

constexpr CheckpointNames kBackbone = {
    .embedding = "backbone.embeddings",
    .final_norm = "backbone.norm_f",
    .layers = "backbone.layers.",
    .layer_per_sub_layer = true,
    .norm = "norm",
    .mlp_norm = "norm",
    .attention = "mixer.",
    .o_proj = "mixer.o_proj",
    .up = "mixer.up_proj",
    .down = "mixer.down_proj",
    .mamba = "mixer.",
    .parameter = "",
};

constexpr CheckpointNames kMambaSsm = {
    .embedding = "backbone.embedding",
    .final_norm = "backbone.norm_f",
    .layers = "backbone.layers.",
    .norm = "norm",
    .mlp_norm = "norm2",
    .fused_qkv = "mixer.in_proj",
    .o_proj = "mixer.out_proj",
    .fused_up = "mlp.fc1",
    .up_before_gate = true,
    .down = "mlp.fc2",
    .mamba = "mixer.",
    .parameter = "",
};

constexpr CheckpointNames kFalconH1 = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.final_layernorm",
    .layers = "model.layers.",
    .norm = "input_layernorm",
    .mlp_norm = "pre_ff_layernorm",
    .attention = "self_attn.",
    .o_proj = "self_attn.o_proj",
    .gate = "feed_forward.gate_proj",
    .up = "feed_forward.up_proj",
    .down = "feed_forward.down_proj",
    .mamba = "mamba.",
    .parameter = "",
};

// The S layers' Mamba is one level deeper, their block elsewhere: both are
// written out where they are used.
constexpr CheckpointNames kZamba2 = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.final_layernorm",
    .layers = "model.layers.",
    .layer_per_sub_layer = true,
    .norm = "input_layernorm",
    .mamba = "mamba.",
    .parameter = "",
};

constexpr CheckpointNames kHymba = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.final_layernorm",
    .layers = "model.layers.",
    .norm = "input_layernorm",
    .mlp_norm = "pre_moe_layernorm",
    .gate = "moe.experts.0.gate_proj",
    .up = "moe.experts.0.up_proj",
    .down = "moe.experts.0.down_proj",
    .mamba = "mamba.",
    .parameter = ".0",
};

}  // namespace

const CheckpointNames& NamesOf(CheckpointFormat format) {
  switch (format) {
    case CheckpointFormat::kNone:
    case CheckpointFormat::kLlama:
      return kLlama;
    case CheckpointFormat::kPhi3:
      return kPhi3;
    case CheckpointFormat::kGptNeo:
      return kGptNeo;
    case CheckpointFormat::kBackbone:
      return kBackbone;
    case CheckpointFormat::kMambaSsm:
      return kMambaSsm;
    case CheckpointFormat::kFalconH1:
      return kFalconH1;
    case CheckpointFormat::kZamba2:
      return kZamba2;
    case CheckpointFormat::kHymba:
      return kHymba;
  }
  return kLlama;
}

}  // namespace seqmark
