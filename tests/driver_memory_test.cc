// SPDX-License-Identifier: Apache-2.0
//
// --verify_memory on a made-up driver: rows that count what they take, and
// rows that do not.
#include "fixtures/driver_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "bench/counters.h"
#include "fixtures/forwarding_device.h"

namespace seqmark {
namespace {

using testing::HasSubstr;

constexpr size_t kGranule = 4096;

// Lends memory in granules, and loses some that nobody counts on request.
class GranularDevice final : public ForwardingDevice {
 public:
  using Device::Allocate;
  using ForwardingDevice::ForwardingDevice;
  absl::StatusOr<Buffer> Allocate(size_t bytes, MemoryClass kind) override {
    // Counted here, not by the device behind.
    // NOLINTNEXTLINE(bugprone-parent-virtual-call)
    return Device::Allocate(bytes, kind);
  }
  absl::StatusOr<size_t> FreeBytes() const override { return free_; }
  size_t memory_granule() const override { return kGranule; }
  void Lose(size_t bytes) { free_ -= bytes; }

 protected:
  absl::StatusOr<void*> AllocateRaw(size_t bytes) override {
    const size_t lent = (bytes + kGranule - 1) / kGranule * kGranule;
    void* const data = std::aligned_alloc(256, lent);
    lent_[data] = lent;
    free_ -= lent;
    return data;
  }
  void FreeRaw(void* data) override {
    free_ += lent_[data];
    lent_.erase(data);
    std::free(data);
  }

 private:
  size_t free_ = size_t{1} << 30;
  std::map<void*, size_t> lent_;
};

class FakeInstance final : public RowInstance {
 public:
  FakeInstance(std::vector<Buffer> buffers, Launch launch)
      : buffers_(std::move(buffers)) {
    launch_ = std::move(launch);
  }
  absl::StatusOr<std::vector<OutputError>> Verify() override {
    return absl::UnimplementedError("nobody asked");
  }
  absl::StatusOr<std::string> RunAndReadOutputs() override {
    return absl::UnimplementedError("nobody asked");
  }

 private:
  std::vector<Buffer> buffers_;
};

// A row of two tensors, of 10,000 and 100 bytes: 16 KiB of the driver's.
class FakeRow final : public Row {
 public:
  // What a plan and a launch do besides, on the `made`th instance.
  std::function<absl::Status(int made, GranularDevice&)> plan, launch;
  std::vector<size_t> tensors = {10000, 100};

  Cost cost() const override { return {}; }
  size_t bytes_read() const override { return 10000; }
  size_t bytes_written() const override { return 100; }
  absl::StatusOr<std::unique_ptr<RowInstance>> Instantiate(
      Device& device, const InstanceOptions&) const override {
    auto& granular = static_cast<GranularDevice&>(device);
    const int made = ++made_;
    if (plan)
      if (absl::Status s = plan(made, granular); !s.ok()) return s;
    std::vector<Buffer> buffers;
    for (size_t bytes : tensors) buffers.push_back(*device.Allocate(bytes));
    return std::make_unique<FakeInstance>(
        std::move(buffers), [this, made, &granular](Stream) {
          return launch ? launch(made, granular) : absl::OkStatus();
        });
  }

 private:
  mutable int made_ = 0;
};

class DriverMemoryTest : public testing::Test {
 protected:
  absl::StatusOr<CheckedInstance> Check(const FakeRow& row) {
    auto first = row.Instantiate(device_, {});
    if (!first.ok()) return first.status();
    return InstantiateAgain(row, {}, *std::move(first), device_);
  }
  void ExpectError(const FakeRow& row, const char* why) {
    const auto checked = Check(row);
    EXPECT_TRUE(absl::IsInternal(checked.status())) << checked.status();
    EXPECT_THAT(std::string(checked.status().message()), HasSubstr(why));
    EXPECT_EQ(device_.memory().live, 0u);  // both instances are gone
  }
  std::unique_ptr<Device> cpu_ = *MakeCpuDevice({});
  GranularDevice device_{*cpu_};
};

TEST_F(DriverMemoryTest, ARowIsWhatItCounts) {
  const auto checked = Check(FakeRow());
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->memory.gone, 4 * kGranule);
  EXPECT_EQ(checked->memory.counted, 3 * kGranule + 100);
  // This driver does not put the small one next to others.
  EXPECT_EQ(checked->memory.difference(), kGranule - 100.0);
  EXPECT_EQ(checked->memory.allocations, 2);
  EXPECT_EQ(device_.memory().live, 3 * kGranule + 100);  // one instance is left
}

TEST_F(DriverMemoryTest, LargeAllocationsTakeWholeGranules) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  for (const auto& [bytes, taken] :
       std::initializer_list<std::pair<size_t, size_t>>{
           {0, 0},
           {1, 1},
           {4095, 4095},
           {4096, 4096},
           {4097, 8192},
           {8192, 8192},
           {kMost - kGranule, kMost - kGranule + 1},
           {kMost, kMost}}) {
    EXPECT_EQ(device_.TakenBytes(bytes), taken) << bytes;
    EXPECT_EQ(cpu_->TakenBytes(bytes), bytes);
  }
  device_.SetMemoryLimit(3 * kGranule);
  std::optional<Buffer> large = *device_.Allocate(kGranule + 1);
  EXPECT_EQ(device_.memory().live, 2 * kGranule);
  EXPECT_TRUE(
      absl::IsResourceExhausted(device_.Allocate(kGranule + 1).status()));
  EXPECT_TRUE(device_.Allocate(kGranule).ok());
  large.reset();
  EXPECT_EQ(device_.memory().live, 0u);
  EXPECT_EQ(device_.memory().peak, 3 * kGranule);
}

