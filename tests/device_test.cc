// SPDX-License-Identifier: Apache-2.0
//
// Memory of a Device: what it counts, what it refuses, and copies. Each test
// runs on the CPU and on the GPU where there is one.
#include "fixtures/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "fixtures/dram_counter.h"
#include "fixtures/energy.h"

namespace seqmark {
namespace {

using testing::HasSubstr;

class DeviceTest : public testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    auto made =
        GetParam() == DeviceKind::kCpu ? MakeCpuDevice({}) : MakeCudaDevice();
    if (absl::IsUnavailable(made.status()))
      GTEST_SKIP() << made.status().message();
    ASSERT_TRUE(made.ok()) << made.status();
    device_ = *std::move(made);
  }
  Buffer Allocate(size_t bytes,
                  MemoryClass memory_class = MemoryClass::kTensor) {
    auto buffer = device_->Allocate(bytes, memory_class);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return buffer.ok() ? *std::move(buffer) : Buffer();
  }
  std::unique_ptr<Device> device_;
};

TEST_P(DeviceTest, CountsLivePeakAndWorkspace) {
  EXPECT_EQ(device_->memory().live, 0u);
  Buffer a = Allocate(1000);
  EXPECT_EQ(device_->memory().live, 1000u);
  {
    const Buffer b = Allocate(500, MemoryClass::kWorkspace);
    EXPECT_EQ(device_->memory().live, 1500u);
    EXPECT_EQ(device_->memory().workspace, 500u);
  }
  EXPECT_EQ(device_->memory().live, 1000u);
  EXPECT_EQ(device_->memory().workspace, 0u);
  EXPECT_EQ(device_->memory().peak, 1500u);
  const Buffer c = Allocate(200);
  EXPECT_EQ(device_->memory().peak, 1500u) << "1200 is no new peak";
  device_->ResetPeak();
  EXPECT_EQ(device_->memory().peak, 1200u);
  a = Buffer();
  EXPECT_EQ(device_->memory().live, 200u);
  EXPECT_EQ(device_->memory().peak, 1200u);
}

TEST_P(DeviceTest, MovingABufferFreesOnce) {
  Buffer a = Allocate(64), b = Allocate(128);
  void* const of_a = a.data();
  b = std::move(a);  // frees b's 128
  EXPECT_EQ(device_->memory().live, 64u);
  EXPECT_EQ(b.data(), of_a);
  Buffer& self = b;
  b = std::move(self);
  EXPECT_EQ(b.data(), of_a);
  const Buffer c(std::move(b));
  EXPECT_EQ(c.bytes(), 64u);
  EXPECT_EQ(device_->memory().live, 64u);
}

TEST_P(DeviceTest, NothingNeedsNoMemory) {
  const Buffer none = Allocate(0);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(device_->memory().live, 0u);
}

TEST_P(DeviceTest, Aligns) {
  std::vector<Buffer> buffers;
  for (size_t bytes : {1, 2, 3, 255, 257, 4097, 100000}) {
    buffers.push_back(Allocate(bytes));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers.back().data()) % 256, 0u)
        << bytes;
  }
}

