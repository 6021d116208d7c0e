// SPDX-License-Identifier: Apache-2.0
//
// Configs of hybrids with Mamba-2: nemotron_h, falcon_h1 and zamba2, with their
// field names and defaults.
#include <algorithm>
#include <cmath>

#include "models/config_parse.h"

namespace seqmark {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A list of layer kinds, one letter each; '?' for a kind not known.
std::string ReadBlockTypes(FieldReader& r, absl::string_view key,
                           absl::string_view hybrid_letter) {
  std::string pattern;
  for (const std::string& type : r.Strings(key, kLayers.max)) {
    if (type == "mamba" || type == "linear_attention")
      pattern += 'M';
    else if (type == "attention" || type == "full_attention")
      pattern += '*';
    else if (type == "mlp")
      pattern += '-';
    else if (type == "hybrid" && !hybrid_letter.empty())
      pattern += hybrid_letter[0];
    else
      r.Wrong(key,
              "a list of mamba, attention, mlp or hybrid layers that this "
              "model_type has");
  }
  return pattern;
}

void CheckLayerCount(FieldReader& r, absl::string_view key,
                     absl::string_view pattern) {
  const int64_t layers = pattern.size();
  if (layers == 0) r.Wrong(key, "one letter or kind a layer");
  if (r.Int("num_hidden_layers", kLayers, layers) != layers)
    r.Wrong("num_hidden_layers",
            absl::StrCat("the length of ", key, ", ", layers));
}

void CheckSsmWidth(FieldReader& r, const Mamba2Config& m,
                   absl::string_view heads, absl::string_view groups) {
  CheckWidth(r, absl::StrCat(heads, " * head_dim"), m.d_inner());
  CheckMultiple(r, heads, m.heads, groups, m.groups);
}

void ReadMultipliers(FieldReader& r, Multipliers& m) {
  m.embedding = r.Number("embedding_multiplier", kFactor, 1);
  m.lm_head = r.Number("lm_head_multiplier", kFactor, 1);
  m.attention_in = r.Number("attention_in_multiplier", kFactor, 1);
  m.attention_out = r.Number("attention_out_multiplier", kFactor, 1);
  m.key = r.Number("key_multiplier", kFactor, 1);
  m.ssm_in = r.Number("ssm_in_multiplier", kFactor, 1);
  m.ssm_out = r.Number("ssm_out_multiplier", kFactor, 1);
  const auto mlp = r.Numbers("mlp_multipliers", 2, kFactor, {1, 1});
  m.mlp_gate = mlp[0];
  m.mlp_down = mlp[1];
  const auto ssm = r.Numbers("ssm_multipliers", 5, kFactor, {1, 1, 1, 1, 1});
  m.ssm_z = ssm[0];
  m.ssm_x = ssm[1];
  m.ssm_b = ssm[2];
  m.ssm_c = ssm[3];
  m.ssm_dt = ssm[4];
}

}  // namespace

