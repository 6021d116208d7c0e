// SPDX-License-Identifier: Apache-2.0
#include "bench/throttle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fake_root.h"

namespace seqmark {
namespace {

struct FakeGpu {
  absl::StatusOr<uint64_t> reasons = 0;
  absl::StatusOr<double> power = 5.0, thermal = 1.0;
  int looks = 0;
};

class FakeNvml final : public Nvml {
 public:
  explicit FakeNvml(FakeGpu& gpu) : gpu_(gpu) {}
  GpuState State() const override { return GpuState(); }
  absl::StatusOr<uint64_t> ClocksEventReasons() const override {
    ++gpu_.looks;
    return gpu_.reasons;
  }
  absl::StatusOr<double> PowerCapSeconds() const override { return gpu_.power; }
  absl::StatusOr<double> ThermalSeconds() const override {
    return gpu_.thermal;
  }
  absl::StatusOr<uint64_t> TotalEnergyMillijoules() const override { return 0; }

 private:
  FakeGpu& gpu_;
};

class GpuThrottle : public testing::Test {
 protected:
  FakeGpu gpu_;
  double now_ = 100;
  std::unique_ptr<ThrottleWatch> watch_ = MakeGpuThrottleWatch(
      std::make_unique<FakeNvml>(gpu_), [this] { return now_; });
  // Looks every millisecond for a second.
  Slowdown WatchASecond(const std::function<void(int)>& at = [](int) {}) {
    watch_->Start();
    for (int i = 0; i < 1000; ++i) {
      at(i);
      now_ += 1e-3;
      watch_->Look();
    }
    return watch_->Stop();
  }
};

TEST_F(GpuThrottle, NothingIsNothing) {
  const Slowdown slowdown = WatchASecond();
  EXPECT_EQ(slowdown.fraction, 0);
  EXPECT_EQ(slowdown.what, "");
  EXPECT_LE(gpu_.looks, 51);  // the driver is not asked at each
}

TEST_F(GpuThrottle, IdleAndSetClocksAreNoSlowdown) {
  gpu_.reasons = 0x1 | 0x2;
  EXPECT_EQ(WatchASecond().what, "");
}

TEST_F(GpuThrottle, CountersGiveTheShareOfTime) {
  const Slowdown slowdown = WatchASecond([this](int i) {
    if (i == 500) *gpu_.power += 0.43;
    if (i == 600) *gpu_.thermal += 0.1;
  });
  EXPECT_NEAR(slowdown.fraction, 0.43, 1e-3);
  EXPECT_EQ(slowdown.what,
            "power cap for 43 % of the time, heat for 10 % of the time");
}

TEST_F(GpuThrottle, ThePowerLimitIsMetWhileItsCounterGrows) {
  const auto look = [this] {
    now_ += 0.1;
    watch_->Look();
    return watch_->power_limited();
  };
  watch_->Start();
  EXPECT_FALSE(watch_->power_limited());
  *gpu_.power += 0.1;
  EXPECT_TRUE(look());
  EXPECT_FALSE(look());
  *gpu_.power += 0.1;
  watch_->Start();  // before this row
  EXPECT_FALSE(look());
  gpu_.reasons = absl::UnavailableError("no answer");
  *gpu_.power += 0.1;
  EXPECT_TRUE(look());
  const double before = *gpu_.power;
  gpu_.power = absl::UnavailableError("not supported");
  EXPECT_FALSE(look());
  gpu_.power = before + 0.1;  // what grew meanwhile is not lost
  EXPECT_TRUE(look());
  gpu_.power = absl::UnavailableError("not supported");
  gpu_.reasons = kClocksPowerCap;
  EXPECT_TRUE(look());
  gpu_.reasons = kClocksHwThermal;
  EXPECT_FALSE(look());
}

// Between the sampler and the device.
TEST_F(GpuThrottle, ABatchSaysWhetherTheLimitWasMet) {
  class Source final : public SampleSource {
   public:
    absl::StatusOr<SampleBatch> Take(int) override { return SampleBatch(); }
    double Now() override { return 0; }
  } source;
  WatchedSource watched(source, watch_.get());
  watch_->Start();
  now_ += 0.1;
  EXPECT_FALSE(watched.Take(1)->power_limited);
  now_ += 0.1;
  *gpu_.power += 0.1;
  EXPECT_TRUE(watched.Take(1)->power_limited);
  EXPECT_FALSE(WatchedSource(source, nullptr).Take(1)->power_limited);
}

TEST_F(GpuThrottle, LooksDoWhereNothingCounts) {
  gpu_.power = gpu_.thermal = absl::UnavailableError("not supported");
  const Slowdown slowdown = WatchASecond(
      [this](int i) { gpu_.reasons = i < 500 ? kClocksPowerCap : 0; });
  EXPECT_NEAR(slowdown.fraction, 0.5, 0.03);
  EXPECT_THAT(slowdown.what, testing::StartsWith("power cap at "));
  gpu_.reasons = absl::UnavailableError("no answer");
  EXPECT_EQ(WatchASecond().what, "");
  EXPECT_EQ(watch_->Now(), "not known: no answer");
}

TEST(CpuThrottle, SeesQuotaHeatAndTheHypervisor) {
  const FakeRoot root;
  PutQuietHost(root);
  double now = 0;
  const auto watch =
      MakeCpuThrottleWatch(root.path(), 2, [&now] { return now; });
  watch->Start();
  now = 1;
  EXPECT_EQ(watch->Stop().what, "");
  watch->Start();
  now = 2;
  root.Put("/sys/fs/cgroup/a/b/cpu.stat", "throttled_usec 1600000");
  root.Put("/proc/stat", "cpu  10 0 5 1000 1 0 0 240 0 0");
  root.Put("/sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count",
           "5");
  const Slowdown slowdown = watch->Stop();
  EXPECT_EQ(slowdown.what,
            "CPU quota for 10 % of the time, CPU time taken by the hypervisor "
            "for 20 % of the time, 2 thermal events");
  EXPECT_NEAR(slowdown.fraction, 0.2, 1e-9);
}

TEST(CpuThrottle, KnowsNothingWithoutAWord) {
  const FakeRoot root;
  double now = 0;
  const auto watch = MakeCpuThrottleWatch(root.path(), 2, [&] { return now; });
  watch->Start();
  now = 1;
  EXPECT_EQ(watch->Stop().what, "");
  EXPECT_THAT(watch->Now(), testing::HasSubstr("not known"));
}

}  // namespace
}  // namespace seqmark
