// SPDX-License-Identifier: Apache-2.0
#include "fixtures/roofline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"

namespace seqmark {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr size_t kMB = 1000000;

// Round numbers: 1 TB/s of memory, 4 TB/s of a 50 MB cache.
Ceilings Sample() {
  Ceilings c;
  c.memory = {
      {10 * kMB, 4e12}, {40 * kMB, 4e12}, {80 * kMB, 2e12}, {1000 * kMB, 1e12}};
  c.dram_bytes_per_second = 1e12;
  c.cache_bytes = 50 * kMB;
  c.cache_bytes_per_second = 4e12;
  c.matrix_flops_per_second = {800e12, 700e12, 60e12};
  c.vector_flops_per_second = 50e12;
  c.special_per_second = 4e12;
  c.emulated_special_per_second = 1e12;
  c.timer_floor_seconds = 1e-6;
  c.kernel_edges_seconds = 8e-7;
  return c;
}

LeastTime Least(const Cost& cost, size_t read, size_t written,
                CacheState cache = CacheState::kCold,
                DType dtype = DType::kBF16) {
  return LeastSeconds(cost, dtype, read, written, cache, Sample());
}

TEST(LeastSeconds, NothingToDo) {
  for (CacheState cache : {CacheState::kHot, CacheState::kCold}) {
    const LeastTime least = Least({}, 0, 0, cache);
    EXPECT_EQ(least.seconds, 0);
    EXPECT_EQ(least.limit, Limit::kNone);
  }
}

TEST(LeastSeconds, ColdMemory) {
  const LeastTime read = Least({}, 100 * kMB, 0);
  EXPECT_DOUBLE_EQ(read.seconds, 100e-6);
  EXPECT_EQ(read.limit, Limit::kMemory);
  // Outputs that fit stay in the cache.
  EXPECT_DOUBLE_EQ(Least({}, 100 * kMB, 40 * kMB).seconds, 100e-6);
  EXPECT_DOUBLE_EQ(Least({}, 0, 40 * kMB).seconds, 10e-6);
  EXPECT_EQ(Least({}, 0, 40 * kMB).limit, Limit::kCache);
  // Of more, what does not fit leaves it: no step where they just do not.
  EXPECT_DOUBLE_EQ(Least({}, 100 * kMB, 250 * kMB).seconds, 300e-6);
  EXPECT_NEAR(Least({}, 100 * kMB, 50 * kMB + 1).seconds, 100e-6, 1e-9);
}

TEST(LeastSeconds, HotMemory) {
  const auto hot = [](size_t read, size_t written) {
    return Least({}, read, written, CacheState::kHot);
  };
  EXPECT_DOUBLE_EQ(hot(20 * kMB, 20 * kMB).seconds, 10e-6);
  EXPECT_EQ(hot(20 * kMB, 20 * kMB).limit, Limit::kCache);
  EXPECT_DOUBLE_EQ(hot(1 * kMB, 0).seconds, 0.25e-6);  // below the ladder
  EXPECT_DOUBLE_EQ(hot(60 * kMB, 40 * kMB).seconds, 50e-6);
  EXPECT_EQ(hot(60 * kMB, 40 * kMB).limit, Limit::kMemory);
  EXPECT_DOUBLE_EQ(hot(4000 * kMB, 0).seconds, 4e-3);
  // A larger set never takes less.
  double previous = 0;
  for (size_t bytes = 1; bytes < 4000 * kMB; bytes = bytes * 5 / 4 + 1) {
    EXPECT_GE(hot(bytes, 0).seconds, previous);
    previous = hot(bytes, 0).seconds;
  }
}

TEST(LeastSeconds, Arithmetic) {
  const Cost matrix = {.matrix_flops = 8e12, .vector_flops = 1e9};
  EXPECT_DOUBLE_EQ(Least(matrix, kMB, kMB).seconds, 10e-3);
  EXPECT_EQ(Least(matrix, kMB, kMB).limit, Limit::kMatrix);
  EXPECT_DOUBLE_EQ(
      Least(matrix, kMB, kMB, CacheState::kHot, DType::kF32).seconds, 8.0 / 60);
  EXPECT_EQ(Least(matrix, kMB, kMB, CacheState::kHot, DType::kF64).limit,
            Limit::kVector);  // no ceiling: no limit
  const Cost vector = {.vector_flops = 5e12, .special_ops = 1e9};
  EXPECT_DOUBLE_EQ(Least(vector, kMB, kMB).seconds, 0.1);
  EXPECT_EQ(Least(vector, kMB, kMB).limit, Limit::kVector);
}

TEST(LeastSeconds, SpecialFunctionsAreSharedWithTheVectorUnits) {
  // Idle vector units take a fifth of the exponentials.
  const Cost alone = {.special_ops = 5e12};
  EXPECT_DOUBLE_EQ(Least(alone, kMB, kMB).seconds, 1);
  EXPECT_EQ(Least(alone, kMB, kMB).limit, Limit::kSpecial);
  // Vector units busy all the time take none: 4 and 50 take a second each.
  const Cost both = {.vector_flops = 50e12, .special_ops = 4e12};
  EXPECT_DOUBLE_EQ(Least(both, kMB, kMB).seconds, 1);
  // Half busy: 4 t + (t - 1/2) = 4.5.
  const Cost half = {.vector_flops = 25e12, .special_ops = 4.5e12};
  EXPECT_DOUBLE_EQ(Least(half, kMB, kMB).seconds, 1);
  Ceilings c = Sample();
  c.emulated_special_per_second = 0;
  EXPECT_DOUBLE_EQ(
      LeastSeconds(half, DType::kF32, 0, 0, CacheState::kHot, c).seconds,
      4.5 / 4);
}

TEST(LeastSeconds, UnknownCeilingsBindNothing) {
  const Cost cost = {
      .matrix_flops = 1e15, .vector_flops = 1e15, .special_ops = 1e15};
  for (CacheState cache : {CacheState::kHot, CacheState::kCold}) {
    const LeastTime least =
        LeastSeconds(cost, DType::kF32, kMB, kMB, cache, Ceilings());
    EXPECT_EQ(least.seconds, 0);
    EXPECT_EQ(least.limit, Limit::kNone);
  }
}

TEST(LeastSeconds, IsNeverNegativeOrNan) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (double flops : {0.0, -1.0, 1.0, 1e30, nan})
    for (double special : {0.0, -1.0, 1e30, nan})
      for (size_t bytes : {size_t{0}, size_t{1}, size_t{1} << 60})
        for (CacheState cache : {CacheState::kHot, CacheState::kCold})
          for (const Ceilings& c : {Sample(), Ceilings()}) {
            const double seconds =
                LeastSeconds({flops, flops, special}, DType::kBF16, bytes,
                             bytes, cache, c)
                    .seconds;
            EXPECT_TRUE(std::isfinite(seconds) && seconds >= 0) << seconds;
          }
}