void ParseNemotronH(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kBackbone;
  ReadWidths(r, c, /*tied_by_default=*/false);
  // Transformers ties none of its nemotron_h models, whatever the field says.
  c.tie_embeddings = false;
  absl::string_view key = "hybrid_override_pattern";
  if (r.Has(key)) {
    c.pattern = r.String(key);
  } else {
    key = r.Has("layers_block_type") ? "layers_block_type" : "layer_types";
    c.pattern = ReadBlockTypes(r, key, "");
  }
  CheckLayerCount(r, key, c.pattern);
  for (char letter : c.pattern)
    if (letter != 'M' && letter != '*' && letter != '-')
      r.Wrong(key, "of M (Mamba-2), * (attention) and - (MLP)");
  c.norm_epsilon = r.Number("layer_norm_epsilon", kEpsilon);
  c.residual_in_f32 = r.Bool("residual_in_fp32", false);
  c.max_position = r.Int("max_position_embeddings", kPositions, 0);
  const int64_t attention_layers =
      std::count(c.pattern.begin(), c.pattern.end(), '*');
  if (attention_layers > 0 || r.Has("num_attention_heads")) {
    ReadHeads(r, c);
    c.attention.qkv_bias = r.Bool("attention_bias", false);
    c.attention.o_bias = c.attention.qkv_bias;
    const int64_t window = r.Int("sliding_window", kPositions, 0);
    SetWindows(c, std::vector<int64_t>(attention_layers, window));
  }
  c.mlp.intermediate = r.Int("intermediate_size", kWidth);
  c.mlp.activation = ReadActivation(r, "mlp_hidden_act", "relu2");
  c.mlp.bias = r.Bool("mlp_bias", false);
  c.ssm.version = 2;
  Mamba2Config& m = c.mamba2;
  m.heads = r.Int("mamba_num_heads", kHeads);
  m.head_dim = r.Int("mamba_head_dim", kSmall);
  m.groups = r.Int("n_groups", kHeads);
  CheckSsmWidth(r, m, "mamba_num_heads", "n_groups");
  m.d_state = r.Int("ssm_state_size", kSmall);
  m.d_conv = r.Int("conv_kernel", kSmall);
  m.chunk = r.Int("chunk_size", kSmall, 128);
  m.conv_bias = r.Bool("use_conv_bias", true);
  m.proj_bias = r.Bool("use_bias", false);
  m.norm_groups = m.groups;
  m.norm_epsilon = c.norm_epsilon;
  // Transformers clamps from below by time_step_min, whatever time_step_limit.
  m.dt_min = r.Number("time_step_min", {0, kInfinity}, 0.001);
  m.dt_max = kInfinity;
}

void ParseFalconH1(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kFalconH1;
  ReadWidths(r, c, /*tied_by_default=*/false);
  const int64_t layers = r.Int("num_hidden_layers", kLayers);
  c.pattern = Repeat("H-", layers);
  c.norm_epsilon = r.Number("rms_norm_eps", kEpsilon);
  c.max_position = r.Int("max_position_embeddings", kPositions);
  ReadHeads(r, c);
  c.attention.qkv_bias = r.Bool("attention_bias", false);
  c.attention.o_bias = c.attention.qkv_bias;
  ReadRope(r, c);
  SetWindows(c, std::vector<int64_t>(layers, 0));
  c.mlp.intermediate = r.Int("intermediate_size", kWidth);
  c.mlp.activation = ReadActivation(r, "hidden_act", "silu");
  c.mlp.gated = true;
  c.mlp.bias = r.Bool("mlp_bias", false);
  c.ssm.version = 2;
  Mamba2Config& m = c.mamba2;
  m.heads = r.Int("mamba_n_heads", kHeads);
  const int64_t d_inner = r.Has("mamba_d_ssm")
                              ? r.Int("mamba_d_ssm", kWidth)
                              : c.hidden * r.Int("mamba_expand", kHeads, 2);
  if (CheckMultiple(r, "mamba_d_ssm", d_inner, "mamba_n_heads", m.heads))
    m.head_dim = d_inner / m.heads;
  const nlohmann::json* const head_dim = r.Find("mamba_d_head");
  if (head_dim && *head_dim != "auto" &&
      r.Int("mamba_d_head", kSmall) != m.head_dim)
    r.Wrong("mamba_d_head",
            absl::StrCat("mamba_d_ssm / mamba_n_heads, ", m.head_dim));
  m.groups = r.Int("mamba_n_groups", kHeads, 1);
  CheckSsmWidth(r, m, "mamba_n_heads", "mamba_n_groups");
  m.d_state = r.Int("mamba_d_state", kSmall);
  m.d_conv = r.Int("mamba_d_conv", kSmall, 4);
  m.chunk = r.Int("mamba_chunk_size", kSmall, 256);
  m.conv_bias = r.Bool("mamba_conv_bias", true);
  m.proj_bias = r.Bool("mamba_proj_bias", false);
  if (r.Bool("projectors_bias", m.proj_bias) != m.proj_bias)
    r.Wrong("projectors_bias", "the same as mamba_proj_bias");
  m.gated_norm = r.Bool("mamba_rms_norm", false);
  m.norm_before_gate = r.Bool("mamba_norm_before_gate", true);
  m.norm_groups = m.groups;
  m.norm_epsilon = c.norm_epsilon;
  ReadStepLimits(r, "time_step_limit", m);
  ReadMultipliers(r, c.multipliers);
  // The head then is the embedding, and its multiplier relative to it.
  if (c.tie_embeddings && c.multipliers.embedding == 0)
    r.Wrong("embedding_multiplier", "other than 0 for tied embeddings");
}

