// SPDX-License-Identifier: Apache-2.0
//
// The row's name: what parses, what does not and why, and whose layer it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fixtures/row.h"

namespace seqmark {
namespace {

using testing::HasSubstr;

constexpr char kName[] =
    "ssd_scan/native/mamba2-2.7b/dtype:bf16/device:cuda/batch:8/seqlen:65536";

TEST(RowName, Parses) {
  const auto name = RowName::Parse(kName);
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(name->op, "ssd_scan");
  EXPECT_EQ(name->provider, "native");
  EXPECT_EQ(name->shape, "mamba2-2.7b");
  EXPECT_EQ(name->dtype, DType::kBF16);
  EXPECT_EQ(name->device, DeviceKind::kCuda);
  EXPECT_EQ(name->batch, 8);
  EXPECT_EQ(name->seqlen, 65536);
  EXPECT_EQ(name->ToString(), kName);
}

TEST(RowName, ToStringIsTheFrozenForm) {
  const RowName name{.op = "gemm",
                     .provider = "onednn",
                     .shape = "qwen2.5-1.5b.mlp_up",
                     .dtype = DType::kF32,
                     .device = DeviceKind::kCpu,
                     .batch = 1,
                     .seqlen = 131072};
  EXPECT_EQ(name.ToString(),
            "gemm/onednn/qwen2.5-1.5b.mlp_up/dtype:f32/device:cpu/batch:1/"
            "seqlen:131072");
}

TEST(RowName, IgnoresWhatGoogleBenchmarkAppends) {
  const auto name =
      RowName::Parse(std::string(kName) + "/iterations:1/manual_time");
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(name->ToString(), kName);
}

struct Bad {
  const char* text;
  const char* why;
};

TEST(RowName, SaysWhatIsWrong) {
  constexpr Bad kBad[] = {
      {"", "fewer than 7 parts"},
      {"gemm", "fewer than 7 parts"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:1", "fewer than 7 parts"},
      {"/onednn/x/dtype:f32/device:cpu/batch:1/seqlen:1", "an empty part"},
      {"gemm//x/dtype:f32/device:cpu/batch:1/seqlen:1", "an empty part"},
      {"gemm/onednn//dtype:f32/device:cpu/batch:1/seqlen:1", "an empty part"},
      {"gemm/onednn/x/f32/device:cpu/batch:1/seqlen:1",
       "'f32' is not dtype:<value>"},
      {"gemm/onednn/x/device:cpu/dtype:f32/batch:1/seqlen:1",
       "'device:cpu' is not dtype:<value>"},
      {"gemm/onednn/x/dtype:f32/device:cpu/seqlen:1/batch:1",
       "'seqlen:1' is not batch:<value>"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:1/length:1",
       "'length:1' is not seqlen:<value>"},
      {"gemm/onednn/x/dtype:f64/device:cpu/batch:1/seqlen:1",
       "dtype is not bf16, f16 or f32"},
      {"gemm/onednn/x/dtype:/device:cpu/batch:1/seqlen:1",
       "dtype is not bf16, f16 or f32"},
      {"gemm/onednn/x/dtype:f32/device:gpu/batch:1/seqlen:1",
       "device is not cpu or cuda"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:0/seqlen:1",
       "batch is not a positive integer"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:-4/seqlen:1",
       "batch is not a positive integer"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:1x/seqlen:1",
       "batch is not a positive integer"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:1/seqlen:",
       "seqlen is not a positive integer"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:1/seqlen:4k",
       "seqlen is not a positive integer"},
      {"gemm/onednn/x/dtype:f32/device:cpu/batch:1/"
       "seqlen:99999999999999999999",
       "seqlen is not a positive integer"},
  };
  for (const Bad& bad : kBad) {
    const auto name = RowName::Parse(bad.text);
    ASSERT_FALSE(name.ok()) << bad.text;
    EXPECT_TRUE(absl::IsInvalidArgument(name.status())) << name.status();
    const std::string message(name.status().message());
    EXPECT_THAT(message, HasSubstr(bad.why));
    // What was given, and what would be right.
    EXPECT_THAT(message, HasSubstr(bad.text));
    EXPECT_THAT(message, HasSubstr("<op>/<provider>/<shape>/dtype:"));
  }
}

TEST(RowName, ModelIsTheShapeUpToARole) {
  constexpr struct {
    const char* shape;
    const char* model;
  } kCases[] = {
      {"mamba-790m", "mamba-790m"},
      {"gpt-neo-125m", "gpt-neo-125m"},
      // The dots of a model's own name.
      {"mamba2-2.7b", "mamba2-2.7b"},
      {"qwen2.5-0.5b", "qwen2.5-0.5b"},
      {"llama-3.2-1b", "llama-3.2-1b"},
      {"falcon-h1-1.5b-deep", "falcon-h1-1.5b-deep"},
      // Roles.
      {"qwen2.5-1.5b.mlp_up", "qwen2.5-1.5b"},
      {"mamba2-780m.gated", "mamba2-780m"},
      {"llama-3.2-1b.qkv", "llama-3.2-1b"},
      {"custom", "custom"},
      {"custom.width7", "custom"},
      {"custom.width7-gate", "custom.width7-gate"},  // no role has a dash
      {"trailing.", "trailing."},
  };
  for (const auto& c : kCases) {
    const RowName name{.shape = c.shape};
    EXPECT_EQ(name.model(), c.model) << c.shape;
  }
}

}  // namespace
}  // namespace seqmark
