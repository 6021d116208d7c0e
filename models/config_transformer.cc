// SPDX-License-Identifier: Apache-2.0
//
// Configs of models of attention and MLP: qwen2, llama, nemotron, phi3 and
// gpt_neo, with Transformers' field names and defaults.
#include "models/config_parse.h"

namespace seqmark {
namespace {

// Which layers see a window. Transformers 5 lists it by layer; before, qwen2
// had a first layer and phi3 all or none.
std::vector<int64_t> ReadWindows(absl::string_view type, FieldReader& r,
                                 int64_t layers) {
  std::vector<int64_t> windows(layers, 0);
  const int64_t window = r.Int("sliding_window", kPositions, 0);
  if (type == "phi3") {
    windows.assign(layers, window);
  } else if (type == "qwen2" && r.Bool("use_sliding_window", false)) {
    if (window == 0) r.Wrong("sliding_window", "the window's length");
    const int64_t first = r.Int("max_window_layers", {0, kLayers.max}, 28);
    for (int64_t i = first; i < layers; ++i) windows[i] = window;
  }
  if (!r.Has("layer_types")) return windows;
  const auto types = r.Strings("layer_types", kLayers.max);
  if (static_cast<int64_t>(types.size()) != layers) {
    r.Wrong("layer_types", absl::StrCat("one of each of the ", layers,
                                        " layers (num_hidden_layers)"));
    return windows;
  }
  for (int64_t i = 0; i < layers; ++i) {
    if (types[i] == "sliding_attention" && window > 0)
      windows[i] = window;
    else if (types[i] == "full_attention")
      windows[i] = 0;
    else
      r.Wrong("layer_types",
              "full_attention, or sliding_attention and a sliding_window");
  }
  return windows;
}

// [[["global", "local"], 6]]: the kinds, that many times over.
std::vector<int64_t> ReadAttentionTypes(FieldReader& r, int64_t layers) {
  const char* const key = "attention_types";
  const int64_t window = r.Int("window_size", kPositions, 256);
  std::vector<int64_t> windows;
  const auto wrong = [&] {
    r.Wrong(key, absl::StrCat(
                     "a list of [[\"global\" or \"local\", ...], times] for ",
                     layers, " layers (num_layers) in all"));
    return std::vector<int64_t>(layers, 0);
  };
  const nlohmann::json* const types = r.Find(key);
  if (!types || !types->is_array()) return wrong();
  for (const auto& group : *types) {
    if (!group.is_array() || group.size() != 2 || !group[0].is_array() ||
        group[0].empty() || !group[1].is_number_unsigned())
      return wrong();
    const auto times = group[1].get<uint64_t>();
    if (times > static_cast<uint64_t>(layers)) return wrong();
    for (uint64_t i = 0; i < times; ++i)
      for (const auto& kind : group[0]) {
        if (kind != "global" && kind != "local") return wrong();
        windows.push_back(kind == "local" ? window : 0);
        if (static_cast<int64_t>(windows.size()) > layers) return wrong();
      }
  }
  if (static_cast<int64_t>(windows.size()) != layers) return wrong();
  return windows;
}

}  // namespace

void ParseDecoder(absl::string_view type, FieldReader& r, ModelConfig& c) {
  const bool nemotron = type == "nemotron";
  c.format =
      type == "phi3" ? CheckpointFormat::kPhi3 : CheckpointFormat::kLlama;
  ReadWidths(r, c, /*tied_by_default=*/false);
  const int64_t layers = r.Int("num_hidden_layers", kLayers);
  c.pattern = Repeat("*-", layers);
  c.norm = nemotron ? NormKind::kLayer1p : NormKind::kRms;
  c.norm_epsilon = r.Number(nemotron ? "norm_eps" : "rms_norm_eps", kEpsilon);
  c.max_position = r.Int("max_position_embeddings", kPositions);
  ReadHeads(r, c);
  if (type == "qwen2") {
    c.attention.qkv_bias = true;
  } else if (type != "phi3") {
    c.attention.qkv_bias = r.Bool("attention_bias", false);
    c.attention.o_bias = c.attention.qkv_bias;
    c.mlp.bias = r.Bool("mlp_bias", false);
  }
  ReadRope(r, c, nemotron ? 0.5 : 1);
  SetWindows(c, ReadWindows(type, r, layers));
  c.mlp.intermediate = r.Int("intermediate_size", kWidth);
  c.mlp.activation =
      ReadActivation(r, "hidden_act", nemotron ? "relu2" : "silu");
  c.mlp.gated = !nemotron;
}

void ParseGptNeo(FieldReader& r, ModelConfig& c) {
  c.format = CheckpointFormat::kGptNeo;
  ReadWidths(r, c, /*tied_by_default=*/true);
  const int64_t layers = r.Int("num_layers", kLayers);
  c.pattern = Repeat("*-", layers);
  c.norm = NormKind::kLayer;
  c.norm_epsilon = r.Number("layer_norm_epsilon", kEpsilon);
  c.max_position = r.Int("max_position_embeddings", {1, kWidth.max});
  c.learned_positions = true;
  AttentionConfig& a = c.attention;
  a.heads = a.kv_heads = r.Int("num_heads", kHeads);
  if (CheckMultiple(r, "hidden_size", c.hidden, "num_heads", a.heads))
    a.head_dim = c.hidden / a.heads;
  a.value_head_dim = a.head_dim;
  a.input_width = c.hidden;
  a.o_bias = true;
  a.score_scale = 1;  // GPT-Neo does not scale its scores
  SetWindows(c, ReadAttentionTypes(r, layers));
  c.mlp.intermediate = r.Int("intermediate_size", kWidth, 4 * c.hidden);
  CheckWidth(r, "intermediate_size", c.mlp.intermediate);
  c.mlp.activation = ReadActivation(r, "activation_function", "gelu_new");
  c.mlp.bias = true;
}

}  // namespace seqmark
