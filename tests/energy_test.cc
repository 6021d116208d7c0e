// SPDX-License-Identifier: Apache-2.0
//
// The energy meter on a made-up device whose power is known, and RAPL on
// made-up folders.
#include "fixtures/energy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "fixtures/rapl.h"

namespace seqmark {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr double kIdleWatts = 70;

// A device's time and energy. What it has used is published at updates only.
struct World {
  double update = 0.1;
  std::function<double(double now)> watts = [](double) { return kIdleWatts; };
  double now = 12345.678;
  double used = 9e6;
  double published = 9e6;
  double next_update = 12345.7;
  double stops = INFINITY;  // no updates from here on

  void Advance(double seconds) {
    const double end = now + seconds;
    while (now < end) {
      // Steps small enough that power is constant in each.
      const double to = std::min({end, next_update, now + 1e-4});
      used += (to - now) * watts(now);
      now = to;
      if (now < next_update) continue;
      if (now < stops) published = used;
      next_update += update;
    }
  }
  EnergyOptions Options() {
    EnergyOptions options;
    options.now = [this] { return now; };
    options.wait = [this](double seconds) { Advance(seconds); };
    return options;
  }
};

class FakeCounter final : public EnergyCounter {
 public:
  explicit FakeCounter(World& world) : world_(world) {}
  std::string name() const override { return "a fake counter"; }
  absl::StatusOr<double> Joules() override {
    world_.Advance(5e-5);  // what a look takes
    if (world_.now >= fails_at) return absl::InternalError("the bus is down");
    return world_.published;
  }
  double fails_at = INFINITY;

 private:
  World& world_;
};

// Calls of `seconds`; on a GPU's like, the host looks around while they run.
class FakeSource final : public SampleSource {
 public:
  FakeSource(World& world, double seconds, bool asynchronous)
      : world_(world), seconds_(seconds), asynchronous_(asynchronous) {}
  absl::StatusOr<SampleBatch> Take(int) override {
    return absl::InternalError("nobody asked");
  }
  double Now() override { return world_.now; }

  absl::StatusOr<BusyTime> KeepBusy(
      const std::function<bool(int64_t)>& go_on) override {
    if (fails) return absl::InternalError("the kernel died");
    world_.Advance(3e-4);  // idle still: graphs are made
    const double start = world_.now;
    const auto idle = std::exchange(world_.watts, [this, start](double now) {
      return watts(std::fmod(now - start, seconds_) / seconds_);
    });
    const auto done = [&] {
      return static_cast<int64_t>((world_.now - start) / seconds_ + 1e-9);
    };
    calls = 0;
    do {
      if (done() >= calls) calls = done() + 1;
      world_.Advance(asynchronous_ ? 2e-5 : seconds_);
    } while (go_on(done()));
    world_.Advance(start + static_cast<double>(calls) * seconds_ - world_.now);
    world_.watts = idle;
    return BusyTime{calls, static_cast<double>(calls) * seconds_};
  }

  // By the fraction of a call that is done.
  std::function<double(double)> watts = [](double) { return 500.0; };
  bool fails = false;
  int64_t calls = 0;

