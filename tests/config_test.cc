// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "models/weight_list.h"
#include "tests/zoo.h"

extern "C" int config_fuzz(const uint8_t* data, size_t size);

namespace seqmark {
namespace {

using Json = nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Published counts; the 8B models', which are published to four digits, and
// GPT-Neo's and Hymba's from their sizes (1.52B and 3.05 GB in bf16).
TEST(ModelConfig, ZooHasThePublishedParameterCounts) {
  const std::map<std::string, int64_t> counts = {
      {"falcon-h1-0.5b", 521'411'104},
      {"falcon-h1-1.5b", 1'554'863'488},
      {"falcon-h1-1.5b-deep", 1'554'874'768},
      {"gpt-neo-125m", 125'198'592},
      {"hymba-1.5b", 1'522'797'824},
      {"llama-3.2-1b", 1'235'814'400},
      {"mamba-1.4b", 1'372'178'432},
      {"mamba-130m", 129'135'360},
      {"mamba-2.8b", 2'768'345'600},
      {"mamba-370m", 371'516'416},
      {"mamba-790m", 793'204'224},
      {"mamba-8b", 8'148'783'104},
      {"mamba2-1.3b", 1'343'757'312},
      {"mamba2-130m", 128'989'632},
      {"mamba2-2.7b", 2'702'599'680},
      {"mamba2-370m", 368'346'624},
      {"mamba2-780m", 780'161'280},
      {"mamba2-8b", 8'236'999'680},
      {"mamba2-hybrid-8b", 8'654'517'248},
      {"phi-3-mini", 3'821'079'552},
      {"qwen2.5-0.5b", 494'032'768},
      {"qwen2.5-1.5b", 1'543'714'304},
      {"tinyllama-1.1b", 1'100'048'384},
      {"transformer-8b", 8'540'135'424},
      {"zamba2-1.2b", 1'215'064'704},
  };
  std::map<std::string, int64_t> ours;
  for (const auto& [name, text] : EmbeddedConfigs()) {
    const auto config = ParseModelConfig(text, name);
    ASSERT_TRUE(config.ok()) << config.status();
    ours[name] = ParameterCount(*config);
  }
  EXPECT_EQ(ours, counts);
}

TEST(ModelConfig, PatternsOfTheZoo) {
  EXPECT_EQ(ZooConfig("mamba2-hybrid-8b").pattern,
            "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-");
  EXPECT_EQ(ZooConfig("mamba-8b").pattern, std::string(56, 'M'));
  EXPECT_EQ(ZooConfig("zamba2-1.2b").pattern,
            "MMMMMSMMMMMSMMMMMSMMMMMSMMMMMSMMMMMSMM");
  EXPECT_EQ(ZooConfig("falcon-h1-0.5b").pattern.substr(0, 4), "H-H-");
  const ModelConfig neo = ZooConfig("gpt-neo-125m");
  EXPECT_THAT(neo.attention.windows,
              ElementsAre(0, 256, 0, 256, 0, 256, 0, 256, 0, 256, 0, 256));
}

TEST(ModelConfig, HymbaLayersShareKeysAndWindows) {
  const ModelConfig hymba = ZooConfig("hymba-1.5b");
  const auto layers = SubLayers(hymba);
  ASSERT_EQ(layers.size(), 64u);
  EXPECT_EQ(layers[2 * 15].window, 0);
  EXPECT_EQ(layers[2 * 16].window, 1024);
  EXPECT_EQ(layers[2 * 17].kv_source, 16);
  EXPECT_EQ(layers[2 * 18].kv_source, 16);
  EXPECT_EQ(std::set<int64_t>(hymba.attention.kv_source.begin(),
                              hymba.attention.kv_source.end())
                .size(),
            17u);
  const auto weights = WeightsByName(hymba);
  EXPECT_THAT(weights.at("layers.2.attention.qkv_proj.weight").dims,
              ElementsAre(1600 + 320 + 640, 1600));
  EXPECT_THAT(weights.at("layers.4.attention.qkv_proj.weight").dims,
              ElementsAre(1600, 1600));
  const auto& in = weights.at("layers.4.mamba.in_proj.weight").sources[0];
  EXPECT_EQ(in.row_begin, 1600);
  EXPECT_THAT(in.dims, ElementsAre(8000, 1600));
}

TEST(ModelConfig, AnyPatternOfTheHybridBuilds) {
  const ModelConfig hybrid = ZooConfig("mamba2-hybrid-8b");
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    std::string pattern;
    for (int n = 1 + random() % 40; n > 0; --n) pattern += "M*-H"[random() % 4];
    const auto mix = WithPattern(hybrid, pattern);
    ASSERT_TRUE(mix.ok()) << mix.status();
    EXPECT_EQ(mix->pattern, pattern);
    EXPECT_EQ(SubLayers(*mix).size(), pattern.size());
    WeightsByName(*mix);
    EXPECT_GT(ParameterCount(*mix), 2 * 256000 * 4096);
  }
  for (const char* pattern : {"", "MX", "MS", "P"})
    EXPECT_FALSE(WithPattern(hybrid, pattern).ok()) << pattern;
  const auto no_ssm = WithPattern(ZooConfig("qwen2.5-0.5b"), "*-M");
  EXPECT_THAT(std::string(no_ssm.status().message()),
              AllOf(HasSubstr("letter 2"), HasSubstr("no Mamba layer")));
}

TEST(ModelConfig, ReadsBothFormsOfRopeAndInfinity) {
  Json json = Zoo("llama-3.2-1b");
  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = json["rope_theta"];
  json.erase("rope_scaling");
  json.erase("rope_theta");
  EXPECT_EQ(InverseFrequencies(Parsed(json).rope, 1),
            InverseFrequencies(ZooConfig("llama-3.2-1b").rope, 1));

  Json falcon = Zoo("falcon-h1-0.5b");
  falcon["time_step_limit"] = {0.0, {{"__float__", "Infinity"}}};
  EXPECT_TRUE(std::isinf(Parsed(falcon).mamba2.dt_max));
  std::string text = Zoo("falcon-h1-0.5b").dump();
  text.insert(1, "\"time_step_limit\": [0.5, Infinity],\"a\\\"Infinity\":1,");
  const auto bare = ParseModelConfig(text, "bare");
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_TRUE(std::isinf(bare->mamba2.dt_max));
  EXPECT_EQ(bare->mamba2.dt_min, 0.5);
}

struct BadField {
  const char* model;
  const char* field;
  Json value;                     // null: the field is removed
  const char* message = nullptr;  // in the error; the field's name if null
};

TEST(ModelConfig, BadFieldsAreClearErrors) {
  const int64_t huge = int64_t{1} << 62;
  const std::vector<BadField> fields = {
      {"qwen2.5-0.5b", "model_type", "bert"},
      {"qwen2.5-0.5b", "model_type", 7},
      {"qwen2.5-0.5b", "model_type", nullptr},
      {"qwen2.5-0.5b", "hidden_size", nullptr, "hidden_size is missing"},
      {"qwen2.5-0.5b", "hidden_size", -1, "from 1 to 1048576"},
      {"qwen2.5-0.5b", "hidden_size", -896, "hidden_size is -896"},
      {"qwen2.5-0.5b", "hidden_size", 0},
      {"qwen2.5-0.5b", "hidden_size", huge},
      {"qwen2.5-0.5b", "hidden_size", 1e300},
      {"qwen2.5-0.5b", "hidden_size", "896"},
      {"qwen2.5-0.5b", "hidden_size", 897, "multiple of num_attention_heads"},
      {"qwen2.5-0.5b", "hidden_size", Json::array({896})},
      {"qwen2.5-0.5b", "num_key_value_heads", 3},
      {"qwen2.5-0.5b", "num_attention_heads", nullptr},
      {"qwen2.5-0.5b", "num_hidden_layers", 0},
      {"qwen2.5-0.5b", "num_hidden_layers", 1 << 20},
      {"qwen2.5-0.5b", "vocab_size", std::numeric_limits<uint64_t>::max()},
      {"qwen2.5-0.5b", "rms_norm_eps", -1e-6},
      {"qwen2.5-0.5b", "rms_norm_eps", nullptr},
      {"qwen2.5-0.5b", "tie_word_embeddings", 1},
      {"qwen2.5-0.5b", "hidden_act", "tanh"},
      {"qwen2.5-0.5b", "intermediate_size", 1 << 30},
      {"qwen2.5-0.5b", "max_position_embeddings", 2.5},
      {"qwen2.5-0.5b", "layer_types", {"full_attention"}},
      {"qwen2.5-0.5b", "rope_theta", -1},
      {"qwen2.5-0.5b", "rope_theta", "Infinity"},
      {"qwen2.5-0.5b", "head_dim", 63, "must be even"},
      {"llama-3.2-1b", "rope_scaling", 5},
      {"llama-3.2-1b",
       "rope_scaling",
       {{"rope_type", "yarn"}},
       "rope_scaling.rope_type"},
      {"llama-3.2-1b",
       "rope_scaling",
       {{"rope_type", "llama3"}},
       "rope_scaling.factor is missing"},
      {"phi-3-mini",
       "rope_scaling",
       {{"type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}},
       "list of 48 numbers"},
      {"gpt-neo-125m", "attention_types", nullptr},
      {"gpt-neo-125m", "attention_types", {{{"global"}, 5}}},
      {"gpt-neo-125m", "attention_types", {{{"round"}, 12}}},
      {"gpt-neo-125m", "attention_types", {{{"global"}, huge}}},
      {"gpt-neo-125m", "num_heads", 7},
      {"gpt-neo-125m", "window_size", 0},
      {"mamba-130m", "d_model", -1},
      {"mamba-130m", "ssm_cfg", {{"layer", "Mamba3"}}, "ssm_cfg.layer"},
      {"mamba-130m", "ssm_cfg", {{"d_state", 0}}, "ssm_cfg.d_state is 0"},
      {"mamba-130m", "ssm_cfg", {{"expand", 16000}}, "d_model * ssm_cfg"},
      {"mamba-130m", "n_layer", nullptr},
      {"mamba-130m", "attn_layer_idx", {24}},
      {"mamba-130m", "attn_layer_idx", {1}, "attn_cfg.num_heads is missing"},
      {"mamba2-130m",
       "ssm_cfg",
       {{"layer", "Mamba2"}, {"headdim", 1000}},
       "multiple of headdim"},
      {"mamba2-130m",
       "ssm_cfg",
       {{"layer", "Mamba2"}, {"ngroups", 5}},
       "multiple of ngroups"},
      {"mamba2-130m",
       "ssm_cfg",
       {{"layer", "Mamba2"}, {"dt_limit", {1.0, 0.5}}},
       "ssm_cfg.dt_limit"},
      {"falcon-h1-0.5b", "mamba_n_heads", 23},
      {"falcon-h1-0.5b", "mamba_d_head", 65},
      {"falcon-h1-0.5b", "ssm_multipliers", {1, 2, 3}, "list of 5 numbers"},
      {"falcon-h1-0.5b", "key_multiplier", "big"},
      {"falcon-h1-0.5b", "time_step_limit", {0.1}},
      {"zamba2-1.2b", "layers_block_type", {"mamba", "moe"}},
      {"zamba2-1.2b", "layers_block_type", nullptr},
      {"zamba2-1.2b", "num_hidden_layers", 37, "layers_block_type, 38"},
      {"zamba2-1.2b", "num_attention_heads", 3},
      {"zamba2-1.2b", "adapter_rank", 0},
      {"mamba2-hybrid-8b", "hybrid_override_pattern", "M*E-"},
      {"mamba2-hybrid-8b", "hybrid_override_pattern", ""},
      {"mamba2-hybrid-8b", "num_hidden_layers", 55,
       "length of hybrid_override_pattern, 56"},
      {"mamba2-hybrid-8b", "n_groups", 7},
      {"mamba2-hybrid-8b", "mamba_head_dim", 16384, "mamba_num_heads * head"},
      {"hymba-1.5b", "kv_reuse_group", {{1, 2}, {2, 3}}},
      {"hymba-1.5b", "kv_reuse_group", {{31, 32}}},
      {"hymba-1.5b", "kv_reuse_group", {{2, 1}}},
      {"hymba-1.5b", "global_attn_idx", {-1}},
      {"hymba-1.5b", "num_memory_tokens", -128},
      {"hymba-1.5b", "kq_norm", "rms"},
      {"hymba-1.5b", "rope_type", "yarn"},
      {"transformer-8b", "partial_rotary_factor", 2},
  };
  for (const BadField& bad : fields) {
    Json json = Zoo(bad.model);
    if (bad.value.is_null())
      json.erase(bad.field);
    else
      json[bad.field] = bad.value;
    const auto config = ParseModelConfig(json.dump(), bad.model);
    SCOPED_TRACE(
        absl::StrCat(bad.model, " ", bad.field, " ", bad.value.dump()));
    EXPECT_TRUE(absl::IsInvalidArgument(config.status()));
    EXPECT_THAT(std::string(config.status().message()),
                AllOf(HasSubstr(bad.model),
                      HasSubstr(bad.message ? bad.message : bad.field)));
  }
}

TEST(ModelConfig, TooManyParametersIsAnError) {
  Json json = Zoo("qwen2.5-0.5b");
  json["hidden_size"] = json["intermediate_size"] = 1 << 20;
  json["num_attention_heads"] = json["num_key_value_heads"] = 1 << 10;
  json["num_hidden_layers"] = 4096;
  const auto config = ParseModelConfig(json.dump(), "big");
  EXPECT_TRUE(absl::IsInvalidArgument(config.status()));
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("parameters, must be at most"));
}

TEST(ModelConfig, WhatIsNoObjectIsAnError) {
  for (const char* text : {"", "[]", "{", "7", "{\"a\":}", "\xff\xfe", "null"})
    EXPECT_TRUE(
        absl::IsInvalidArgument(ParseModelConfig(text, "none").status()))
        << text;
  EXPECT_TRUE(absl::IsInvalidArgument(
      ParseModelConfig(std::string(1 << 20, '['), "deep").status()));
}

TEST(ModelConfig, LoadsAFolderNamedAfterTheModel) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / "my-model";
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << Zoo("mamba-130m").dump();
  const auto config = LoadModelConfig(folder.string());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "my-model");
  EXPECT_EQ(LoadModelConfig((folder / "config.json").string())->name,
            "my-model");
  EXPECT_TRUE(absl::IsNotFound(LoadModelConfig("/no/such").status()));
  fs::remove_all(folder);
}

// Fields removed, replaced by awkward values, and bytes changed.
TEST(ModelConfig, MutatedConfigsDoNotCrash) {
  const std::vector<Json> values = {nullptr,
                                    0,
                                    -1,
                                    1,
                                    2,
                                    3,
                                    true,
                                    "x",
                                    1e308,
                                    Json::array(),
                                    {1, 2},
                                    {},
                                    1e9,
                                    65536,
                                    0.5,
                                    "auto",
                                    {{"rope_type", "longrope"}}};
  std::mt19937 random(20240607);
  const auto run = [](const std::string& text) {
    config_fuzz(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  };
  for (const auto& [name, text] : EmbeddedConfigs()) {
    const Json json = Json::parse(text);
    for (int i = 0; i < 100; ++i) {
      Json mutated = json;
      for (int n = 1 + random() % 3; n > 0; --n) {
        auto field = mutated.begin();
        std::advance(field, random() % mutated.size());
        *field = values[random() % values.size()];
      }
      run(mutated.dump());
      std::string bytes = text;
      for (int n = 1 + random() % 4; n > 0; --n) {
        const size_t at = random() % bytes.size();
        if (random() % 2)
          bytes[at] = static_cast<char>(random());
        else
          bytes.erase(at, random() % 8);
      }
      run(bytes);
    }
  }
}

}  // namespace
}  // namespace seqmark
