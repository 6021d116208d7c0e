// SPDX-License-Identifier: Apache-2.0
//
// How often a row of many calls is run to know the time of each, and a source
// that has to be prepared.
#include "bench/part_times.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "bench/options.h"
#include "bench/row_runner.h"
#include "fixtures/sampler.h"

namespace seqmark {
namespace {

// Two calls; the second one takes five times as long.
std::vector<RowPart> Parts(int& first_calls) {
  const auto sleep = [](int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    return absl::OkStatus();
  };
  return {{.name = "norm/x",
           .op_class = "norm",
           .launch =
               [sleep, &first_calls](Stream) {
                 ++first_calls;
                 return sleep(2);
               },
           .flops = 3},
          {.name = "gemm/y",
           .op_class = "gemm",
           .launch = [sleep](Stream) { return sleep(10); },
           .bytes = 4}};
}

void Check(const std::vector<TimedPart>& timed) {
  ASSERT_EQ(timed.size(), 2u);
  EXPECT_EQ(timed[0].name, "norm/x");
  EXPECT_EQ(timed[0].flops, 3);
  EXPECT_EQ(timed[1].op_class, "gemm");
  EXPECT_EQ(timed[1].bytes, 4);
  EXPECT_GE(timed[0].seconds, 2e-3);
  EXPECT_GE(timed[1].seconds, 10e-3);
}

TEST(PartTimes, OnePassWhereTwoTakeTooLong) {
  auto device = MakeCpuDevice({.threads = 1});
  ASSERT_TRUE(device.ok());
  for (const auto& [most_seconds, passes] :
       {std::pair{1.0, 2}, std::pair{0.024, 2}, std::pair{0.023, 1}}) {
    int calls = 0;
    const auto timed = TimeParts(Parts(calls), 0.012, most_seconds, **device);
    ASSERT_TRUE(timed.ok());
    EXPECT_EQ(calls, passes);
    Check(*timed);
  }
  const auto none = TimeParts({}, 0.012, 1, **device);
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST(PartTimes, OfTheFirstCallItself) {
  int calls = 0;
  const FirstCallParts parts(Parts(calls));
  const Launch launch = parts.launch();
  EXPECT_EQ(calls, 0);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(launch(nullptr).ok());
  const std::chrono::duration<double> call =
      std::chrono::steady_clock::now() - start;
  Check(parts.timed());
  const double sum = parts.timed()[0].seconds + parts.timed()[1].seconds;
  EXPECT_LE(sum, call.count());
  EXPECT_GE(sum, 0.5 * call.count());
  ASSERT_TRUE(launch(nullptr).ok());
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(parts.timed().size(), 2u);
}

// A row whose call takes longer than --max_time, and one of which there is
// time for more: how often their calls are made in all.
class SlowRow final : public Row {
 public:
  explicit SlowRow(int& calls) : calls_(calls) {
    name_ = {.op = "slow", .provider = "auto", .shape = "x"};
  }
  Cost cost() const override { return {.matrix_flops = flops}; }
  size_t bytes_read() const override { return 0; }
  size_t bytes_written() const override { return 0; }
  absl::StatusOr<std::unique_ptr<RowInstance>> Instantiate(
      Device&, const InstanceOptions&) const override {
    return std::make_unique<Instance>(calls_);
  }
  double flops = 1;

 private:
  class Instance final : public RowInstance {
   public:
    explicit Instance(int& calls) : parts_(Parts(calls)) {
      launch_ = [parts = parts_](Stream stream) {
        absl::Status status;
        for (const RowPart& part : parts) status.Update(part.launch(stream));
        return status;
      };
    }
    absl::StatusOr<std::vector<OutputError>> Verify() override {
      return std::vector<OutputError>{};
    }
    absl::StatusOr<std::string> RunAndReadOutputs() override { return ""; }
    std::vector<RowPart> parts() const override { return parts_; }
    std::map<std::string, double> counters() const override {
      return {{"max_seqlen", 1048576}};
    }

   private:
    std::vector<RowPart> parts_;
  };
  int& calls_;
};

Options QuickOptions() {
  Options options;
  options.energy_time = 0;
  options.max_time = 0.005;
  options.benchmark.min_time = 0.001;
  return options;
}

TEST(RowRunner, ALongCallIsMadeOnce) {
  Options options = QuickOptions();
  RowRunner runner(options);
  int calls = 0;
  const SlowRow row(calls);
  std::string said;
  const auto result =
      runner.Run(row, [&](const std::string& text) { said = text; });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(result->counters.at("samples"), 1);
  Check(result->parts);
  EXPECT_NEAR(result->parts[0].seconds + result->parts[1].seconds,
              result->seconds, 0.1 * result->seconds);
  EXPECT_NEAR(result->counters.at("share_norm") +
                  result->counters.at("share_gemm") +
                  result->counters.at("share_other"),
              1, 1e-9);
  EXPECT_EQ(said,
            "by the plan max_seqlen is 1048576, which no whole run has "
            "confirmed");

  options.max_time = 0.2;  // its time is known before the parts' are asked for
  calls = 0;
  const auto sampled = runner.Run(row);
  ASSERT_TRUE(sampled.ok()) << sampled.status();
  EXPECT_GT(sampled->counters.at("samples"), 3);
  EXPECT_GT(calls, 5);
  Check(sampled->parts);
}

TEST(RowRunner, WhatCannotEndInTimeIsNotBegun) {
  Options options = QuickOptions();
  options.row_timeout = 5;
  RowRunner runner(options);
  int calls = 0;
  SlowRow row(calls);
  row.flops = 1e18;
  const absl::Status status = runner.Run(row).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_FALSE(IsSkip(status));
  for (const char* part : {"a row 5 s at most (--row_timeout)",
                           "max_seqlen is 1048576, which no whole run"})
    EXPECT_NE(status.message().find(part), absl::string_view::npos) << status;
  EXPECT_EQ(calls, 0);
}

// Whose first sample would take long if nobody had prepared it.
class PreparedSource final : public SampleSource {
 public:
  absl::Status Prepare() override {
    if (!prepared_) now_ += 10;
    prepared_ = true;
    return fails ? absl::InternalError("no kernel") : absl::OkStatus();
  }
  absl::StatusOr<SampleBatch> Take(int count) override {
    if (absl::Status s = Prepare(); !s.ok()) return s;
    now_ += count;
    return SampleBatch{.seconds = std::vector<double>(count, 1.0)};
  }
  double Now() override { return now_; }
  bool fails = false;

 private:
  bool prepared_ = false;
  double now_ = 0;
};

TEST(Sampler, PreparingIsNoSample) {
  PreparedSource source;
  const auto summary = Sample(source, {.max_time = 5});
  ASSERT_TRUE(summary.ok());
  EXPECT_GE(summary->samples, 3);
  EXPECT_LE(summary->wall_seconds, 6);
  PreparedSource failing;
  failing.fails = true;
  EXPECT_EQ(Sample(failing, {}).status(), absl::InternalError("no kernel"));
}

}  // namespace
}  // namespace seqmark
