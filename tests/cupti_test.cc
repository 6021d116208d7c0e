// SPDX-License-Identifier: Apache-2.0
//
// What is asked of CUPTI, on a library that stands for it, and a GPU's counter
// against a call whose bytes are known.
#ifdef SEQMARK_HAVE_CUDA

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fixtures/cupti_cuda.h"
#include "fixtures/device.h"
#include "fixtures/kernel_times_cuda.h"
#include "fixtures/roofline.h"
#include "fixtures/row.h"
#include "fixtures/sampler.h"

#ifdef SEQMARK_FAKE_CUPTI
#include <dlfcn.h>
#include <stdlib.h>
#endif

namespace seqmark {
namespace {

using testing::HasSubstr;

#ifdef SEQMARK_FAKE_CUPTI

class CuptiTest : public testing::Test {
 protected:
  void SetUp() override {
    library_ = dlopen(SEQMARK_FAKE_CUPTI, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << dlerror();
    note_ = reinterpret_cast<void (*)(const char*)>(
        dlsym(library_, "FakeCuptiNote"));
    take_ =
        reinterpret_cast<const char* (*)()>(dlsym(library_, "FakeCuptiTake"));
    take_();
  }
  void TearDown() override {
    unsetenv("FAKE_CUPTI_PASSES");
    unsetenv("FAKE_CUPTI_FAILS");
    unsetenv("FAKE_CUPTI_METRICS");
  }
  absl::StatusOr<std::unique_ptr<DramCounter>> Open() {
    CuptiTarget target;
    target.flush = [this] {
      note_("flush");
      return absl::OkStatus();
    };
    target.synchronize = [this] {
      note_("wait");
      return absl::OkStatus();
    };
    return OpenCuptiDramCounter(target, {"/no/such/lib", SEQMARK_FAKE_CUPTI});
  }
  Launch NotingLaunch() {
    return [this](Stream) {
      note_("launch");
      return absl::OkStatus();
    };
  }
  void* library_ = nullptr;
  void (*note_)(const char*) = nullptr;
  const char* (*take_)() = nullptr;
};

TEST_F(CuptiTest, CountsACallAndWhatItLeavesDirty) {
  const auto counter = Open();
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_EQ((*counter)->name(), "CUPTI 13.1.2, dram__bytes_*");
  take_();
  const auto bytes = (*counter)->Count(NotingLaunch(), CacheState::kCold);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes->read, 100);  // not what the flush read
  EXPECT_EQ(bytes->written, 30 + 12);
  EXPECT_STREQ(take_(),
               "ProfilerInitialize HostInitialize Enable flush wait "
               "Start <call launch wait > <rest flush wait > Stop "
               "Decode Disable HostDeinitialize ProfilerDeInitialize ");
}

TEST_F(CuptiTest, ReplaysUntilAllPassesAreDone) {
  const auto counter = Open();
  ASSERT_TRUE(counter.ok()) << counter.status();
  setenv("FAKE_CUPTI_PASSES", "2", 1);
  take_();
  ASSERT_TRUE((*counter)->Count(NotingLaunch(), CacheState::kHot).ok());
  EXPECT_THAT(take_(), HasSubstr("launch wait Start <call launch wait > Stop "
                                 "launch wait Start <call launch wait > Stop "
                                 "Decode Disable"));
  setenv("FAKE_CUPTI_PASSES", "1000", 1);
  const auto endless = (*counter)->Count(NotingLaunch(), CacheState::kHot);
  EXPECT_TRUE(absl::IsUnavailable(endless.status())) << endless.status();
}

TEST_F(CuptiTest, AFailureIsAReasonAndLeavesNothingBehind) {
  const auto counter = Open();
  ASSERT_TRUE(counter.ok()) << counter.status();
  for (const auto& [fails, reason] :
       {std::pair("ProfilerInitialize=999", "cuptiProfilerInitialize: THE_"),
        std::pair("Enable=35", "(ERR_NVGPUCTRPERM): run as root"),
        std::pair("Start=40", "(ERR_NVGPUCTRPERM): run as root"),
        std::pair("<call=7", "cuptiRangeProfilerPushRange: THE_ERROR"),
        std::pair("Decode=7", "cuptiRangeProfilerDecodeData: THE_ERROR")}) {
    setenv("FAKE_CUPTI_FAILS", fails, 1);
    take_();
    for (const absl::Status& status :
         {(*counter)->Count(NotingLaunch(), CacheState::kCold).status(),
          Open().status()}) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << fails << ": " << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(reason)) << fails;
      const std::string calls = take_();
      for (const auto& [begun, ended] :
           {std::pair("ProfilerInitialize", "ProfilerDeInitialize"),
            std::pair("HostInitialize", "HostDeinitialize"),
            std::pair("Enable", "Disable")})
        if (calls.find(begun) != calls.npos &&
            std::string(fails).find(begun) != 0) {
          EXPECT_THAT(calls, HasSubstr(ended)) << fails;
        }
    }
  }
}

