// SPDX-License-Identifier: Apache-2.0
//
// What a model and its row say of their parts: the bytes of each kind of state,
// and the class that each call's time is booked under.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/model.h"
#include "tests/bench_program.h"

namespace seqmark {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::Key;

constexpr int64_t kBatch = 3, kPrompt = 21;

std::string Folder(const std::string& model) {
  return absl::StrCat(SEQMARK_SOURCE_DIR, "/tests/golden/models/", model);
}

ModelConfig Config(const std::string& model) {
  return *LoadModelConfig(Folder(model));
}

// A prompt, and a step after it.
ModelShape Shape() {
  return {.dtype = DType::kF32,
          .batch = kBatch,
          .prompt = kPrompt,
          .capacity = kPrompt + 1,
          .chunk = 16,
          .context = kPrompt};
}

ModelMemory Memory(const ModelConfig& config) {
  auto device = *MakeCpuDevice({});
  return *Model::Measure(config, Shape(), {}, *device);
}

double Aligned(double bytes) { return std::ceil(bytes / 256) * 256; }

TEST(StateMemory, IsOfTwoKinds) {
  for (const auto& folder : fs::directory_iterator(Folder(""))) {
    const std::string name = folder.path().filename().string();
    SCOPED_TRACE(name);
    const ModelConfig config = Config(name);
    const ModelMemory memory = Memory(config);
    bool attention = false, ssm = false;
    for (const SubLayer& layer : SubLayers(config)) {
      attention |= HasAttention(layer.kind);
      ssm |= HasSsm(layer.kind);
    }
    EXPECT_EQ(memory.kv_state > 0, attention);
    EXPECT_EQ(memory.ssm_state > 0, ssm);
    Layout all;
    ModelState::Place(config, DType::kF32, kBatch, kPrompt + 1, all);
    EXPECT_EQ(memory.kv_state + memory.ssm_state, all.bytes());
  }
}

// Two layers of one head of keys and one of values, 24 elements of 4 bytes.
TEST(StateMemory, OfATransformer) {
  EXPECT_EQ(Memory(Config("qwen2")).kv_state,
            2 * 2 * Aligned(kBatch * (kPrompt + 1) * 24 * 4));
}

// Two layers and a spare of each: 4 heads of 20 x 24, and three inputs of 80 +
// 2 * 2 * 24 channels.
TEST(StateMemory, OfAMamba2) {
  EXPECT_EQ(Memory(Config("mamba2_groups2")).ssm_state,
            3 * (Aligned(kBatch * 4 * 20 * 24 * 4) +
                 Aligned(kBatch * 3 * (80 + 2 * 2 * 24) * 4)));
}

// Three of Hymba's five layers have the same keys and values.
TEST(StateMemory, WhatLayersShareCountsOnce) {
  const ModelConfig config = Config("hymba");
  const AttentionConfig& a = config.attention;
  const auto of_head = [&](int64_t dim) {
    return Aligned(
        static_cast<double>(kBatch * (5 + kPrompt + 1) * a.kv_heads * dim * 4));
  };
  EXPECT_EQ(Memory(config).kv_state,
            3 * (of_head(a.head_dim) + of_head(a.value_head_dim)));
}

class ModelRows : public BenchTest {
 protected:
  // The rows of a golden model, by the operator's name.
  std::map<std::string, Json> Rows(const std::string& model,
                                   const std::string& flags = "") {
    const Outcome outcome = Bench(absl::StrCat(
        "--config=", Folder(model), "/config.json --models=", model,
        " --devices=cpu --dtypes=f32 --batches=2 --seqlens=21 --max_time=0.02 ",
        "--energy_time=0 --benchmark_filter='^(prefill|decode)/' ",
        "--benchmark_out=", Path("x.json"), " ", flags));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    std::map<std::string, Json> rows;
    const Json document = ReadJson("x.json");
    for (const Json& row : document["benchmarks"]) {
      const std::string name = row["name"];
      rows[name.substr(0, name.find('/'))] = row;
    }
    EXPECT_EQ(rows.size(), 2u);
    return rows;
  }
};

// A kind that a model has not is no counter, and the parts are all there is.
TEST_F(ModelRows, CountTheStatesByKind) {
  for (const auto& [model, kv, ssm] : {std::tuple{"qwen2", true, false},
                                       {"mamba_ssm_mamba", false, true},
                                       {"falcon_h1", true, true}})
    for (const auto& [op, row] : Rows(model)) {
      SCOPED_TRACE(row.dump());
      EXPECT_EQ(row.contains("memory_kv_state"), kv);
      EXPECT_EQ(row.contains("memory_ssm_state"), ssm);
      EXPECT_FALSE(row.contains("memory_state")) << "would count twice";
      double sum = 0;
      for (const auto& [counter, value] : row.items())
        if (absl::StartsWith(counter, "memory_")) sum += value.get<double>();
      const double peak = row["peak_memory"];
      EXPECT_NEAR(sum, peak, 0.01 * peak);
    }
}

// Both are composed on a CPU, the first always.
TEST_F(ModelRows, BookEachCallOfAComposedOneByItself) {
  for (const char* flags :
       {"", "--model_providers=mamba2_inner:composed,norm_gemm:composed"})
    for (const auto& [op, row] : Rows("mamba2_groups1", flags))
      for (const char* of : {"conv", "ssm_scan", "norm", "gemm", "lm_head"})
        EXPECT_GT(row.value(absl::StrCat("share_", of), 0.0), 0)
            << of << " of " << row;
}

std::map<std::string, int> CallsByClass(const std::vector<ModelPart>& parts) {
  std::map<std::string, int> calls;
  for (const ModelPart& part : parts) ++calls[std::string(Name(part.op_class))];
  return calls;
}

TEST(CallClasses, OfAComposedStepAreThoseOfTheCallsApart) {
  auto device = *MakeCpuDevice({});
  for (const char* name : {"mamba2_groups1", "mamba_ssm_mamba", "llama"}) {
    SCOPED_TRACE(name);
    std::map<std::string, int> calls[2];
    for (bool composed : {false, true}) {
      ProviderChoice choice;
      if (composed) choice["norm_gemm"] = "composed";
      const auto model =
          Model::Make(Config(name), Shape(), choice, nullptr, 1, *device);
      ASSERT_TRUE(model.ok()) << model.status();
      calls[composed] = CallsByClass((*model)->step_parts());
    }
    EXPECT_THAT(calls[0], Contains(Key("norm")));
    EXPECT_EQ(calls[1], calls[0]);
  }
}

// The whole is what is counted before anything is planned.
TEST(CallClasses, PartsHaveTheCostOfTheWhole) {
  auto device = *MakeCpuDevice({});
  for (const char* name : {"mamba2_groups1", "mamba2_groups2", "nemotron_h"})
    for (const ProviderChoice& choice :
         {ProviderChoice(), {{"norm_gemm", "composed"}}}) {
      SCOPED_TRACE(name);
      const auto model =
          Model::Make(Config(name), Shape(), choice, nullptr, 1, *device);
      ASSERT_TRUE(model.ok()) << model.status();
      double matrix = 0, vector = 0, special = 0;
      for (const auto* parts :
           {&(*model)->prompt_parts(), &(*model)->step_parts()})
        for (const ModelPart& part : *parts) {
          EXPECT_GT(part.bytes, 0) << part.name;
          EXPECT_GE(part.cost.vector_flops, 0) << part.name;
          matrix += part.cost.matrix_flops;
          vector += part.cost.vector_flops;
          special += part.cost.special_ops;
        }
      const Cost whole = Model::GetCost(Config(name), Shape())->cost;
      EXPECT_NEAR(matrix, whole.matrix_flops, 1e-9 * whole.matrix_flops);
      EXPECT_NEAR(vector, whole.vector_flops, 1e-9 * whole.vector_flops);
      EXPECT_NEAR(special, whole.special_ops, 1e-9 * whole.special_ops);
    }
}

}  // namespace
}  // namespace seqmark
