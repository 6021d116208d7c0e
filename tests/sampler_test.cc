// SPDX-License-Identifier: Apache-2.0
//
// The sampler on a fake device with a fake clock.
#include "fixtures/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

namespace seqmark {
namespace {

class FakeSource final : public SampleSource {
 public:
  using Draw = std::function<double(std::mt19937&)>;
  explicit FakeSource(Draw draw, unsigned seed = 1)
      : draw_(std::move(draw)), random_(seed) {}

  absl::StatusOr<SampleBatch> Take(int count) override {
    EXPECT_GE(count, 1);
    largest_batch = std::max(largest_batch, count);
    if (fail_at_batch >= 0 && batches++ == fail_at_batch)
      return absl::InternalError("the kernel died");
    SampleBatch batch;
    batch.clock_hz = clock ? clock(now) : 0;
    batch.power_limited = power_limited && power_limited(now);
    batch.host_seconds = host_seconds;
    for (int i = 0; i < count; ++i) {
      batch.seconds.push_back(draw_(random_));
      now += batch.seconds.back() + overhead;
    }
    return batch;
  }
  double Now() override { return now; }
  double ExpectedClockHz() override { return expected_clock; }

  double now = 1000;
  double overhead = 1e-6;  // wall time around a sample
  double host_seconds = 0;
  double expected_clock = 0;
  std::function<double(double now)> clock;
  std::function<bool(double now)> power_limited;
  int fail_at_batch = -1;
  int batches = 0;
  int largest_batch = 0;