void ParseZamba2(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kZamba2;
  ReadWidths(r, c, /*tied_by_default=*/true);
  c.pattern = ReadBlockTypes(r, "layers_block_type", "S");
  CheckLayerCount(r, "layers_block_type", c.pattern);
  if (c.pattern.find_first_not_of("MS") != std::string::npos)
    r.Wrong("layers_block_type", "a list of mamba and hybrid");
  const int64_t uses = std::count(c.pattern.begin(), c.pattern.end(), 'S');
  c.norm_epsilon = r.Number("rms_norm_eps", kEpsilon);
  c.max_position = r.Bool("use_long_context", false)
                       ? 16384
                       : r.Int("max_position_embeddings", kPositions);
  AttentionConfig& a = c.attention;
  a.heads = r.Int("num_attention_heads", kHeads);
  a.kv_heads = a.heads;
  if (r.Int("num_key_value_heads", kHeads, a.heads) != a.heads)
    r.Wrong("num_key_value_heads",
            absl::StrCat("num_attention_heads, ", a.heads));
  a.input_width = 2 * c.hidden;  // hidden state and embedding, side by side
  CheckWidth(r, "twice hidden_size", a.input_width);
  if (a.input_width % a.heads != 0)
    r.Wrong("num_attention_heads",
            absl::StrCat("a divisor of twice hidden_size, ", a.input_width));
  a.head_dim = a.value_head_dim = a.input_width / a.heads;
  a.score_scale = 1 / std::sqrt(a.head_dim / 2.0);
  if (r.Bool("use_mem_rope", false)) ReadRope(r, c);
  SetWindows(c, std::vector<int64_t>(uses, 0));
  c.mlp.intermediate = r.Int("intermediate_size", kWidth, 4 * c.hidden);
  CheckWidth(r, "intermediate_size", c.mlp.intermediate);
  c.mlp.activation = ReadActivation(r, "hidden_act", "gelu");
  c.mlp.gated = true;
  c.mlp.bias = r.Bool("add_bias_linear", false);
  c.zamba2.blocks = r.Int("num_mem_blocks", {1, kLayers.max}, 1);
  c.zamba2.adapter_rank = r.Int("adapter_rank", kSmall, 128);
  c.zamba2.attention_adapters = r.Bool("use_shared_attention_adapter", false);
  c.ssm.version = 2;
  Mamba2Config& m = c.mamba2;
  const int64_t d_inner = c.hidden * r.Int("mamba_expand", kHeads, 2);
  m.heads = r.Int("n_mamba_heads", kHeads);
  if (CheckMultiple(r, "mamba_expand", d_inner, "n_mamba_heads", m.heads))
    m.head_dim = d_inner / m.heads;
  m.groups = r.Int("mamba_ngroups", kHeads, 1);
  CheckSsmWidth(r, m, "n_mamba_heads", "mamba_ngroups");
  m.d_state = r.Int("mamba_d_state", kSmall);
  m.d_conv = r.Int("mamba_d_conv", kSmall, 4);
  m.chunk = r.Int("chunk_size", kSmall, 256);
  m.conv_bias = r.Bool("use_conv_bias", true);
  m.proj_bias = c.mlp.bias;
  m.norm_groups = m.groups;
  m.norm_epsilon = 1e-5;  // fixed, whatever rms_norm_eps
  m.dt_min = r.Number("time_step_min", {0, kInfinity}, 0.001);
  m.dt_max = kInfinity;
}

}  // namespace seqmark
