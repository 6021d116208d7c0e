// SPDX-License-Identifier: Apache-2.0
//
// Configs of hymba (Dong et al. 2024, arXiv:2411.13676), with the field names
// and defaults of its published code.
#include <cmath>

#include "models/config_parse.h"

namespace seqmark {
namespace {

// Which layers read an earlier one's keys and values: the first of a group
// makes them for the others.
void ReadKvReuse(FieldReader& r, ModelConfig& c) {
  const char* const key = "kv_reuse_group";
  auto& source = c.attention.kv_source;
  const int64_t layers = source.size();
  const int64_t every = r.Int("kv_reuse_every_i_layer", {-1, kLayers.max}, -1);
  const nlohmann::json* const groups = r.Find(key);
  if (!groups) {
    if (every > 0)
      for (int64_t i = 0; i < layers; ++i) source[i] = i - i % every;
    return;
  }
  const auto wrong = [&] {
    r.Wrong(key, absl::StrCat("a list of ascending lists of layers below ",
                              layers, " (num_hidden_layers), each layer once"));
  };
  if (!groups->is_array()) return wrong();
  std::vector<bool> seen(layers, false);
  for (const auto& group : *groups) {
    if (!group.is_array() || group.empty()) return wrong();
    int64_t last = -1;
    for (const auto& layer : group) {
      if (!layer.is_number_unsigned() ||
          layer.get<uint64_t>() >= static_cast<uint64_t>(layers))
        return wrong();
      const int64_t i = layer.get<int64_t>();
      if (i <= last || seen[i]) return wrong();
      seen[i] = true;
      last = i;
      source[i] = group[0].get<int64_t>();
    }
  }
}

}  // namespace

void ParseHymba(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kHymba;
  ReadWidths(r, c, /*tied_by_default=*/false);
  const int64_t layers = r.Int("num_hidden_layers", kLayers);
  c.pattern = Repeat("P-", layers);
  c.norm_epsilon = r.Number("rms_norm_eps", kEpsilon);
  c.max_position = r.Int("max_position_embeddings", {2, kPositions.max});
  c.ssm.version = 1;
  Mamba1Config& m = c.mamba1;
  m.d_inner = c.hidden * r.Int("mamba_expand", kHeads, 2);
  CheckWidth(r, "hidden_size * mamba_expand", m.d_inner);
  m.d_state = r.Int("mamba_d_state", kSmall);
  m.d_conv = r.Int("mamba_d_conv", kSmall, 4);
  const nlohmann::json* const rank = r.Find("mamba_dt_rank");
  m.dt_rank = !rank || *rank == "auto" ? (c.hidden + 15) / 16
                                       : r.Int("mamba_dt_rank", kWidth);
  m.conv_bias = r.Bool("mamba_conv_bias", true);
  m.proj_bias = r.Bool("mamba_proj_bias", false);
  m.inner_norms = r.Bool("mamba_inner_layernorms", true);
  ReadHeads(r, c);
  AttentionConfig& a = c.attention;
  // One projection gives q, k and v; v is as wide as Mamba's inner width.
  if (CheckMultiple(r, "mamba_expand", m.d_inner, "num_attention_heads",
                    a.heads))
    a.value_head_dim = m.d_inner / a.heads;
  a.qkv_bias = m.proj_bias;
  if (r.String("kq_norm", "none") != "none") r.Wrong("kq_norm", "none");
  if (r.Bool("rope", true)) {
    RopeConfig& rope = c.rope;
    rope.kind = RopeKind::kDefault;
    rope.rotary_dim = a.head_dim;
    if (a.head_dim % 2 != 0 || a.head_dim < 4)
      r.Wrong("hidden_size", "an even number, 4 or more, a head");
    rope.theta = r.Number("rope_theta", kPositive, 10000);
    rope.original_max_position = c.max_position;
    const std::string type = r.String("rope_type", "default");
    if (type == "ntk") {
      // A longer context through a greater base, as Hymba's code has it.
      const double stretch =
          2.0 * c.max_position /
              r.Int("orig_max_position_embeddings",
                    {1, static_cast<double>(c.max_position)}) -
          1;
      rope.theta *= std::pow(stretch, a.head_dim / (a.head_dim - 2.0));
    } else if (type != "default") {
      r.Wrong("rope_type", "default or ntk");
    }
  }
  const int64_t window = r.Int("sliding_window", kPositions, 0);
  std::vector<int64_t> windows(layers, window);
  for (int64_t layer :
       r.Ints("global_attn_idx", kLayers.max, {0, layers - 1.0}))
    windows[layer] = 0;
  SetWindows(c, std::move(windows));
  ReadKvReuse(r, c);
  c.mlp.intermediate = r.Int("intermediate_size", kWidth);
  c.mlp.activation = ReadActivation(r, "mlp_hidden_act", "silu");
  c.mlp.gated = c.mlp.activation == ActivationFunction::kSilu;
  c.hymba.meta_tokens = r.Int("num_memory_tokens", {0, kWidth.max}, 0);
}

}  // namespace seqmark