TEST_F(CuptiTest, TakesTheNamesThatTheGpuHas) {
  setenv("FAKE_CUPTI_METRICS",
         "dram__bytes_op_read.sum+dram__bytes_op_write.sum", 1);
  const auto counter = Open();
  ASSERT_TRUE(counter.ok()) << counter.status();
  take_();
  const auto bytes = (*counter)->Count(NotingLaunch(), CacheState::kCold);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes->total(), 142);
  EXPECT_THAT(take_(), HasSubstr("HostInitialize HostDeinitialize "
                                 "HostInitialize Enable "));
  setenv("FAKE_CUPTI_METRICS", "mcc__dram+none", 1);
  const auto none = Open();
  EXPECT_TRUE(absl::IsUnavailable(none.status())) << none.status();
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("GH100 has no dram__bytes_read.sum"));
}

TEST_F(CuptiTest, ACallThatFailsIsItsOwnError) {
  const auto counter = Open();
  ASSERT_TRUE(counter.ok()) << counter.status();
  const auto failing = (*counter)->Count(
      [](Stream) { return absl::InternalError("broken"); }, CacheState::kCold);
  EXPECT_EQ(failing.status(), absl::InternalError("broken"));
  EXPECT_THAT(take_(), HasSubstr("Start <call > Stop Disable"));
  EXPECT_TRUE((*counter)->Count(NotingLaunch(), CacheState::kCold).ok());
}

TEST_F(CuptiTest, KernelsTimesAreThoseOfTheName) {
  const auto run = [this] {
    note_("run");
    return absl::OkStatus();
  };
  const auto seconds = CuptiKernelSeconds("a_block", run, {SEQMARK_FAKE_CUPTI});
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_THAT(*seconds, testing::ElementsAre(testing::DoubleNear(5e-7, 1e-12),
                                             testing::DoubleNear(2e-6, 1e-12)));
  EXPECT_STREQ(take_(),
               "Register EnableActivity run FlushActivity DisableActivity ");
  const auto broken = CuptiKernelSeconds(
      "a_block", [] { return absl::InternalError("broken"); },
      {SEQMARK_FAKE_CUPTI});
  EXPECT_EQ(broken.status().message(), "broken");
  EXPECT_THAT(take_(), HasSubstr("FlushActivity DisableActivity"));
  // As where another tool has CUPTI.
  for (const char* fails : {"Register=39", "EnableActivity=39"}) {
    setenv("FAKE_CUPTI_FAILS", fails, 1);
    const auto none = CuptiKernelSeconds("a_block", run, {SEQMARK_FAKE_CUPTI});
    EXPECT_TRUE(absl::IsUnavailable(none.status())) << none.status();
    EXPECT_THAT(std::string(none.status().message()), HasSubstr("error 39"));
    EXPECT_THAT(take_(), testing::Not(HasSubstr("run")));
  }
}

TEST_F(CuptiTest, ALibraryWithoutTheFunctionsSaysWhichIsMissing) {
  const auto counter = OpenCuptiDramCounter({}, {SEQMARK_FAKE_NVML});
  EXPECT_TRUE(absl::IsUnavailable(counter.status()));
  EXPECT_THAT(std::string(counter.status().message()),
              HasSubstr("has no cupti"));
}

#endif  // SEQMARK_FAKE_CUPTI

