// SPDX-License-Identifier: Apache-2.0
//
// The program on a user's own model, and the flags of whole models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/bench_program.h"
#include "tests/changed_checkpoint.h"
#include "tests/golden_models.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ModelBenchTest : public BenchTest {
 protected:
  // Prefill and decode of a Llama's checkpoint.
  Outcome Llama(const std::string& folder, const std::string& flags) {
    return Bench(absl::StrCat(
        "--checkpoint=", folder, " --devices=cpu --dtypes=f32 --batches=2 ",
        "--seqlens=40 --energy_time=0 --max_time=0.05 ", flags,
        " --benchmark_filter='^(prefill|decode)/.*/llama/' --benchmark_out=",
        Path("x.json")));
  }
  // The rows, by what comes before the model's name.
  std::map<std::string, Json> Rows() {
    std::map<std::string, Json> rows;
    const Json document = ReadJson("x.json");
    for (const Json& row : document["benchmarks"]) {
      const std::string name = row["name"];
      rows[name.substr(0, name.find("/llama/"))] = row;
    }
    return rows;
  }
};

TEST_F(ModelBenchTest, ACheckpointsRowsAreAsTheFlagsSay) {
  const std::string folder = GoldenFolder("llama");
  Outcome outcome = Llama(folder, "");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const auto plain = Rows();
  ASSERT_EQ(plain.size(), 2u);

  outcome = Llama(folder,
                  "--logits=all --prefill_chunk=16 "
                  "--model_providers=norm_gemm:composed,gemm:onednn");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const auto rows = Rows();
  ASSERT_EQ(rows.size(), 2u);
  const std::string provider = "/gemm.onednn-norm_gemm.composed";
  for (const char* phase : {"prefill", "decode"}) {
    SCOPED_TRACE(phase);
    for (const Json& row :
         {plain.at(absl::StrCat(phase, "/auto")), rows.at(phase + provider)}) {
      EXPECT_GT(row.value("real_time", 0.0), 0) << row;
      EXPECT_GT(row.value("samples", 0), 0) << row;
      EXPECT_FALSE(row.contains("error_occurred")) << row;
    }
  }
  // f32 logits of two sequences, with 61 entries: of 40 tokens, not of one.
  constexpr double kToken = 2 * 61 * 4, kGranule = 256;
  const auto logits = [](const Json& row) {
    return row.at("memory_logits").get<double>();
  };
  EXPECT_NEAR(logits(plain.at("prefill/auto")), kToken, kGranule);
  EXPECT_NEAR(logits(rows.at("prefill" + provider)), 40 * kToken, kGranule);
  EXPECT_NEAR(logits(rows.at("decode" + provider)), kToken, kGranule);
  // Activations are of 16 tokens, not of all 40.
  EXPECT_LT(
      rows.at("prefill" + provider).at("memory_activations"),
      0.5 * plain.at("prefill/auto").at("memory_activations").get<double>());
  // Calls of a composed operator are booked by what they do.
  for (const Json& row :
       {plain.at("decode/auto"), rows.at("decode" + provider)}) {
    EXPECT_GT(row.value("share_norm", 0.0), 0) << row;
    EXPECT_GT(row.value("share_gemm", 0.0), 0) << row;
  }
}

// A file that is there and whole, but not of the config's tensors.
TEST_F(ModelBenchTest, AWrongCheckpointIsItsRowsError) {
  const std::string tensor = "model.layers.1.mlp.up_proj.weight";
  struct {
    void (*change)(Json&, const std::string&);
    const char* message;
  } const cases[] = {{Rename, "no tensor"},
                     {Transpose, "(40, 72); the config needs (72, 40)"},
                     {CallIntegers, "is I32; weights are BF16, F16 or F32"}};
  for (const auto& [change, message] : cases) {
    SCOPED_TRACE(message);
    std::filesystem::remove_all(Path("llama"));
    WriteChangedCheckpoint(
        GoldenFolder("llama"), Path("llama"),
        [&, change = change](Json& header) { change(header, tensor); });
    const Outcome outcome = Llama(Path("llama"), "");
    EXPECT_EQ(outcome.status, 1) << outcome.err;
    const auto rows = Rows();
    EXPECT_EQ(rows.size(), 2u);
    for (const auto& [name, row] : rows) {
      EXPECT_TRUE(row.value("error_occurred", false)) << row;
      EXPECT_THAT(row.value("error_message", ""),
                  AllOf(HasSubstr(message), HasSubstr(tensor)));
    }
  }
}

TEST_F(ModelBenchTest, BadFlagsSayWhatIsRight) {
  std::filesystem::create_directory(Path("empty"));
  const std::string llama = GoldenFolder("llama");
  const std::pair<std::string, const char*> cases[] = {
      {"--checkpoint=/no/such/folder", "/no/such/folder: No such file"},
      {"--checkpoint=" + Path("empty"), "a folder that holds one"},
      {absl::StrCat("--checkpoint=", llama, ",", llama), "named llama"},
      {"--logits=some", "--logits=some: expected last or all"},
      {"--prefill_chunk=-1", "--prefill_chunk=-1: expected 0 or more"},
      {"--prefill_chunk=x", "flag 'prefill_chunk'"},
      {"--model_providers=gemm:magic", "<provider> with one of "},
      {"--model_providers=gemm", "expected <operator>:<provider>"},
      {"--model_providers=nosuch:native", "there is no such operator"},
  };
  for (const auto& [flags, message] : cases) {
    SCOPED_TRACE(flags);
    const Outcome outcome =
        Bench(flags + " --devices=cpu --benchmark_list_tests");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr(message));
    EXPECT_EQ(outcome.out, "");
  }
}

}  // namespace
}  // namespace seqmark