// By a plan, or by the first launch of all.
TEST_F(DriverMemoryTest, WhatIsLoadedOnceIsNotTheRows) {
  for (const bool by_launch : {false, true}) {
    FakeRow row;
    bool loaded = false;
    (by_launch ? row.launch : row.plan) = [&](int, GranularDevice& device) {
      if (!std::exchange(loaded, true)) device.Lose(100 * kGranule);
      return absl::OkStatus();
    };
    const auto checked = Check(row);
    ASSERT_TRUE(checked.ok()) << checked.status();
    EXPECT_EQ(checked->memory.gone, 4 * kGranule);
  }
}

// A row may take more than half of the memory.
TEST_F(DriverMemoryTest, OneInstanceIsThereAtATime) {
  FakeRow row;
  row.plan = [](int, GranularDevice& device) {
    EXPECT_EQ(device.memory().live, 0u);
    return absl::OkStatus();
  };
  EXPECT_TRUE(Check(row).ok());
}

TEST_F(DriverMemoryTest, WhatIsTakenEachTimeIsAnError) {
  for (const bool by_launch : {false, true}) {
    // A granule is the bound, of which the small tensor, alone in its own,
    // leaves 100 bytes.
    for (const auto& [bytes, ok] :
         {std::pair<size_t, bool>{100, true}, {101, false}}) {
      FakeRow row;
      (by_launch ? row.launch : row.plan) = [bytes = bytes](
                                                int, GranularDevice& device) {
        device.Lose(bytes);
        return absl::OkStatus();
      };
      if (ok)
        EXPECT_TRUE(Check(row).ok());
      else
        ExpectError(row,
                    "the driver lends 16485 bytes (--verify_memory) and the "
                    "row counts 12388 in 2 allocations: +4097, more than a "
                    "granule of 4096");
    }
  }
}

// However many allocations are rounded up, it is in what is counted.
TEST_F(DriverMemoryTest, OneGranuleIsTheBoundOfManyAllocations) {
  for (const auto& [bytes, ok] :
       {std::pair<size_t, bool>{kGranule, true}, {kGranule + 1, false}}) {
    FakeRow row;
    row.tensors = {4096, 4097, 5000, 8191, 8193};
    row.launch = [bytes = bytes](int, GranularDevice& device) {
      device.Lose(bytes);
      return absl::OkStatus();
    };
    if (ok)
      EXPECT_TRUE(Check(row).ok());
    else
      ExpectError(row, "in 5 allocations: +4097, more than a granule of 4096");
  }
}

// As where memory is counted that was never asked of the driver.
TEST_F(DriverMemoryTest, LessThanIsCountedIsAnErrorToo) {
  FakeRow row;
  row.plan = [](int made, GranularDevice& device) {
    if (made == 2) device.Lose(-size_t{15000});
    return absl::OkStatus();
  };
  ExpectError(row, "-11004, more than a granule of 4096");
}

TEST_F(DriverMemoryTest, ALaunchThatAllocatesIsAnError) {
  FakeRow row;
  row.launch = [](int, GranularDevice& device) {
    return device.Allocate(1).status();  // and gives it back
  };
  ExpectError(row, "the launch makes 1 allocations");
}

TEST_F(DriverMemoryTest, ARowThatFailsTheSecondTimeIsNoSkip) {
  FakeRow row;
  row.plan = [](int made, GranularDevice&) {
    return made == 1 ? absl::OkStatus()
                     : absl::ResourceExhaustedError("needs 9 GB");
  };
  ExpectError(row, "not a second time (--verify_memory): needs 9 GB");
}

TEST_F(DriverMemoryTest, AHostsMemoryIsNotLentInGranules) {
  EXPECT_TRUE(CanCheckDriverMemory(device_).ok());
  EXPECT_TRUE(absl::IsUnavailable(CanCheckDriverMemory(*cpu_)));
}

TEST_F(DriverMemoryTest, CountersAreThereWhenChecked) {
  Measurement measurement;
  measurement.samples.median = 1e-3;
  const auto absent = MakeCounters(FakeRow(), measurement, Ceilings());
  ASSERT_TRUE(absent.ok()) << absent.status();
  for (const char* name :
       {"driver_memory", "driver_memory_difference", "allocations"})
    EXPECT_FALSE(absent->contains(name)) << name;

  measurement.driver_memory =
      DriverMemory{.gone = 4096, .counted = 5000, .allocations = 3};
  const auto counters = MakeCounters(FakeRow(), measurement, Ceilings());
  ASSERT_TRUE(counters.ok()) << counters.status();
  EXPECT_EQ(counters->at("driver_memory"), 4096);
  EXPECT_EQ(counters->at("driver_memory_difference"), -904);
  EXPECT_EQ(counters->at("allocations"), 3);
}

}  // namespace
}  // namespace seqmark