 private:
  World& world_;
  double seconds_;
  bool asynchronous_;
};

std::unique_ptr<EnergyMeter> MakeMeter(World& world) {
  auto meter =
      EnergyMeter::Make(std::make_unique<FakeCounter>(world), world.Options());
  EXPECT_TRUE(meter.ok()) << meter.status();
  return meter.ok() ? *std::move(meter) : nullptr;
}

TEST(EnergyMeter, KnowsUpdatesAndIdlePower) {
  for (const double update : {1e-3, 0.02, 0.1}) {
    World world{.update = update};
    const auto meter = MakeMeter(world);
    ASSERT_NE(meter, nullptr);
    EXPECT_NEAR(meter->update_seconds(), update, 2e-4 + 0.01 * update);
    EXPECT_NEAR(meter->idle_watts(), kIdleWatts, 0.005 * kIdleWatts);
    EXPECT_EQ(meter->name(), "a fake counter");
    EXPECT_NEAR(meter->window_seconds(), std::max(0.2, 4 * update), 5e-3);
  }
}

TEST(EnergyMeter, MeasuresCallsOfAnyLength) {
  for (const bool asynchronous : {true, false})
    for (const double update : {1e-3, 0.02, 0.1})
      for (const double seconds : {2e-6, 1e-4, 3e-3, 0.07, 0.3, 1.0, 5.0}) {
        if (!asynchronous && update > 1e-3) continue;  // a CPU's is fast
        World world{.update = update};
        const auto meter = MakeMeter(world);
        ASSERT_NE(meter, nullptr);
        FakeSource source(world, seconds, asynchronous);
        // A call's parts take different power; their mean is 400.
        source.watts = [seconds](double part) {
          return seconds < 1e-3 ? 400.0 : part < 0.25 ? 100.0 : 500.0;
        };
        const double start = world.now;
        const auto reading = meter->Measure(source, seconds);
        ASSERT_TRUE(reading.ok()) << reading.status();
        EXPECT_NEAR(reading->watts, 400, 0.02 * 400)
            << seconds << " s, updates of " << update << " s";
        EXPECT_NEAR(reading->joules, 400 * seconds, 0.02 * 400 * seconds)
            << seconds << " s, updates of " << update << " s";
        EXPECT_LT(world.now - start,
                  meter->window_seconds() + 3 * update + 3 * seconds + 0.01);
        if (seconds == 5) {
          EXPECT_EQ(source.calls, 1);
        }
      }
}

TEST(EnergyMeter, AWrongIdeaOfTheTimeIsNoHarm) {
  for (const double factor : {0.1, 10.0}) {
    World world;
    const auto meter = MakeMeter(world);
    ASSERT_NE(meter, nullptr);
    FakeSource source(world, 0.05, true);
    const auto reading = meter->Measure(source, factor * 0.05);
    ASSERT_TRUE(reading.ok()) << reading.status();
    EXPECT_NEAR(reading->joules, 500 * 0.05, 0.01 * 500 * 0.05);
  }
}

TEST(EnergyMeter, ALoadWithGapsIsDoubted) {
  // 500 W in calls of 100 us; what a call took in the window is J over W.
  EXPECT_EQ(Doubt({.joules = 0.05, .watts = 500}, 1e-4), "");
  EXPECT_EQ(Doubt({.joules = 0.06, .watts = 500}, 1e-4), "");  // a lower clock
  EXPECT_EQ(Doubt({.joules = 0.02, .watts = 500}, 1e-4), "");  // hot, and short
  EXPECT_THAT(Doubt({.joules = 0.088, .watts = 500}, 1e-4),
              testing::HasSubstr("1.76 times as long"));
}

TEST(EnergyMeter, ACounterThatStandsStillIsNone) {
  World world{.stops = 0};
  const auto none =
      EnergyMeter::Make(std::make_unique<FakeCounter>(world), world.Options());
  EXPECT_TRUE(absl::IsUnavailable(none.status())) << none.status();
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("a fake counter: did not move in 1 s"));

  for (const double seconds : {1e-5, 3.0}) {
    World later;
    const auto meter = MakeMeter(later);
    ASSERT_NE(meter, nullptr);
    later.stops = later.now + 0.3;
    FakeSource source(later, seconds, true);
    const auto reading = meter->Measure(source, seconds);
    EXPECT_TRUE(absl::IsUnavailable(reading.status())) << reading.status();
    EXPECT_LT(later.now, later.stops + 1.5 + 2 * seconds);
  }
}

TEST(EnergyMeter, ACounterThatFailsIsUnavailable) {
  World world;
  auto counter = std::make_unique<FakeCounter>(world);
  FakeCounter& failing = *counter;
  const auto meter = EnergyMeter::Make(std::move(counter), world.Options());
  ASSERT_TRUE(meter.ok()) << meter.status();
  failing.fails_at = world.now + 0.3;
  FakeSource source(world, 1e-5, true);
  const absl::Status status = (*meter)->Measure(source, 1e-5).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the bus is down"));
  EXPECT_TRUE(absl::IsUnavailable(
      EnergyMeter::Make(
          [&] {
            auto broken = std::make_unique<FakeCounter>(world);
            broken->fails_at = 0;
            return broken;
          }(),
          world.Options())
          .status()));
}

