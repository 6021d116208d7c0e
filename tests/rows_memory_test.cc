// SPDX-License-Identifier: Apache-2.0
//
// What rows count as their memory against what the driver says is gone, to be
// run alone, as it says it of all processes; and that launches take no more.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>

#include "fixtures/row.h"
#include "tests/counting_device.h"

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
  for (auto& [provider, row] : longest) rows.push_back(std::move(row));
  return rows;
}

// Of every provider's test rows those that are small: all sizes that a kernel
// is chosen by, in seconds.
TEST(RowMemory, ALaunchAllocatesNothing) {
  constexpr size_t kMostBytes = size_t{1} << 20;
  auto cpu = *MakeCpuDevice({});
  std::map<std::string, int> launches;  // by operator and provider
  for (const auto& row : MakeRows(RowSet::kTest, {})) {
    const RowName& name = row->name();
    if (name.device != DeviceKind::kCpu) continue;
    int& launched = launches[name.op + "/" + name.provider];
    if (row->bytes_read() + row->bytes_written() > kMostBytes) continue;
    SCOPED_TRACE(name.ToString());
    CountingDevice device(*cpu);
    const auto instance = row->Instantiate(device, {});
    if (absl::IsUnimplemented(instance.status())) continue;
    ASSERT_TRUE(instance.ok()) << instance.status();
    const int planned = device.allocations;
    EXPECT_GT(planned, 0);
    EXPECT_TRUE((*instance)->launch()(device.stream()).ok());
    EXPECT_EQ(device.allocations, planned);
    ++launched;
  }
  EXPECT_GT(launches.size(), 0u);
  for (const auto& [provider, launched] : launches)
    EXPECT_GT(launched, 0) << provider;
}

// Within a granule of 2 MiB for each allocation.
TEST(CudaRowMemory, IsWhatTheDriverLends) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  constexpr double kGranule = 1 << 21;
  int checked = 0;
  for (const auto& row : OneOfEachProvider(DeviceKind::kCuda)) {
    SCOPED_TRACE(row->name().ToString());
    CountingDevice device(**cuda);
    const auto run = [&] {
      auto instance = row->Instantiate(device, {});
      if (instance.ok()) {
        const int planned = device.allocations;
        EXPECT_TRUE((*instance)->launch()(device.stream()).ok());
        EXPECT_EQ(device.allocations, planned);
        EXPECT_TRUE(device.Synchronize().ok());
      }
      return instance;
    };
    // The first time, libraries load what they keep for good.
    if (const auto first = run(); !first.ok()) {
      EXPECT_TRUE(absl::IsUnimplemented(first.status()) ||
                  absl::IsResourceExhausted(first.status()))
          << first.status();
      continue;
    }
    device.allocations = 0;
    const auto before = (*cuda)->FreeBytes();
    const size_t lent = (*cuda)->memory().live;
    const auto instance = run();
    const auto after = (*cuda)->FreeBytes();
    ASSERT_TRUE(before.ok() && after.ok() && instance.ok());
    const double gone =
        static_cast<double>(*before) - static_cast<double>(*after);
    const auto counted = static_cast<double>((*cuda)->memory().live - lent);
    EXPECT_NEAR(gone, counted, kGranule * device.allocations);
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

}  // namespace
}  // namespace seqmark
