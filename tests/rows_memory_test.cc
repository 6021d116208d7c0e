// SPDX-License-Identifier: Apache-2.0
//
// What rows count as their memory against what the driver says is gone; to be
// run alone, as it says it of all processes.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>

#include "fixtures/forwarding_device.h"
#include "fixtures/row.h"

namespace seqmark {
namespace {

// Another device's memory, with a count of the allocations.
class CountingDevice final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  int allocations = 0;

  absl::StatusOr<Buffer> Allocate(size_t bytes,
                                  MemoryClass memory_class) override {
    ++allocations;
    return ForwardingDevice::Allocate(bytes, memory_class);
  }
};

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
        EXPECT_TRUE((*instance)->launch()(device.stream()).ok());
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
