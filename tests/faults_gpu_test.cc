// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong with a GPU: its driver, and who else uses it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio.h>

#include "absl/strings/str_cat.h"
#include "tests/bench_program.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class GpuFaultTest : public BenchTest {
 protected:
  Json Rows(const std::string& program, const std::string& flags) const {
    const Outcome outcome =
        Run(program, absl::StrCat(flags, " --max_time=0.1 --energy_time=0 ",
                                  "--benchmark_out=", Path("x.json")));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return ReadJson("x.json");
  }
};

// Nothing can be run, nothing is wrong with the rows: they are skipped, with
// the reason, and what needs no GPU is measured.
TEST_F(GpuFaultTest, AnOldDriverIsSaid) {
#ifndef SEQMARK_FAKE_DRIVER
  GTEST_SKIP() << "this build has no CUDA";
#else
  const std::string program =
      absl::StrCat("LD_LIBRARY_PATH=", SEQMARK_FAKE_DRIVER,
                   ":$LD_LIBRARY_PATH ", SEQMARK_BENCH);
  constexpr char kReason[] = "(the driver is for CUDA 11.8, this build for ";
  const Json document = Rows(
      program,
      "--preset=smoke --devices=cpu,cuda --benchmark_filter='^rmsnorm/native|"
      "^rmsnorm/highway/mamba-130m/.*dtype:bf16'");
  EXPECT_THAT(document["context"].value("cuda_unavailable", ""),
              HasSubstr(kReason));
  int measured = 0;
  for (const Json& row : document["benchmarks"]) {
    if (row["name"].get<std::string>().find("device:cuda") ==
        std::string::npos) {
      EXPECT_GT(row.value("real_time", 0.0), 0) << row;
      ++measured;
      continue;
    }
    EXPECT_TRUE(row.value("skipped", false)) << row;
    EXPECT_THAT(row.value("skip_message", ""), HasSubstr(kReason)) << row;
  }
  EXPECT_GT(measured, 0);
#endif
}

// Another process has all but 3 GiB. What fits is measured, what does not is
// skipped with what it needs and what there is.
TEST_F(GpuFaultTest, AFullGpuSkipsWhatDoesNotFit) {
#ifndef SEQMARK_GPU_HOG
  GTEST_SKIP() << "this build has no CUDA";
#else
  const std::string flags =
      "--preset=full --devices=cuda --dtypes=bf16 --batches=1,64 "
      "--seqlens=1024,65536 --benchmark_filter='^rmsnorm/native/qwen2.5-1.5b/'";
  Rows(SEQMARK_BENCH, flags);  // so that the ceilings are known
  FILE* const hog = popen(
      absl::StrCat(SEQMARK_GPU_HOG, " ", 3ull << 30, " >", Path("hog"), " 2>&1")
          .c_str(),
      "w");
  ASSERT_NE(hog, nullptr);
  std::string said;
  for (int i = 0; i < 600 && said.empty(); ++i) {
    usleep(100'000);
    said = ReadFile(Path("hog"));
  }
  Json document;
  if (said == "taken\n") document = Rows(SEQMARK_BENCH, flags);
  EXPECT_EQ(pclose(hog), 0) << said;
  if (said == "none\n") GTEST_SKIP() << "no GPU";
  ASSERT_EQ(said, "taken\n");
  int measured = 0, skipped = 0;
  for (const Json& row : document["benchmarks"]) {
    if (row.value("skipped", false)) {
      EXPECT_THAT(
          row.value("skip_message", ""),
          AllOf(HasSubstr("more bytes; the GPU has"), HasSubstr("free")));
      ++skipped;
    } else {
      EXPECT_GT(row.value("real_time", 0.0), 0) << row;
      ++measured;
    }
  }
  EXPECT_EQ(skipped, 1);  // 64 sequences of 65536: 26 GB
  EXPECT_EQ(measured, 3);
#endif
}

}  // namespace
}  // namespace seqmark
