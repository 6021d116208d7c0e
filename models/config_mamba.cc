// SPDX-License-Identifier: Apache-2.0
//
// Configs of models of Mamba layers: Transformers' mamba and mamba2, and
// mamba_ssm's own form, with their defaults.
#include <algorithm>
#include <cmath>

#include "models/config_parse.h"

namespace seqmark {
namespace {

// A number, or "auto" for ceil(hidden / 16).
int64_t ReadStepRank(FieldReader& r, absl::string_view key, int64_t hidden) {
  const nlohmann::json* const value = r.Find(key);
  if (!value || *value == "auto") return (hidden + 15) / 16;
  return r.Int(key, kWidth);
}

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void ReadMambaSsmLayer(FieldReader& s, ModelConfig& c) {
  const std::string layer = s.String("layer", "Mamba1");
  const int64_t d_inner = c.hidden * s.Int("expand", kHeads, 2);
  CheckWidth(s, "d_model * ssm_cfg.expand", d_inner);
  if (layer == "Mamba1") {
    c.ssm.version = 1;
    Mamba1Config& m = c.mamba1;
    m.d_inner = d_inner;
    m.d_state = s.Int("d_state", kSmall, 16);
    m.d_conv = s.Int("d_conv", kSmall, 4);
    m.dt_rank = ReadStepRank(s, "dt_rank", c.hidden);
    m.conv_bias = s.Bool("conv_bias", true);
    m.proj_bias = s.Bool("bias", false);
  } else if (layer == "Mamba2") {
    c.ssm.version = 2;
    Mamba2Config& m = c.mamba2;
    m.head_dim = s.Int("headdim", kSmall, 64);
    if (CheckMultiple(s, "expand", d_inner, "headdim", m.head_dim))
      m.heads = d_inner / m.head_dim;
    if (s.Int("d_ssm", kWidth, d_inner) != d_inner)
      s.Wrong("d_ssm", absl::StrCat("d_model * expand, ", d_inner));
    if (s.Bool("D_has_hdim", false)) s.Wrong("D_has_hdim", "false");
    m.groups = s.Int("ngroups", kHeads, 1);
    CheckMultiple(s, "headdim", m.heads, "ngroups", m.groups);
    m.d_state = s.Int("d_state", kSmall, 128);
    m.d_conv = s.Int("d_conv", kSmall, 4);
    m.chunk = s.Int("chunk_size", kSmall, 256);
    m.conv_bias = s.Bool("conv_bias", true);
    m.proj_bias = s.Bool("bias", false);
    m.gated_norm = s.Bool("rmsnorm", true);
    m.norm_before_gate = s.Bool("norm_before_gate", false);
    m.norm_groups = m.groups;
    ReadStepLimits(s, "dt_limit", m);
  } else {
    s.Wrong("layer", "Mamba1 or Mamba2");
  }
}

// mamba_ssm's MHA (modules/mha.py) without its optional convolution and MLP.
void ReadMambaSsmAttention(FieldReader& a, ModelConfig& c) {
  AttentionConfig& attention = c.attention;
  attention.heads = a.Int("num_heads", kHeads);
  attention.kv_heads = a.Int("num_heads_kv", kHeads, attention.heads);
  CheckMultiple(a, "num_heads", attention.heads, "num_heads_kv",
                attention.kv_heads);
  attention.head_dim = a.Int("head_dim", kSmall, c.hidden / attention.heads);
  if (attention.head_dim < 1)
    a.Wrong("num_heads", absl::StrCat("at most d_model, ", c.hidden));
  CheckWidth(a, "attn_cfg.num_heads * head_dim",
             attention.heads * attention.head_dim);
  attention.value_head_dim = attention.head_dim;
  attention.input_width = c.hidden;
  attention.qkv_bias = a.Bool("qkv_proj_bias", true);
  attention.o_bias = a.Bool("out_proj_bias", true);
  attention.score_scale =
      1 / std::sqrt(std::max<int64_t>(attention.head_dim, 1));
  attention.score_scale =
      a.Number("softmax_scale", kPositive, attention.score_scale);
  if (!a.Bool("causal", false)) a.Wrong("causal", "true");
  for (const char* key : {"d_conv", "mlp_dim"})
    if (a.Int(key, {0, kWidth.max}, 0) != 0) a.Wrong(key, "0");
  if (a.Bool("rotary_emb_interleaved", false))
    a.Wrong("rotary_emb_interleaved", "false");
  c.rope.rotary_dim = a.Int("rotary_emb_dim", {0, kSmall.max}, 0);
  if (c.rope.rotary_dim % 2 != 0 || c.rope.rotary_dim > attention.head_dim)
    a.Wrong("rotary_emb_dim", "even and at most head_dim");
  if (c.rope.rotary_dim == 0) return;
  c.rope.kind = RopeKind::kDefault;
  c.rope.theta = a.Number("rotary_emb_base", kPositive, 10000);
}

}  // namespace

void ParseMamba(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kBackbone;
  ReadWidths(r, c, /*tied_by_default=*/true);
  c.pattern = Repeat("M", r.Int("num_hidden_layers", kLayers));
  c.norm_epsilon = r.Number("layer_norm_epsilon", kEpsilon, 1e-5);
  c.residual_in_f32 = r.Bool("residual_in_fp32", true);
  c.ssm.version = 1;
  Mamba1Config& m = c.mamba1;
  m.d_inner = c.hidden * r.Int("expand", kHeads, 2);
  CheckWidth(r, "hidden_size * expand", m.d_inner);
  if (r.Int("intermediate_size", kWidth, m.d_inner) != m.d_inner)
    r.Wrong("intermediate_size",
            absl::StrCat("hidden_size * expand, ", m.d_inner));
  m.d_state = r.Int("state_size", kSmall);
  m.d_conv = r.Int("conv_kernel", kSmall, 4);
  m.dt_rank = ReadStepRank(r, "time_step_rank", c.hidden);
  m.conv_bias = r.Bool("use_conv_bias", true);
  m.proj_bias = r.Bool("use_bias", false);
}

void ParseMamba2(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kBackbone;
  ReadWidths(r, c, /*tied_by_default=*/false);
  c.pattern = Repeat("M", r.Int("num_hidden_layers", kLayers));
  c.norm_epsilon = r.Number("layer_norm_epsilon", kEpsilon, 1e-5);
  c.residual_in_f32 = r.Bool("residual_in_fp32", true);
  c.ssm.version = 2;
  Mamba2Config& m = c.mamba2;
  m.heads = r.Int("num_heads", kHeads);
  m.head_dim = r.Int("head_dim", kSmall);
  const int64_t d_inner = c.hidden * r.Int("expand", kHeads, 2);
  CheckWidth(r, "hidden_size * expand", d_inner);
  if (m.d_inner() != d_inner)
    r.Wrong("num_heads", absl::StrCat("hidden_size * expand / head_dim, that ",
                                      "is ", d_inner, " / ", m.head_dim));
  m.groups = r.Int("n_groups", kHeads);
  CheckMultiple(r, "num_heads", m.heads, "n_groups", m.groups);
  m.d_state = r.Int("state_size", kSmall);
  m.d_conv = r.Int("conv_kernel", kSmall, 4);
  m.chunk = r.Int("chunk_size", kSmall, 256);
  m.conv_bias = r.Bool("use_conv_bias", true);
  m.proj_bias = r.Bool("use_bias", false);
  m.norm_groups = 1;  // Transformers' gated norm knows no groups
  m.norm_epsilon = c.norm_epsilon;
  ReadStepLimits(r, "time_step_limit", m);
}

void ParseMambaSsm(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kMambaSsm;
  c.hidden = r.Int("d_model", kWidth);
  c.vocab = RoundUp(r.Int("vocab_size", kVocab),
                    r.Int("pad_vocab_size_multiple", kSmall, 8));
  c.tie_embeddings = r.Bool("tie_embeddings", true);
  c.norm = r.Bool("rms_norm", true) ? NormKind::kRms : NormKind::kLayer;
  c.residual_in_f32 = r.Bool("residual_in_fp32", true);
  const int64_t layers = r.Int("n_layer", kLayers);
  std::string mixers(layers, 'M');
  const auto attention_layers =
      r.Ints("attn_layer_idx", kLayers.max, {0, layers - 1.0});
  for (int64_t layer : attention_layers) mixers[layer] = '*';
  FieldReader ssm = r.Object("ssm_cfg");
  ReadMambaSsmLayer(ssm, c);
  if (!attention_layers.empty()) {
    FieldReader attention = r.Object("attn_cfg");
    ReadMambaSsmAttention(attention, c);
    SetWindows(c, std::vector<int64_t>(
                      std::count(mixers.begin(), mixers.end(), '*'), 0));
  }
  // GatedMLP rounds its width up to a multiple of 128.
  c.mlp.intermediate =
      RoundUp(r.Int("d_intermediate", {0, kWidth.max}, 0), 128);
  c.mlp.gated = true;
  for (char mixer : mixers) {
    c.pattern += mixer;
    if (c.mlp.intermediate > 0) c.pattern += '-';
  }
}

}  // namespace seqmark
