// SPDX-License-Identifier: Apache-2.0
#include "models/config_parse.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace seqmark {

bool CheckMultiple(FieldReader& r, absl::string_view whole_name, int64_t whole,
                   absl::string_view part_name, int64_t part) {
  if (part > 0 && whole % part == 0) return true;
  r.Fail(r.Field(whole_name), " is ", whole, ", must be a multiple of ",
         part_name, ", ", part);
  return false;
}

bool CheckWidth(FieldReader& r, absl::string_view what, int64_t width) {
  if (width >= kWidth.min && width <= kWidth.max) return true;
  r.Fail(what, " is ", width, ", must be from ", kWidth.min, " to ",
         kWidth.max);
  return false;
}

void ReadWidths(FieldReader& r, ModelConfig& c, bool tied_by_default) {
  c.hidden = r.Int("hidden_size", kWidth);
  c.vocab = r.Int("vocab_size", kVocab);
  c.tie_embeddings = r.Bool("tie_word_embeddings", tied_by_default);
}

void ReadHeads(FieldReader& r, ModelConfig& c) {
  AttentionConfig& a = c.attention;
  a.heads = r.Int("num_attention_heads", kHeads);
  a.kv_heads = r.Int("num_key_value_heads", kHeads, a.heads);
  CheckMultiple(r, "num_attention_heads", a.heads, "num_key_value_heads",
                a.kv_heads);
  if (r.Has("head_dim"))
    a.head_dim = r.Int("head_dim", kSmall);
  else if (CheckMultiple(r, "hidden_size", c.hidden, "num_attention_heads",
                         a.heads))
    a.head_dim = c.hidden / a.heads;
  CheckWidth(r, "num_attention_heads * head_dim", a.heads * a.head_dim);
  a.value_head_dim = a.head_dim;
  a.input_width = c.hidden;
  a.score_scale = 1 / std::sqrt(std::max<int64_t>(a.head_dim, 1));
}

void ReadRope(FieldReader& r, ModelConfig& c, double partial_by_default) {
  RopeConfig& rope = c.rope;
  const char* const key =
      r.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  FieldReader p = r.Object(key);
  const double theta = r.Number("rope_theta", kPositive, 10000);
  rope.theta = p.Number("rope_theta", kPositive, theta);
  const Range kPart = {1e-6, 1};
  const double partial =
      r.Number("partial_rotary_factor", kPart, partial_by_default);
  rope.rotary_dim = static_cast<int64_t>(
      c.attention.head_dim * p.Number("partial_rotary_factor", kPart, partial));
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0)
    r.Fail("the rotated part of a head is ", rope.rotary_dim,
           " elements (head_dim ", c.attention.head_dim,
           " times partial_rotary_factor), must be even and at least 2");
  const int64_t original = r.Int("original_max_position_embeddings",
                                 {2, kPositions.max}, c.max_position);
  rope.original_max_position =
      p.Int("original_max_position_embeddings", {2, kPositions.max}, original);
  const std::string type = p.String("rope_type", p.String("type", "default"));
  if (type == "default") {
    rope.kind = RopeKind::kDefault;
  } else if (type == "llama3") {
    rope.kind = RopeKind::kLlama3;
    rope.factor = p.Number("factor", kPositive);
    rope.low_freq_factor = p.Number("low_freq_factor", kPositive);
    rope.high_freq_factor = p.Number("high_freq_factor", kPositive);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      p.Wrong("high_freq_factor", "greater than low_freq_factor");
  } else if (type == "longrope" || type == "su") {
    rope.kind = RopeKind::kLongRope;
    for (const char* factors : {"short_factor", "long_factor"})
      if (!p.Has(factors)) p.Wrong(factors, "a list of numbers");
    const size_t count = std::max<int64_t>(rope.rotary_dim, 0) / 2;
    rope.short_factor = p.Numbers("short_factor", count, kPositive, {});
    rope.long_factor = p.Numbers("long_factor", count, kPositive, {});
    const double scale = p.Number(
        "factor", kPositive,
        static_cast<double>(c.max_position) / rope.original_max_position);
    rope.attention_factor =
        p.Number("attention_factor", kPositive,
                 LongRopeAttentionFactor(scale, rope.original_max_position));
  } else {
    p.Wrong(p.Has("rope_type") ? "rope_type" : "type",
            "default, llama3 or longrope");
  }
}

ActivationFunction ReadActivation(FieldReader& r, absl::string_view key,
                                  absl::string_view otherwise) {
  const std::string name = r.String(key, std::string(otherwise));
  if (name == "silu" || name == "swish") return ActivationFunction::kSilu;
  if (name == "gelu") return ActivationFunction::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh")
    return ActivationFunction::kGeluTanh;
  if (name == "relu2") return ActivationFunction::kRelu2;
  r.Wrong(key, "silu, gelu, gelu_new, gelu_pytorch_tanh or relu2");
  return ActivationFunction::kSilu;
}

void ReadStepLimits(FieldReader& r, absl::string_view key, Mamba2Config& m) {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto limits = r.Numbers(key, 2, {0, infinity}, {0, infinity});
  m.dt_min = limits[0];
  m.dt_max = limits[1];
  if (m.dt_min > m.dt_max) r.Wrong(key, "in order, least first");
}

void SetWindows(ModelConfig& c, std::vector<int64_t> windows) {
  c.attention.windows = std::move(windows);
  c.attention.kv_source.resize(c.attention.windows.size());
  std::iota(c.attention.kv_source.begin(), c.attention.kv_source.end(), 0);
}

std::string Repeat(absl::string_view unit, int64_t times) {
  std::string all;
  for (int64_t i = 0; i < times; ++i) all.append(unit.data(), unit.size());
  return all;
}

}  // namespace seqmark
