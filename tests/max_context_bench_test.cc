// SPDX-License-Identifier: Apache-2.0
//
// The program on the longest prompts that fit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/bench_program.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class MaxContextBenchTest : public BenchTest {
 protected:
  // Rows of a Mamba of so many layers: its longest prompt is a million tokens
  // in any memory.
  Json Row(int layers, int width, const std::string& flags) {
    std::filesystem::create_directory(Path("tiny"));
    std::ofstream(Path("tiny/config.json"))
        << Json{{"d_model", width},       {"n_layer", layers},
                {"vocab_size", 64},       {"ssm_cfg", Json::object()},
                {"rms_norm", true},       {"residual_in_fp32", true},
                {"fused_add_norm", true}, {"pad_vocab_size_multiple", 8}}
               .dump();
    outcome_ = Bench(
        absl::StrCat("--config=", Path("tiny/config.json"),
                     " --devices=cpu --dtypes=f32 --batches=1 --energy_time=0 ",
                     "--benchmark_filter='^max_context/auto/tiny/.*8GiB' ",
                     "--benchmark_out=", Path("x.json"), " ", flags));
    const Json document = ReadJson("x.json");
    EXPECT_EQ(document["benchmarks"].size(), 1u);
    return document["benchmarks"].empty() ? Json::object()
                                          : document["benchmarks"][0];
  }
  Outcome outcome_;
};

// Planning is in the limit, too, and slow under a sanitizer.
TEST_F(MaxContextBenchTest, ThePlansResultIsSaidWhereTheRunTakesTooLong) {
  const Json row = Row(64, 256, "--row_timeout=60");
  EXPECT_EQ(outcome_.status, 1) << outcome_.err;
  EXPECT_TRUE(row.value("error_occurred", false)) << row;
  EXPECT_THAT(row.value("error_message", ""),
              AllOf(HasSubstr("--row_timeout"),
                    HasSubstr("by the plan max_seqlen is 1048576, which no "
                              "whole run has confirmed")));
}

TEST_F(MaxContextBenchTest, IsConfirmedByARun) {
  const Json row = Row(1, 8, "--max_time=0.01");
  EXPECT_EQ(outcome_.status, 0) << outcome_.err;
  EXPECT_EQ(row.value("max_seqlen", 0.0), 1048576) << row;
  EXPECT_EQ(row.value("samples", 0.0), 1) << row;  // this very run
  double shares = 0;
  for (const auto& [name, value] : row.items())
    if (name.rfind("share_", 0) == 0) shares += value.get<double>();
  EXPECT_NEAR(shares, 1, 1e-6) << row;
}

}  // namespace
}  // namespace seqmark
