// SPDX-License-Identifier: Apache-2.0
//
// A slowdown is planted where it is said, as large as it is said, and never
// without a word.
#include "fixtures/plant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/bench_program.h"

namespace seqmark {
namespace {

using testing::HasSubstr;
using testing::Not;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

TEST(Plant, IsReadAsItIsWritten) {
  const auto plant = Plant::Parse("rmsnorm/native:cuda:1.03");
  ASSERT_TRUE(plant.ok()) << plant.status();
  EXPECT_EQ(plant->op, "rmsnorm");
  EXPECT_EQ(plant->provider, "native");
  EXPECT_EQ(plant->device, DeviceKind::kCuda);
  EXPECT_EQ(plant->factor, 1.03);
  EXPECT_EQ(plant->ToString(), "rmsnorm/native:cuda:1.03");
}

TEST(Plant, RefusesWhatItCannotRead) {
  for (const char* text :
       {"", "rmsnorm", "rmsnorm/native", "rmsnorm/native:cuda",
        "rmsnorm:cuda:1.03", "rmsnorm/native:gpu:1.03", "rmsnorm/:cuda:1.03",
        "/native:cuda:1.03", "rmsnorm/native:cuda:1", "rmsnorm/native:cuda:0.9",
        "rmsnorm/native:cuda:nan", "rmsnorm/native:cuda:inf",
        "rmsnorm/native:cuda:1.03:x", "a/b/c:cuda:1.03"})
    EXPECT_EQ(Plant::Parse(text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
}

TEST(Plant, IsForItsProvidersRows) {
  const auto plant = Plant::Parse("rmsnorm/highway:cpu:1.03");
  ASSERT_TRUE(plant.ok());
  RowName name{.op = "rmsnorm", .provider = "highway", .shape = "any"};
  EXPECT_TRUE(plant->IsFor(name));
  name.device = DeviceKind::kCuda;
  EXPECT_FALSE(plant->IsFor(name));
  EXPECT_FALSE(plant->IsFor({.op = "rmsnorm", .provider = "reference"}));
  EXPECT_FALSE(plant->IsFor({.op = "gemm", .provider = "highway"}));
}

TEST(Plant, SlowsACallOnACpu) {
  const auto device = MakeCpuDevice({.threads = 1});
  ASSERT_TRUE(device.ok());
  double own = 0;
  const Launch launch = [&own](Stream) {
    const auto start = Clock::now();
    while (SecondsSince(start) < 1e-3) {
    }
    own = SecondsSince(start);
    return absl::InternalError("what the call says is handed on");
  };
  const auto slowed = Slowed(launch, 1.5, {}, **device);
  ASSERT_TRUE(slowed.ok()) << slowed.status();
  const auto start = Clock::now();
  const absl::Status status = (*slowed)(nullptr);
  const double seconds = SecondsSince(start);
  EXPECT_THAT(std::string(status.message()), HasSubstr("handed on"));
  EXPECT_GE(seconds, 1.5 * own);
}

using PlantedBench = BenchTest;

TEST_F(PlantedBench, IsThreePercentSlowerAndSaysSo) {
  const auto run = [this](const std::string& program, const std::string& name) {
    return Run(program,
               absl::StrCat("--preset=full --max_time=0.3 --benchmark_out=",
                            Path(name)));
  };
  const Outcome plain = run(SEQMARK_STEADY_BENCH, "plain.json");
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_THAT(plain.err, Not(HasSubstr("planted")));
  const Outcome planted = run(SEQMARK_STEADY_BENCH_PLANTED, "planted.json");
  ASSERT_EQ(planted.status, 0) << planted.err;
  EXPECT_THAT(planted.err, HasSubstr("steady/alpha:cpu:1.03"));

  const Json before = ReadJson("plain.json"), after = ReadJson("planted.json");
  EXPECT_FALSE(before["context"].contains("planted"));
  EXPECT_EQ(after["context"]["planted"], "steady/alpha:cpu:1.03");
  ASSERT_EQ(before["benchmarks"].size(), after["benchmarks"].size());
  for (size_t i = 0; i < before["benchmarks"].size(); ++i) {
    const Json &a = before["benchmarks"][i], &b = after["benchmarks"][i];
    const auto name = a["name"].get<std::string>();
    ASSERT_EQ(name, b["name"]);
    const double ratio =
        b["real_time"].get<double>() / a["real_time"].get<double>();
    if (name.starts_with("steady/alpha")) {
      EXPECT_NEAR(ratio, 1.03, 0.01) << name;
      EXPECT_THAT(b.value("label", ""), HasSubstr("planted: 1.03")) << name;
    } else {
      EXPECT_NEAR(ratio, 1, 0.01) << name;
      EXPECT_THAT(b.value("label", ""), Not(HasSubstr("planted"))) << name;
    }
  }
}

}  // namespace
}  // namespace seqmark