TEST_P(DeviceTest, TheMemoryLimitHolds) {
  device_->SetMemoryLimit(10000);
  const Buffer kept = Allocate(6000);
  const auto refused = device_->Allocate(5000);
  ASSERT_FALSE(refused.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  const std::string message(refused.status().message());
  EXPECT_THAT(message, HasSubstr("needs 11000 bytes"));
  EXPECT_THAT(message, HasSubstr("allows 10000"));
  EXPECT_EQ(device_->memory().live, 6000u);
  EXPECT_EQ(device_->memory().peak, 6000u);
  const Buffer rest = Allocate(4000);  // exactly the limit
  EXPECT_FALSE(device_->Allocate(1).ok());
  device_->SetMemoryLimit(0);
  EXPECT_TRUE(device_->Allocate(1).ok());
}

TEST_P(DeviceTest, AbsurdSizesAreRefused) {
  const Buffer kept = Allocate(4096);
  for (size_t limit : {size_t{0}, size_t{1} << 30})
    for (size_t bytes :
         {size_t{1} << 50, std::numeric_limits<size_t>::max() / 2,
          std::numeric_limits<size_t>::max() - 4095,
          std::numeric_limits<size_t>::max()}) {
      device_->SetMemoryLimit(limit);
      const auto refused = device_->Allocate(bytes);
      ASSERT_FALSE(refused.ok()) << bytes;
      EXPECT_TRUE(absl::IsResourceExhausted(refused.status()))
          << refused.status();
      EXPECT_THAT(std::string(refused.status().message()), HasSubstr("needs "));
      EXPECT_EQ(device_->memory().live, 4096u);
      EXPECT_EQ(device_->memory().peak, 4096u);
    }
}

TEST_P(DeviceTest, CopiesToWithinAndBack) {
  constexpr size_t kCount = 3 * (1 << 20) + 5;  // not of whole copy blocks
  std::vector<unsigned char> in(kCount), out(kCount);
  std::iota(in.begin(), in.end(), 0);
  for (size_t i = 0; i < kCount; i += 257) in[i] = 255 - i % 251;
  const Buffer a = Allocate(kCount), b = Allocate(kCount);
  ASSERT_TRUE(device_->CopyToDevice(a.data(), in.data(), kCount).ok());
  ASSERT_TRUE(device_->CopyWithin(b.data(), a.data(), kCount).ok());
  ASSERT_TRUE(device_->CopyToHost(out.data(), b.data(), kCount).ok());
  EXPECT_TRUE(in == out);
}

TEST_P(DeviceTest, SaysWhatItIs) {
  EXPECT_EQ(device_->kind(), GetParam());
  EXPECT_FALSE(device_->name().empty());
  EXPECT_THAT(device_->fingerprint(), HasSubstr(std::string(Name(GetParam()))));
  EXPECT_EQ(device_->fingerprint().find(' '), std::string::npos);
  EXPECT_GE(device_->last_level_cache_bytes(), size_t{1} << 18);
  EXPECT_GE(device_->threads(), 1);
  for (const auto& [key, value] : device_->facts()) {
    EXPECT_FALSE(key.empty());
    EXPECT_FALSE(value.empty()) << key;
  }
}

TEST_P(DeviceTest, KeepsBusyAsLongAsAskedTo) {
  int launches = 0;
  const auto source = device_->MakeSampleSource(
      [&launches](Stream) {
        ++launches;
        return absl::OkStatus();
      },
      CacheState::kCold);
  for (int asked : {1, 50}) {
    int asks = 0;
    int64_t done = 0;
    const auto busy = source->KeepBusy([&](int64_t now_done) {
      EXPECT_GE(now_done, done);
      done = now_done;
      return ++asks < asked;
    });
    ASSERT_TRUE(busy.ok()) << busy.status();
    EXPECT_EQ(asks, asked);
    EXPECT_GE(busy->calls, std::max<int64_t>(1, done));
    EXPECT_GE(busy->seconds, 0);
  }
  EXPECT_GE(launches, 1);
  const auto failing = device_->MakeSampleSource(
      [](Stream) { return absl::InternalError("broken"); }, CacheState::kHot);
  EXPECT_EQ(failing->KeepBusy([](int64_t) { return true; }).status().message(),
            "broken");
}

TEST_P(DeviceTest, CountsEnergyOrSaysWhyNot) {
  const auto counter = device_->OpenEnergyCounter();
  if (!counter.ok()) {
    EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
    EXPECT_FALSE(counter.status().message().empty());
    return;
  }
  EXPECT_FALSE((*counter)->name().empty());
  EXPECT_TRUE((*counter)->Joules().ok()) << (*counter)->Joules().status();
}

TEST_P(DeviceTest, CountsMemoryTrafficOrSaysWhyNot) {
  const auto counter = device_->OpenDramCounter();
  if (!counter.ok()) {
    EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
    EXPECT_FALSE(counter.status().message().empty());
    return;
  }
  EXPECT_FALSE((*counter)->name().empty());
  const auto failing = (*counter)->Count(
      [](Stream) { return absl::InternalError("broken"); }, CacheState::kCold);
  EXPECT_EQ(failing.status(), absl::InternalError("broken"));
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceTest,
                         testing::Values(DeviceKind::kCpu, DeviceKind::kCuda),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

TEST(CpuDevice, RefusesWrongThreadCounts) {
  for (int threads : {-1, 4097}) {
    const auto device = MakeCpuDevice({.threads = threads});
    ASSERT_FALSE(device.ok()) << threads;
    EXPECT_TRUE(absl::IsInvalidArgument(device.status()));
    EXPECT_THAT(std::string(device.status().message()),
                HasSubstr(absl::StrCat("--threads=", threads)));
  }
}

// Devices are made in a thread of their own: what they set of OpenMP and of
// the floating-point unit stays there.
TEST(CpuDevice, UsesTheThreadsAskedFor) {
  std::thread([] {
    const auto device = MakeCpuDevice({.threads = 3});
    ASSERT_TRUE(device.ok());
    EXPECT_EQ((*device)->threads(), 3);
    int started = 0;
#pragma omp parallel reduction(+ : started)
    ++started;
    EXPECT_EQ(started, 3);
  }).join();
}

TEST(CpuDevice, SamplesCalls) {
  const auto device = MakeCpuDevice({});
  ASSERT_TRUE(device.ok());
  for (CacheState cache :
       {CacheState::kHot, CacheState::kCold, CacheState::kDirty}) {
    int calls = 0;
    const auto source = (*device)->MakeSampleSource(
        [&calls](Stream) {
          ++calls;
          return absl::OkStatus();
        },
        cache);
    const auto batch = source->Take(5);
    ASSERT_TRUE(batch.ok());
    EXPECT_EQ(batch->seconds.size(), 5u);
    EXPECT_GE(calls, 5);
    for (double seconds : batch->seconds) EXPECT_GE(seconds, 0);
  }
  const auto failing = (*device)->MakeSampleSource(
      [](Stream) { return absl::InternalError("broken"); }, CacheState::kHot);
  EXPECT_EQ(failing->Take(1).status().message(), "broken");
}

}  // namespace
}  // namespace seqmark
