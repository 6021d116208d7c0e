// SPDX-License-Identifier: Apache-2.0
//
// What holds of every model whatever its logits are: of prompts and steps, of
// what they allocate, of prompts that fill a memory, of layers in any order.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/max_context.h"
#include "tests/golden_models.h"

namespace seqmark {
namespace {

class ModelInvariants : public testing::TestWithParam<const char*> {};

TEST_P(ModelInvariants, APromptWithOneMoreTokenIsAPromptAndAStep) {
  auto device = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  const auto stepped =
      RunModel(golden, DType::kF32, 64, LogitsOf::kLast, *device);
  ASSERT_TRUE(stepped.ok()) << stepped.status();
  ASSERT_EQ(golden.steps(), 8);
  for (int64_t steps = 1; steps <= golden.steps(); ++steps) {
    SCOPED_TRACE(absl::StrCat(steps, " steps"));
    const auto whole = RunModel(golden.PromptedWith(steps), DType::kF32, 64,
                                LogitsOf::kLast, *device);
    ASSERT_TRUE(whole.ok()) << whole.status();
    Logits last;
    for (const auto& sequence : *stepped) last.push_back({sequence[steps]});
    EXPECT_LE(Difference(*whole, last), kF32);
  }
}

// Once all is planned, nothing is asked of the device: of packed weights and
// the like here, of scratch in RowMemory.ALaunchAllocatesNothing.
TEST_P(ModelInvariants, ALaunchAllocatesNothing) {
  auto device = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  for (const ProviderChoice& providers :
       {ProviderChoice{}, ProviderChoice{{"norm_gemm", "composed"}}}) {
    auto model = Model::Make(golden.config,
                             ShapeOf(golden, DType::kF32, 16, LogitsOf::kLast),
                             providers, golden.checkpoint.get(), 1, *device);
    ASSERT_TRUE(model.ok()) << model.status();
    ASSERT_GT(device->memory().allocations, 0);
    int launches = 0;
    const auto logits =
        RunSequences(**model, golden, *device, [&](const auto& parts) {
          const int64_t planned = device->memory().allocations;
          const absl::Status status = Call(parts, *device);
          EXPECT_EQ(device->memory().allocations, planned);
          ++launches;
          return status;
        });
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(launches, 1 + golden.steps());
  }
}

INSTANTIATE_TEST_SUITE_P(All, ModelInvariants, testing::ValuesIn(kGoldenModels),
                         [](const auto& test) {
                           return std::string(test.param);
                         });

// A limit that lies between what two lengths need: at a chunk's ends, at a
// granule's, and far from both.
TEST(ModelMaxContext, FitsAndOneTokenMoreDoesNot) {
  auto device = *MakeCpuDevice({});
  const ModelConfig config = *LoadModelConfig(GoldenFolder("qwen2"));
  const ModelShape shape = {.dtype = DType::kF32, .chunk = 64};
  const auto of_length = [&](int64_t length) {
    ModelShape longer = shape;
    longer.prompt = longer.capacity = length;
    return longer;
  };
  const auto needed = [&](int64_t length) {
    return Model::Measure(config, of_length(length), {}, *device)->total();
  };
  for (int64_t length : {1, 2, 63, 64, 65, 129, 1000, 5001}) {
    const size_t bytes = needed(length);
    for (size_t limit : {bytes - 1, bytes, bytes + 1}) {
      SCOPED_TRACE(absl::StrCat(length, " tokens need ", bytes,
                                " bytes; the limit is ", limit));
      const auto longest = MaxContext(config, shape, {}, limit, *device);
      if (limit < needed(1)) {
        EXPECT_TRUE(absl::IsResourceExhausted(longest.status()))
            << longest.status();
        continue;
      }
      ASSERT_TRUE(longest.ok()) << longest.status();
      EXPECT_FALSE(longest->is_cap);
      EXPECT_LE(needed(longest->seqlen), limit);
      EXPECT_GT(needed(longest->seqlen + 1), limit);
      if (limit >= bytes)
        EXPECT_GE(longest->seqlen, length);
      else
        EXPECT_LT(longest->seqlen, length);

      // As whoever then runs it finds.
      device->SetMemoryLimit(limit);
      const auto make = [&](int64_t tokens) {
        return Model::Make(config, of_length(tokens), {}, nullptr, 1, *device)
            .status();
      };
      EXPECT_TRUE(make(longest->seqlen).ok());
      EXPECT_TRUE(absl::IsResourceExhausted(make(longest->seqlen + 1)));
      device->SetMemoryLimit(0);
    }
  }
}

bool Finite(const Logits& logits) {
  for (const auto& sequence : logits)
    for (const auto& token : sequence)
      for (double logit : token)
        if (!std::isfinite(logit)) return false;
  return true;
}

// Random weights, one layer of a kind alone and any order of several.
TEST(ModelPatterns, AnyStringOfLayersRuns) {
  auto device = *MakeCpuDevice({});
  const ModelConfig config = *LoadModelConfig(GoldenFolder("nemotron_h"));
  std::vector<std::string> patterns = {"M", "*", "-"};
  for (int seed : {1, 2, 3, 4}) {
    std::mt19937 random(seed);
    std::string& pattern = patterns.emplace_back();
    for (int n = 0; n < 5 + seed; ++n) pattern += "M*-"[random() % 3];
  }
  for (const std::string& pattern : patterns) {
    SCOPED_TRACE(pattern);
    const auto mix = WithPattern(config, pattern);
    ASSERT_TRUE(mix.ok()) << mix.status();
    const Sequences sequences = Sequences::Random(*mix, 2, 37, 4);
    const auto run = [&](int64_t chunk) {
      return RunModel(sequences, DType::kF32, chunk, LogitsOf::kAll, *device);
    };
    const auto whole = run(64), chunked = run(7);
    ASSERT_TRUE(whole.ok()) << whole.status();
    ASSERT_TRUE(chunked.ok()) << chunked.status();
    ASSERT_EQ(whole->size(), 2u);
    ASSERT_EQ((*whole)[0].size(), 37u + 4);
    EXPECT_TRUE(Finite(*whole));
    EXPECT_LE(Difference(*chunked, *whole), kF32);
  }
}

}  // namespace
}  // namespace seqmark
