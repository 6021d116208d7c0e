// SPDX-License-Identifier: Apache-2.0
#include "models/weight_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/rope.h"
#include "tests/zoo.h"

namespace seqmark {
namespace {

using Json = nlohmann::json;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::FloatEq;

TEST(WeightList, NamesAreUniqueAndSourcesAddUp) {
  for (const auto& [name, text] : EmbeddedConfigs()) {
    const ModelConfig config = ZooConfig(name);
    std::map<std::string, std::pair<Dims, int64_t>> stored;  // dims, rows read
    for (const auto& [weight_name, weight] : WeightsByName(config)) {
      SCOPED_TRACE(absl::StrCat(name, " ", weight_name));
      int64_t rows = 0;
      for (const WeightSource& source : weight.sources) {
        rows += source.rows;
        auto& [dims, read] = stored[source.name];
        EXPECT_TRUE(read == 0 || dims == source.dims);
        dims = source.dims;
        read += source.rows;
        EXPECT_EQ(NumElements(source.dims) / source.dims[0] * weight.dims[0],
                  NumElements(weight.dims));
      }
      EXPECT_EQ(rows, weight.dims[0]);
    }
    // Every row of every stored tensor is read once.
    for (const auto& [source, tensor] : stored)
      EXPECT_EQ(tensor.second, tensor.first[0]) << name << " " << source;
  }
}

TEST(WeightList, MultipliersAndScoreScalesAreFolded) {
  auto falcon = WeightsByName(ZooConfig("falcon-h1-0.5b"));
  EXPECT_THAT(falcon.at("embedding").sources[0].scale,
              DoubleNear(5.656854249492381, 1e-12));
  const auto& in = falcon.at("layers.0.mamba.in_proj.weight").sources;
  ASSERT_EQ(in.size(), 5u);
  EXPECT_EQ(in[1].scale, 1.25 * 0.25);
  EXPECT_EQ(in[3].scale, 1.25 * 0.5);
  EXPECT_EQ(in[4].row_begin, 2 * 1536 + 2 * 128);
  EXPECT_THAT(falcon.at("layers.0.attention.qkv_proj.weight").sources[1].scale,
              DoubleNear(0.390625, 1e-12));
  EXPECT_EQ(falcon.at("layers.1.mlp.up_proj.weight").sources[0].name,
            "model.layers.0.feed_forward.gate_proj.weight");
  EXPECT_FALSE(falcon.contains("layers.0.mamba.norm.weight"));

  // Tied, the head's share goes into the final norm.
  Json json = Zoo("falcon-h1-0.5b");
  json["tie_word_embeddings"] = true;
  EXPECT_THAT(WeightsByName(Parsed(json)).at("norm.weight").sources[0].scale,
              DoubleNear(0.0390625 / 5.656854249492381, 1e-12));

  const auto scale = [](const char* model, const char* weight) {
    return WeightsByName(ZooConfig(model)).at(weight).sources[0].scale;
  };
  EXPECT_THAT(scale("gpt-neo-125m", "layers.0.attention.qkv_proj.weight"),
              DoubleNear(8, 1e-12));
  EXPECT_THAT(scale("zamba2-1.2b", "shared.0.attention.qkv_proj.weight"),
              DoubleNear(std::sqrt(2), 1e-12));
  EXPECT_THAT(scale("zamba2-1.2b", "layers.5.attention.adapter_up_q.weight"),
              DoubleNear(std::sqrt(2), 1e-12));
  EXPECT_THAT(scale("qwen2.5-0.5b", "layers.0.attention.qkv_proj.weight"),
              DoubleNear(1, 1e-12));
}

TEST(WeightList, NamesTheTensorsOfEachCheckpointFormat) {
  const auto source = [](const char* model, const char* weight) {
    return WeightsByName(ZooConfig(model)).at(weight).sources[0];
  };
  EXPECT_EQ(source("qwen2.5-0.5b", "layers.3.norm.weight").name,
            "model.layers.1.post_attention_layernorm.weight");
  EXPECT_EQ(source("transformer-8b", "layers.0.norm.weight").transform,
            Transform::kPlusOne);
  EXPECT_EQ(source("gpt-neo-125m", "layers.2.attention.o_proj.bias").name,
            "transformer.h.1.attn.attention.out_proj.bias");
  EXPECT_EQ(source("phi-3-mini", "layers.0.attention.qkv_proj.weight").name,
            "model.layers.0.self_attn.qkv_proj.weight");
  const WeightSource a = source("mamba-130m", "layers.7.mamba.A");
  EXPECT_EQ(a.name, "backbone.layers.7.mixer.A_log");
  EXPECT_EQ(a.transform, Transform::kNegExp);
  const WeightSource conv = source("mamba2-130m", "layers.0.mamba.conv.weight");
  EXPECT_THAT(conv.dims, ElementsAre(1792, 1, 4));
  EXPECT_EQ(source("mamba-130m", "embedding").name,
            "backbone.embedding.weight");
  EXPECT_EQ(source("mamba2-8b", "embedding").name,
            "backbone.embeddings.weight");
  EXPECT_EQ(
      source("mamba2-hybrid-8b", "layers.10.attention.o_proj.weight").name,
      "backbone.layers.10.mixer.o_proj.weight");
  EXPECT_EQ(source("zamba2-1.2b", "layers.11.mamba.D").name,
            "model.layers.11.mamba_decoder.mamba.D");
  EXPECT_EQ(source("zamba2-1.2b", "layers.11.mlp.adapter_up.weight").name,
            "model.layers.5.shared_transformer.feed_forward."
            "gate_up_proj_adapter_list.1.1.weight");
  EXPECT_EQ(source("hymba-1.5b", "layers.0.mamba.dt_bias").name,
            "model.layers.0.mamba.dt_proj.0.bias");
}

// A gated MLP of mamba_ssm stores up rows before gate rows.
TEST(WeightList, MambaSsmMlpAndAttention) {
  Json json = Zoo("mamba2-130m");
  json["d_intermediate"] = 100;
  json["attn_layer_idx"] = {1};
  json["attn_cfg"] = {{"causal", true}, {"num_heads", 12}};
  const ModelConfig config = Parsed(json);
  EXPECT_EQ(config.pattern.substr(0, 6), "M-*-M-");
  const auto weights = WeightsByName(config);
  const auto& up = weights.at("layers.3.mlp.up_proj.weight");
  EXPECT_THAT(up.dims, ElementsAre(256, 768));
  EXPECT_EQ(up.sources[0].name, "backbone.layers.1.mlp.fc1.weight");
  EXPECT_EQ(up.sources[0].row_begin, 128);
  EXPECT_EQ(up.sources[1].row_begin, 0);
  EXPECT_TRUE(weights.contains("layers.2.attention.qkv_proj.bias"));
}

// f = theta^(-2j/d) = 500000^(-j/32), w = 2 pi / f, and in Python:
//   f if w < 8192/4 else f/32 if w > 8192 else
//   (1-s)*f/32 + s*f with s = (8192/w - 1) / 3
TEST(RopeConfig, Llama3Frequencies) {
  const auto f = InverseFrequencies(ZooConfig("llama-3.2-1b").rope, 1);
  ASSERT_EQ(f.size(), 32u);
  EXPECT_THAT(f[0], FloatEq(1.0));
  EXPECT_THAT(f[9], FloatEq(0.024955408670558694));
  EXPECT_THAT(f[14], FloatEq(0.003211445994752591));
  EXPECT_THAT(f[15], FloatEq(0.001290547928209264));
  EXPECT_THAT(f[17], FloatEq(9.70828780262767e-05));
  EXPECT_THAT(f[18], FloatEq(1.9461638184831125e-05));
  EXPECT_THAT(f[31], FloatEq(9.41830672543491e-08));
}

// 10000^(-2j/96) / factor[j]; sqrt(1 + ln(131072/4096) / ln(4096)).
TEST(RopeConfig, LongRopeFrequencies) {
  const RopeConfig rope = ZooConfig("phi-3-mini").rope;
  const auto near = InverseFrequencies(rope, 4096);
  const auto far = InverseFrequencies(rope, 4097);
  ASSERT_EQ(near.size(), 48u);
  EXPECT_THAT(near[0], FloatEq(0.9090909090909091));
  EXPECT_THAT(near[20], FloatEq(0.010772173450159411));
  EXPECT_THAT(near[47], FloatEq(3.9722218315691476e-05));
  EXPECT_THAT(far[0], FloatEq(0.9345793934386541));
  EXPECT_THAT(far[20], FloatEq(0.0005581437241445224));
  EXPECT_THAT(far[47], FloatEq(1.8707961992959705e-06));
  EXPECT_THAT(rope.attention_factor, DoubleNear(1.1902380714238083, 1e-12));
}

TEST(RopeConfig, PartialAndStretched) {
  const RopeConfig half = ZooConfig("transformer-8b").rope;
  EXPECT_EQ(half.rotary_dim, 64);
  EXPECT_THAT(InverseFrequencies(half, 1)[1],
              FloatEq(std::pow(10000.0, -2.0 / 64)));
  // Hymba: theta 10000 * (2 * 8192 / 2048 - 1)^(64/62), its 31st frequency.
  const RopeConfig ntk = ZooConfig("hymba-1.5b").rope;
  EXPECT_THAT(InverseFrequencies(ntk, 1)[31], FloatEq(1.905030617376177e-05));
  EXPECT_THAT(InverseFrequencies(RopeConfig(), 1), testing::IsEmpty());
}

}  // namespace
}  // namespace seqmark