TEST(Cupti, WithoutTheLibraryOrItsHeaderIsUnavailableWithAReason) {
  const auto counter = OpenCuptiDramCounter({}, {"/no/such/libcupti.so"});
  EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
  EXPECT_THAT(std::string(counter.status().message()), HasSubstr("cupti"));
  EXPECT_FALSE(CuptiLibraries().empty());
}

// Norms of 2 to 200 us: what a sample holds besides its kernel is the same for
// all, and what is left is what the driver's stamps say.
TEST(CudaTimerOverhead, WhatIsLeftIsWhatTheDriverStamps) {
  const auto device = MakeCudaDevice();
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  const auto ceilings = GetCeilings(**device);
  ASSERT_TRUE(ceilings.ok()) << ceilings.status();
  const auto overhead = [&](CacheState cache) {
    return (*device)->MeasureTimerOverhead(ceilings->kernel_edges_seconds,
                                           cache, /*as_graph=*/false);
  };
  if (const auto first = overhead(CacheState::kCold);
      absl::IsUnavailable(first.status()))
    GTEST_SKIP() << first.status().message();
  SweepOverrides lengths;
  lengths.batches = {1};
  lengths.seqlens = {1024, 8192, 32768, 131072};
  lengths.dtypes = {DType::kBF16};
  int looked_at = 0;
  for (const auto& row : MakeRows(RowSet::kSweep, lengths)) {
    const RowName& name = row->name();
    if (name.device != DeviceKind::kCuda || name.op != "rmsnorm" ||
        name.provider != "native" || name.shape != "qwen2.5-1.5b")
      continue;
    const auto instance = row->Instantiate(**device, {});
    ASSERT_TRUE(instance.ok()) << instance.status();
    for (const CacheState cache : {CacheState::kCold, CacheState::kDirty}) {
      const auto source =
          (*device)->MakeSampleSource((*instance)->launch(), cache);
      ASSERT_TRUE(source->Take(50).ok());
      auto batch = source->Take(100);
      ASSERT_TRUE(batch.ok()) << batch.status();
      const auto besides = overhead(cache);
      ASSERT_TRUE(besides.ok()) << besides.status();
      EXPECT_GT(*besides, 0);
      const double ours = GetMedianInterval(batch->seconds).median - *besides;
      auto stamped = CuptiKernelSeconds(
          "RowKernel", [&] { return source->Take(100).status(); });
      ASSERT_TRUE(stamped.ok()) << stamped.status();
      ASSERT_EQ(stamped->size(), 100u);
      const double theirs = GetMedianInterval(*stamped).median;
      EXPECT_NEAR(ours, theirs, std::max(0.5e-6, 0.02 * theirs))
          << name.ToString() << " " << Name(cache);
      ++looked_at;
    }
  }
  EXPECT_EQ(looked_at, 8);
}

// Far above any L2: a copy reads and writes its bytes, once.
TEST(CudaDram, APlainCopyReadsAndWritesItsBytes) {
  const auto device = MakeCudaDevice();
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  const auto counter = (*device)->OpenDramCounter();
  if (absl::IsUnavailable(counter.status()))
    GTEST_SKIP() << counter.status().message();
  ASSERT_TRUE(counter.ok()) << counter.status();
  constexpr size_t kBytes = size_t{512} << 20;
  const auto from = (*device)->Allocate(kBytes),
             to = (*device)->Allocate(kBytes);
  ASSERT_TRUE(from.ok() && to.ok());
  const auto copy = [&](Stream) {
    return (*device)->CopyWithin(to->data(), from->data(), kBytes);
  };
  ASSERT_TRUE(copy(nullptr).ok());
  for (const CacheState cache : {CacheState::kCold, CacheState::kHot})
    for (int i = 0; i < 2; ++i) {
      const auto bytes = (*counter)->Count(copy, cache);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      EXPECT_NEAR(bytes->read, kBytes, 0.03 * kBytes);
      EXPECT_NEAR(bytes->written, kBytes, 0.03 * kBytes);
    }
}

}  // namespace
}  // namespace seqmark

#endif  // SEQMARK_HAVE_CUDA