class CeilingsFile : public testing::Test {
 protected:
  CeilingsFile()
      : folder_(fs::path(testing::TempDir()) /
                absl::StrCat("seqmark_ceilings_", getpid())) {
    fs::create_directories(folder_);
    if (const char* old = std::getenv("XDG_CACHE_HOME")) old_ = old;
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  ~CeilingsFile() override {
    if (old_.empty())
      unsetenv("XDG_CACHE_HOME");
    else
      setenv("XDG_CACHE_HOME", old_.c_str(), 1);
    fs::remove_all(folder_);
  }
  std::string path() const { return folder_ / "deep" / "er" / "c.json"; }
  static void Put(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  fs::path folder_;
  std::string old_;
};

TEST_F(CeilingsFile, RoundTrip) {
  Ceilings c = Sample();
  c.dram_bytes_per_second = 1e12 / 3;  // every digit comes back
  ASSERT_TRUE(WriteCeilings(c, path()).ok());
  const absl::StatusOr<Ceilings> read = ReadCeilings(path());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToJson(*read), ToJson(c));
  EXPECT_EQ(read->dram_bytes_per_second, c.dram_bytes_per_second);
  EXPECT_EQ(read->memory.size(), c.memory.size());
  EXPECT_EQ(read->matrix_flops_per_second, c.matrix_flops_per_second);
  EXPECT_EQ(read->cache_bytes, c.cache_bytes);
}

TEST_F(CeilingsFile, WhatIsWrongIsRefusedWithTheReason) {
  const std::string good = ToJson(Sample());
  const auto with = [&good](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, text.npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::pair<std::string, std::string> cases[] = {
      {"", "cut short"},
      {"\0\xff garbage", "cut short"},
      {"[]", "not a JSON object"},
      {"{}", "schema"},
      {with("\"schema\": 2", "\"schema\": 1"), "schema"},
      {with("\"schema\": 2", "\"schema\": \"2\""), "schema"},
      {with("\"special_per_second\"", "\"renamed\""), "special_per_second"},
      {with("\"dram_bytes_per_second\": 1", "\"dram_bytes_per_second\": -1"),
       "dram_bytes_per_second"},
      {with("\"cache_bytes\": 50", "\"cache_bytes\": -50"), "cache_bytes"},
      {with("\"f16\": ", "\"f16\": [], \"x\": "), "f16"},
      {with("\"bytes\": ", "\"bites\": "), "bytes"},
      {with("\"memory\": [", "\"memory\": 3, \"x\": ["), "memory"}};
  for (const auto& [text, why] : cases) {
    Put(path(), text);
    const absl::Status status = ReadCeilings(path()).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("c.json"));
  }
  for (size_t length = 0; length + 2 < good.size(); length += 7)
    EXPECT_FALSE(CeilingsFromJson(good.substr(0, length)).ok()) << length;
  EXPECT_TRUE(absl::IsNotFound(ReadCeilings(folder_ / "none").status()));
}

TEST_F(CeilingsFile, IsAlwaysWhole) {
  Ceilings c = Sample();
  ASSERT_TRUE(WriteCeilings(c, path()).ok());
  std::atomic<bool> done = false;
  int reads = 0;
  std::thread reader([&] {
    while (!done || reads == 0) {
      const absl::StatusOr<Ceilings> read = ReadCeilings(path());
      ASSERT_TRUE(read.ok()) << read.status();
      ++reads;
    }
  });
  for (int i = 0; i < 200; ++i) {
    c.memory.resize(1 + i % 50, {kMB, 1e12});
    EXPECT_TRUE(WriteCeilings(c, path()).ok());
  }
  done = true;
  reader.join();
  // Nothing else is left in the folder.
  const fs::directory_iterator files(fs::path(path()).parent_path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(CeilingsFile, CannotBeWritten) {
  Put(folder_ / "file", "in the way");
  EXPECT_FALSE(WriteCeilings(Sample(), folder_ / "file" / "c.json").ok());
  fs::create_directories(folder_ / "c.json");  // a folder of that name
  EXPECT_FALSE(WriteCeilings(Sample(), folder_ / "c.json").ok());
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_NE(entry.path().extension(), ".part");
}

TEST_F(CeilingsFile, IsFoundByFingerprint) {
  const auto device = MakeCpuDevice({.threads = 1});
  ASSERT_TRUE(device.ok());
  const std::string file = CeilingsCachePath(**device);
  EXPECT_EQ(file, folder_ / "seqmark" / ((*device)->fingerprint() + ".json"));
  ASSERT_TRUE(WriteCeilings(Sample(), file).ok());
  const absl::StatusOr<Ceilings> c = GetCeilings(**device);
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_EQ(ToJson(*c), ToJson(Sample()));
}

TEST_F(CeilingsFile, IsMeasuredAnewWhenItCannotBeUsed) {
  const auto device = MakeCpuDevice({});
  ASSERT_TRUE(device.ok());
  const std::string file = CeilingsCachePath(**device);
  Put(file, "{\"schema\": 1, \"dram_by");
  testing::internal::CaptureStderr();
  const absl::StatusOr<Ceilings> c = GetCeilings(**device);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("anew"));
  ASSERT_TRUE(c.ok()) << c.status();
  const absl::StatusOr<Ceilings> kept = ReadCeilings(file);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(ToJson(*kept), ToJson(*c));
  EXPECT_EQ((*device)->memory().live, 0u);
  EXPECT_EQ((*device)->memory().peak, 0u);
  // Within an order of magnitude or two of any machine there is.
#ifdef ABSL_HAVE_THREAD_SANITIZER  // every access is looked at
  constexpr double kSlowestSpecial = 1e6;
#else
  constexpr double kSlowestSpecial = 1e7;
#endif
  const double threads = (*device)->threads();
  EXPECT_GT(c->vector_flops_per_second, 1e8 * threads);
  EXPECT_LT(c->vector_flops_per_second, 1e12 * threads);
  EXPECT_GT(c->special_per_second, kSlowestSpecial * threads);
  EXPECT_LT(c->special_per_second, c->vector_flops_per_second);
  EXPECT_GT(c->dram_bytes_per_second, 1e8);
  EXPECT_GE(c->cache_bytes_per_second, c->dram_bytes_per_second);
  for (double flops : c->matrix_flops_per_second)
    EXPECT_GE(flops, c->vector_flops_per_second);
  for (size_t i = 1; i < c->memory.size(); ++i) {
    EXPECT_LT(c->memory[i - 1].bytes, c->memory[i].bytes);
    EXPECT_GE(c->memory[i - 1].bytes_per_second, c->memory[i].bytes_per_second);
  }
}

}  // namespace
}  // namespace seqmark