TEST(EnergyMeter, ACallThatFailsIsTheCallsError) {
  World world;
  const auto meter = MakeMeter(world);
  ASSERT_NE(meter, nullptr);
  FakeSource source(world, 1e-5, true);
  source.fails = true;
  for (const double seconds : {1e-5, 60.0})
    EXPECT_EQ(meter->Measure(source, seconds).status(),
              absl::InternalError("the kernel died"));
}

class RaplTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/seqmark_rapl_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text << "\n";
  }
  void AddZone(const std::string& folder, const std::string& name,
               uint64_t energy, uint64_t range = 1000000000) {
    Write(folder + "/name", name);
    Write(folder + "/max_energy_range_uj", absl::StrCat(range));
    Write(folder + "/energy_uj", absl::StrCat(energy));
  }
  std::string Why() const {
    const auto counter = OpenRapl(root_.string());
    EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
    return std::string(counter.status().message());
  }
  fs::path root_;
};

TEST_F(RaplTest, SumsPackagesAndMemory) {
  AddZone("intel-rapl:0", "package-0", 5000000);
  AddZone("intel-rapl:0:0", "core", 1);
  AddZone("intel-rapl:0:1", "dram", 100);
  AddZone("intel-rapl:1", "package-1", 999999990);
  AddZone("intel-rapl:2", "psys", 1);
  AddZone("intel-rapl-mmio:0", "package-0", 1);
  const auto counter = OpenRapl(root_.string());
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_EQ((*counter)->name(), "RAPL of package-0, dram, package-1");
  EXPECT_EQ(*(*counter)->Joules(), 0);
  Write("intel-rapl:0/energy_uj", "7000000");
  Write("intel-rapl:0:0/energy_uj", "800000000");
  Write("intel-rapl:2/energy_uj", "800000000");
  Write("intel-rapl-mmio:0/energy_uj", "800000000");
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 2);
  Write("intel-rapl:0:1/energy_uj", "500100");
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 2.5);
  Write("intel-rapl:1/energy_uj", "249990");  // starts again from 0
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 2.75);
  Write("intel-rapl:1/energy_uj", "499990");
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 3);
  Write("intel-rapl:1/energy_uj", "much");
  EXPECT_FALSE((*counter)->Joules().ok());
}

TEST_F(RaplTest, SaysWhyThereIsNone) {
  EXPECT_THAT(Why(), HasSubstr("no RAPL counter"));
  AddZone("intel-rapl:0:0", "core", 1);
  EXPECT_THAT(Why(), HasSubstr("no RAPL counter"));
  AddZone("intel-rapl:0", "package-0", 1);
  fs::remove(root_ / "intel-rapl:0/energy_uj");
  EXPECT_THAT(Why(), HasSubstr("energy_uj: No such file"));
  Write("intel-rapl:0/energy_uj", "");
  EXPECT_THAT(Why(), HasSubstr("not microjoules"));
  fs::remove(root_ / "intel-rapl:0/max_energy_range_uj");
  EXPECT_THAT(Why(), HasSubstr("max_energy_range_uj"));
  fs::remove_all(root_);
  EXPECT_THAT(Why(), HasSubstr("No such file"));
}

TEST(EnergyMeter, AClockThatStepsBackDelaysNothing) {
  World world;
  double step = 0;
  EnergyOptions options = world.Options();
  options.now = [&] { return world.now - step; };
  const auto meter =
      EnergyMeter::Make(std::make_unique<FakeCounter>(world), options);
  ASSERT_TRUE(meter.ok()) << meter.status();
  FakeSource source(world, 1e-3, true);
  const double start = world.now;
  source.watts = [&](double) {
    if (world.now > start + 0.25) step = 3600;
    return 500.0;
  };
  const auto reading = (*meter)->Measure(source, 1e-3);
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_NEAR(reading->watts, 500, 5);
  EXPECT_LT(world.now - start, 5);
}

}  // namespace
}  // namespace seqmark
