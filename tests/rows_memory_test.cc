// SPDX-License-Identifier: Apache-2.0
//
// What rows count as their memory against what the driver says is gone, to be
// run alone, as it says it of all processes; and that launches take no more.
#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

#include "bench/options.h"
#include "bench/row_runner.h"
#include "fixtures/driver_memory.h"
#include "fixtures/row.h"

namespace seqmark {
namespace {

// A row of every provider, the longest that is not huge.
std::vector<std::unique_ptr<Row>> OneOfEachProvider(DeviceKind device) {
  constexpr size_t kMostBytes = size_t{2} << 30;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<Row>> longest;
  SweepOverrides bf16;
  bf16.dtypes = {DType::kBF16};
  for (std::unique_ptr<Row>& row : MakeRows(RowSet::kSweep, bf16)) {
    const RowName& name = row->name();
    if (name.device != device || !name.limit.empty() ||
        row->bytes_read() + row->bytes_written() > kMostBytes)
      continue;
    std::unique_ptr<Row>& best = longest[{name.op, name.provider}];
    if (best == nullptr || best->bytes_written() < row->bytes_written())
      best = std::move(row);
  }
  std::vector<std::unique_ptr<Row>> rows;
  rows.reserve(longest.size());
  for (auto& [provider, row] : longest) rows.push_back(std::move(row));
  return rows;
}

// Of every provider's test rows those that are small: all sizes that a kernel
// is chosen by, in seconds.
TEST(RowMemory, ALaunchAllocatesNothing) {
  constexpr size_t kMostBytes = size_t{1} << 20;
  auto device = *MakeCpuDevice({});
  std::map<std::string, int> launches;  // by operator and provider
  for (const auto& row : MakeRows(RowSet::kTest, {})) {
    const RowName& name = row->name();
    if (name.device != DeviceKind::kCpu) continue;
    int& launched = launches[name.op + "/" + name.provider];
    if (row->bytes_read() + row->bytes_written() > kMostBytes) continue;
    SCOPED_TRACE(name.ToString());
    const int64_t before = device->memory().allocations;
    const auto instance = row->Instantiate(*device, {});
    if (absl::IsUnimplemented(instance.status())) continue;
    ASSERT_TRUE(instance.ok()) << instance.status();
    const int64_t planned = device->memory().allocations;
    EXPECT_GT(planned, before);
    EXPECT_TRUE((*instance)->launch()(device->stream()).ok());
    EXPECT_EQ(device->memory().allocations, planned);
    ++launched;
  }
  EXPECT_GT(launches.size(), 0u);
  for (const auto& [provider, launched] : launches)
    EXPECT_GT(launched, 0) << provider;
}

// As --verify_memory does it of every row.
TEST(CudaRowMemory, IsWhatTheDriverLends) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  int checked = 0;
  for (const auto& row : OneOfEachProvider(DeviceKind::kCuda)) {
    SCOPED_TRACE(row->name().ToString());
    auto first = row->Instantiate(**cuda, {});
    if (absl::IsUnimplemented(first.status()) ||
        absl::IsResourceExhausted(first.status()))
      continue;
    ASSERT_TRUE(first.ok()) << first.status();
    const auto again = InstantiateAgain(*row, {}, *std::move(first), **cuda);
    EXPECT_TRUE(again.ok()) << again.status();
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

// Through the program's own runner.
TEST(CudaRowMemory, IsAmongTheCounters) {
  if (const auto cuda = MakeCudaDevice(); !cuda.ok())
    GTEST_SKIP() << cuda.status().message();
  Options options;
  options.verify_memory = true;
  options.energy_time = 0;
  options.max_time = 0.01;
  options.benchmark.min_time = 0.001;
  RowRunner runner(options);
  const auto rows = OneOfEachProvider(DeviceKind::kCuda);
  ASSERT_FALSE(rows.empty());
  const auto result = runner.Run(*rows.front());
  ASSERT_TRUE(result.ok()) << result.status();
  const std::map<std::string, double>& counters = result->counters;
  EXPECT_GT(counters.at("allocations"), 0);
  EXPECT_GT(counters.at("driver_memory"), 0);
  EXPECT_LE(
      counters.at("driver_memory") - counters.at("driver_memory_difference"),
      counters.at("peak_memory"));
}

// Leaks memory that its device does not count.
class LeakyRow final : public Row {
 public:
  LeakyRow(const Row& row, Device& uncounted)
      : row_(row), uncounted_(uncounted) {}
  Cost cost() const override { return row_.cost(); }
  size_t bytes_read() const override { return row_.bytes_read(); }
  size_t bytes_written() const override { return row_.bytes_written(); }
  absl::StatusOr<std::unique_ptr<RowInstance>> Instantiate(
      Device& device, const InstanceOptions& options) const override {
    auto leak = uncounted_.Allocate(size_t{256} << 20);
    if (!leak.ok()) return leak.status();
    leaks_.push_back(*std::move(leak));
    return row_.Instantiate(device, options);
  }

 private:
  const Row& row_;
  Device& uncounted_;
  mutable std::vector<Buffer> leaks_;
};

TEST(CudaRowMemory, WhatIsNotCountedIsFound) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  auto uncounted = *MakeCudaDevice();
  const auto rows = OneOfEachProvider(DeviceKind::kCuda);
  ASSERT_FALSE(rows.empty());
  const LeakyRow row(*rows.front(), *uncounted);
  auto first = row.Instantiate(**cuda, {});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto again = InstantiateAgain(row, {}, *std::move(first), **cuda);
  EXPECT_TRUE(absl::IsInternal(again.status())) << again.status();
}

}  // namespace
}  // namespace seqmark