 private:
  Draw draw_;
  std::mt19937 random_;
};

FakeSource::Draw Constant(double seconds) {
  return [seconds](std::mt19937&) { return seconds; };
}
FakeSource::Draw Normal(double mean, double deviation) {
  return [=](std::mt19937& random) {
    return std::normal_distribution<double>(mean, deviation)(random);
  };
}

SamplerOptions Waiting(FakeSource& source) {
  SamplerOptions options;
  options.wait = [&source](double seconds) { source.now += seconds; };
  return options;
}

void ExpectFinite(const SampleSummary& s) {
  for (double v : {s.median, s.p10, s.p90, s.noise, s.clock_hz, s.host_seconds,
                   s.wall_seconds}) {
    EXPECT_TRUE(std::isfinite(v));
    EXPECT_GE(v, 0);
  }
  EXPECT_GE(s.samples, 1);
  EXPECT_LE(s.p10, s.median);
  EXPECT_LE(s.median, s.p90);
}

SampleSummary Summary(FakeSource& source, const SamplerOptions& options) {
  absl::StatusOr<SampleSummary> summary = Sample(source, options);
  EXPECT_TRUE(summary.ok()) << summary.status();
  if (!summary.ok()) return {};
  ExpectFinite(*summary);
  return *summary;
}

TEST(Sampler, ConstantTime) {
  FakeSource source(Constant(1e-3));
  source.host_seconds = 4e-6;
  const SampleSummary s = Summary(source, Waiting(source));
  EXPECT_DOUBLE_EQ(s.median, 1e-3);
  EXPECT_DOUBLE_EQ(s.p10, 1e-3);
  EXPECT_DOUBLE_EQ(s.p90, 1e-3);
  EXPECT_EQ(s.noise, 0);
  EXPECT_TRUE(s.converged);
  EXPECT_GE(s.samples * s.median, 0.0999);
  EXPECT_LT(s.samples, 200);
  EXPECT_EQ(s.clock_hz, 0);
  EXPECT_DOUBLE_EQ(s.host_seconds, 4e-6);
  EXPECT_GE(s.warm_up_samples, 3);
}

TEST(Sampler, NormalStopsWhenTheNoiseIsLowEnough) {
  FakeSource source(Normal(2e-3, 2e-5));
  SamplerOptions options = Waiting(source);
  options.min_time = 0;
  const SampleSummary loose = Summary(source, options);
  EXPECT_NEAR(loose.median, 2e-3, 2e-5);
  EXPECT_LE(loose.noise, 0.005);
  EXPECT_GE(loose.samples, options.min_samples);
  options.noise = 0.0008;
  const SampleSummary tight = Summary(source, options);
  EXPECT_TRUE(tight.converged);
  EXPECT_GT(tight.samples, 4 * loose.samples);
  EXPECT_NEAR(tight.p10, 2e-3 - 1.28 * 2e-5, 4e-6);
  EXPECT_NEAR(tight.p90, 2e-3 + 1.28 * 2e-5, 4e-6);
}

TEST(Sampler, BimodalAndHeavyTailed) {
  FakeSource bimodal([](std::mt19937& random) {
    return std::bernoulli_distribution(0.7)(random) ? 1e-3 : 1.5e-3;
  });
  EXPECT_DOUBLE_EQ(Summary(bimodal, Waiting(bimodal)).median, 1e-3);
  FakeSource heavy([](std::mt19937& random) {
    return 1e-4 + 1e-6 * std::fabs(std::cauchy_distribution<>(0, 1)(random));
  });
  SamplerOptions options = Waiting(heavy);
  options.max_time = 50;  // a draw may be longer than seconds
  EXPECT_NEAR(Summary(heavy, options).median, 1.01e-4, 2e-7);
}

TEST(Sampler, TimeCapIsHonoured) {
  // Too wide for five seconds' worth of samples.
  FakeSource source([](std::mt19937& random) {
    return std::uniform_real_distribution<>(1e-3, 9e-3)(random);
  });
  const SamplerOptions options = Waiting(source);
  const SampleSummary s = Summary(source, options);
  EXPECT_FALSE(s.converged);
  EXPECT_GT(s.noise, options.noise);
  EXPECT_GT(s.wall_seconds, 0.95 * options.max_time);
  EXPECT_LT(s.wall_seconds, 1.05 * options.max_time);
}

TEST(Sampler, SampleCapAndBatchSize) {
  FakeSource source(Normal(2e-6, 1e-6 / 3));
  SamplerOptions options = Waiting(source);
  options.noise = 0;
  options.max_samples = 5000;
  const SampleSummary s = Summary(source, options);
  EXPECT_EQ(s.samples, 5000);
  EXPECT_GE(source.largest_batch, 500);
  FakeSource slow(Normal(5e-3, 5e-5));
  Summary(slow, Waiting(slow));
  EXPECT_LE(slow.largest_batch, 10);
}

TEST(Sampler, LongCalls) {
  FakeSource two_seconds(Normal(2, 0.2));
  const SampleSummary few = Summary(two_seconds, Waiting(two_seconds));
  EXPECT_EQ(few.samples, 3);
  EXPECT_EQ(few.warm_up_samples, 1);
  FakeSource minute(Constant(60));
  const SampleSummary one = Summary(minute, Waiting(minute));
  EXPECT_EQ(one.samples, 1);
  EXPECT_EQ(one.warm_up_samples, 0);
  EXPECT_EQ(one.median, 60);
  EXPECT_EQ(one.noise, 1);
  EXPECT_FALSE(one.converged);
  FakeSource third(Constant(0.3));  // fewer than min_samples within the cap
  const SampleSummary s = Summary(third, Waiting(third));
  EXPECT_GE(s.samples, 14);
  EXPECT_LE(s.samples, 17);
}

TEST(Sampler, SamplesOfNoLength) {
  for (double overhead : {0.0, 1e-7}) {
    FakeSource source(Constant(0));
    source.overhead = overhead;
    source.power_limited = [](double now) { return now < 1001; };
    const SampleSummary s = Summary(source, Waiting(source));
    EXPECT_EQ(s.median, 0);
    EXPECT_EQ(s.noise, 0);
  }
  FakeSource coarse([](std::mt19937& random) {
    return std::bernoulli_distribution(0.4)(random) ? 1e-6 : 0.0;
  });
  EXPECT_EQ(Summary(coarse, Waiting(coarse)).median, 0);
}

TEST(Sampler, ThrottledBatchesAreDropped) {
  // Slow for a quarter of every second.
  double* now = nullptr;
  FakeSource source([&now](std::mt19937&) {
    return std::fmod(*now, 1) < 0.25 ? 2e-3 : 1e-3;
  });
  now = &source.now;
  source.clock = [](double t) { return std::fmod(t, 1) < 0.25 ? 1e9 : 2e9; };
  source.expected_clock = 2e9;
  source.now = 2000;
  const SampleSummary s = Summary(source, Waiting(source));
  EXPECT_GT(s.dropped, 0);
  EXPECT_FALSE(s.throttled);
  EXPECT_NEAR(s.median, 1e-3, 1e-9);
  EXPECT_GE(s.samples, 20);
  EXPECT_DOUBLE_EQ(s.clock_hz, 2e9);
}

TEST(Sampler, AllThrottledIsKeptAndSaid) {
  FakeSource source(Normal(1e-3, 1e-6));
  source.clock = [](double) { return 1e9; };
  source.expected_clock = 2e9;
  const SamplerOptions options = Waiting(source);
  const SampleSummary s = Summary(source, options);
  EXPECT_TRUE(s.throttled);
  EXPECT_EQ(s.dropped, 0);
  EXPECT_GE(s.samples, 20);
  EXPECT_NEAR(s.median, 1e-3, 1e-6);
  EXPECT_DOUBLE_EQ(s.clock_hz, 1e9);
  EXPECT_LT(s.wall_seconds, options.max_time);
}

// A device whose clock falls to less than the floor, within 0.3 s after a load
// of `fall` seconds, by its power limit.
class FallingClock {
 public:
  explicit FallingClock(double fall = 0.1)
      : source([this](std::mt19937&) { return 2e6 / Clock(); }), fall_(fall) {
    source.expected_clock = 2e9;
    source.clock = [this](double) { return Clock(); };
    source.power_limited = [this](double) { return Clock() < 2e9; };
  }
  double Clock() const {
    const double load = source.now - 1000;
    return 2e9 - 0.7e9 * std::clamp((load - fall_) / 0.3, 0.0, 1.0);
  }
  FakeSource source;

 private:
  double fall_;
};

TEST(Sampler, OfAFallingClockWhatLastsCounts) {
  FallingClock gpu;
  const SampleSummary s = Summary(gpu.source, Waiting(gpu.source));
  EXPECT_TRUE(s.low_clock);
  EXPECT_FALSE(s.throttled);  // by its power limit: no batch is dropped
  EXPECT_EQ(s.dropped, 0);
  EXPECT_DOUBLE_EQ(s.p10, 2e6 / 1.3e9);  // not one sample of before
  EXPECT_DOUBLE_EQ(s.clock_hz, 1.3e9);
  EXPECT_GT(s.wall_seconds, 1.5);
  EXPECT_LT(s.wall_seconds, 1.6);
}

// Of a clock that falls after so many seconds, sampled for so many and more.
SampleSummary OfALateFall(double fall, double min_time) {
  FallingClock gpu(fall);
  SamplerOptions options = Waiting(gpu.source);
  options.min_time = min_time;
  return Summary(gpu.source, options);
}

// What was kept until then was of another state.
TEST(Sampler, AClockThatFallsLateStartsAnew) {
  const SampleSummary s = OfALateFall(1, 1.5);
  EXPECT_TRUE(s.low_clock);
  EXPECT_GT(s.p10, 1.01e-3);
  EXPECT_DOUBLE_EQ(s.median, 2e6 / 1.3e9);
  EXPECT_GT(s.wall_seconds, 2.5);
}

// Where nothing tells of the power limit: as low, and longer, but not dropped
// unless it is below the floor.
TEST(Sampler, AClockThatIsLowForNoKnownReason) {
  FallingClock gpu;
  gpu.source.power_limited = nullptr;
  SamplerOptions options = Waiting(gpu.source);
  options.clock_floor = 0.6;
  const SampleSummary s = Summary(gpu.source, options);
  EXPECT_TRUE(s.low_clock);
  EXPECT_DOUBLE_EQ(s.p10, 2e6 / 1.3e9);
  EXPECT_EQ(s.dropped, 0);
}

// The driver's counter comes late: batches were dropped meanwhile, for a clock
// below the floor, or kept, for one above.
TEST(Sampler, APowerLimitThatIsSaidLate) {
  for (const double floor : {0.75, 0.6}) {
    FallingClock gpu(0);
    gpu.source.power_limited = [&gpu](double now) { return now >= 1000.9; };
    SamplerOptions options = Waiting(gpu.source);
    options.clock_floor = floor;
    const SampleSummary s = Summary(gpu.source, options);
    EXPECT_TRUE(s.low_clock);
    EXPECT_FALSE(s.throttled);
    EXPECT_DOUBLE_EQ(s.p10, 2e6 / 1.3e9);
    EXPECT_DOUBLE_EQ(s.p90, 2e6 / 1.3e9);
    EXPECT_GE(s.samples, 100);
  }
}

// Between the two fractions it is the counter that tells, if not at once.
TEST(Sampler, ASlightlyLowClockIsWatchedForHalfASecond) {
  FakeSource source(Constant(1e-3));
  source.expected_clock = 2e9;
  source.clock = [](double) { return 1.85e9; };
  const SampleSummary products = Summary(source, Waiting(source));
  EXPECT_FALSE(products.low_clock);
  EXPECT_GT(products.wall_seconds, 0.49);
  EXPECT_LT(products.wall_seconds, 0.6);

  source.now = 2000;
  source.power_limited = [](double now) { return now > 2000.4; };
  const SampleSummary limited = Summary(source, Waiting(source));
  EXPECT_TRUE(limited.low_clock);
  EXPECT_GT(limited.wall_seconds, 1.45);
  EXPECT_LT(limited.wall_seconds, 1.6);
}

// Met with a third of the time left, or less: what was kept is what there is.
TEST(Sampler, AClockThatFallsTooLateChangesNothing) {
  const SampleSummary s = OfALateFall(4, 4.5);
  EXPECT_TRUE(s.low_clock);
  EXPECT_GT(s.samples, 3000);
  EXPECT_LT(s.wall_seconds, 5.1);
}

TEST(Sampler, AClockThatIsHeldTakesNoLonger) {
  FakeSource high(Constant(1e-3));
  high.expected_clock = 2e9;
  high.clock = [](double) { return 1.96e9; };
  high.power_limited = [](double) { return true; };
  const SampleSummary s = Summary(high, Waiting(high));
  EXPECT_FALSE(s.low_clock);
  EXPECT_LT(s.wall_seconds, 0.3);
  // Low only as it wakes up.
  high.clock = [&](double now) { return now < 2000.04 ? 1e9 : 2e9; };
  high.now = 2000;
  EXPECT_LT(Summary(high, Waiting(high)).wall_seconds, 0.3);
}

TEST(Sampler, ALowClockKeepsToTheCap) {
  FallingClock gpu(0);
  SamplerOptions options = Waiting(gpu.source);
  options.max_time = 0.9;
  const SampleSummary capped = Summary(gpu.source, options);
  EXPECT_TRUE(capped.low_clock);
  EXPECT_LT(capped.wall_seconds, 0.95);
  EXPECT_GT(capped.samples, 300);

  FakeSource third(Constant(0.3));
  third.power_limited = [](double) { return true; };
  const int64_t samples = Summary(third, Waiting(third)).samples;
  EXPECT_GE(samples, 13);
  EXPECT_LE(samples, 16);
  FakeSource two_seconds(Constant(2));
  two_seconds.power_limited = third.power_limited;
  EXPECT_EQ(Summary(two_seconds, Waiting(two_seconds)).samples, 3);
}

TEST(Sampler, ErrorsArePassedOn) {
  for (int at : {0, 1, 5, 8}) {
    FakeSource source(Constant(1e-3));
    source.fail_at_batch = at;
    const absl::Status status = Sample(source, Waiting(source)).status();
    EXPECT_EQ(status, absl::InternalError("the kernel died")) << at;
  }
  FakeSource broken(Constant(NAN));
  EXPECT_FALSE(Sample(broken, Waiting(broken)).ok());
  FakeSource backwards(Constant(-1e-3));
  EXPECT_FALSE(Sample(backwards, Waiting(backwards)).ok());
}

TEST(MedianInterval, SmallCounts) {
  std::vector<double> one = {3};
  EXPECT_EQ(GetMedianInterval(one).median, 3);
  EXPECT_EQ(GetMedianInterval(one).noise(), 0);
  std::vector<double> two = {4, 2};
  EXPECT_EQ(GetMedianInterval(two).median, 3);
  EXPECT_DOUBLE_EQ(GetMedianInterval(two).noise(), 1.0 / 3);
  // 95 % of nine: the second to the eighth (binomial tables: 96.1 %).
  std::vector<double> nine = {9, 1, 8, 2, 7, 3, 6, 4, 5};
  const MedianInterval interval = GetMedianInterval(nine);
  EXPECT_EQ(interval.median, 5);
  EXPECT_EQ(interval.low, 2);
  EXPECT_EQ(interval.high, 8);
}

// The interval must hold the true median as often as it says, for a skewed
// distribution too, and when the sampler itself chose to stop.
TEST(Sampler, IntervalCoverage) {
  constexpr int kRuns = 400;
  int fixed = 0, stopped = 0;
  std::mt19937 random(7);
  std::lognormal_distribution<double> draw(0, 0.05);  // median 1
  for (int run = 0; run < kRuns; ++run) {
    std::vector<double> seconds(41 + run);
    for (double& s : seconds) s = draw(random);
    const MedianInterval interval = GetMedianInterval(seconds);
    fixed += interval.low <= 1 && 1 <= interval.high;

    FakeSource source(
        [](std::mt19937& r) {
          return 1e-3 * std::lognormal_distribution<double>(0, 0.02)(r);
        },
        static_cast<unsigned>(run));
    SamplerOptions options = Waiting(source);
    options.min_time = 0;
    const SampleSummary s = Summary(source, options);
    stopped += std::fabs(s.median - 1e-3) <= s.noise * s.median * 1.0001;
  }
  EXPECT_GE(fixed, 0.93 * kRuns);
  EXPECT_GE(stopped, 0.90 * kRuns);
}

// A clock that was set back by an hour: not an hour more of sampling.
TEST(Sampler, AClockThatStepsBackDelaysNothing) {
  for (const double when : {1000.0, 1000.02, 1000.5}) {
    FakeSource source(Normal(1e-3, 1e-4), 3);
    SamplerOptions options = Waiting(source);
    options.noise = 1e-9;  // never reached: the cap ends it
    options.max_time = 2;
    bool stepped = false;
    int64_t batches = 0;
    source.clock = [&](double now) {
      ++batches;
      if (!stepped && now >= when) {
        source.now -= 3600;
        stepped = true;
      }
      return 0.0;
    };
    const SampleSummary s = Summary(source, options);
    EXPECT_TRUE(stepped);
    EXPECT_GT(s.samples, 1000);
    EXPECT_LT(s.samples, 2500);
    EXPECT_NEAR(s.wall_seconds, 2, 0.3);
  }
}

}  // namespace
}  // namespace seqmark
