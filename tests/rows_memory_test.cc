// SPDX-License-Identifier: Apache-2.0
//
// What rows count as their memory against what the driver says is gone; to be
// run alone, as it says it of all processes.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <utility>

#include "fixtures/device.h"
#include "fixtures/row.h"

namespace seqmark {
namespace {

// Another device's memory, with a count of the allocations.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(Device& device) : device_(device) {}
  int allocations = 0;

  absl::StatusOr<Buffer> Allocate(size_t bytes,
                                  MemoryClass memory_class) override {
    ++allocations;
    return device_.Allocate(bytes, memory_class);
  }
  DeviceKind kind() const override { return device_.kind(); }
  std::string name() const override { return device_.name(); }
  std::string fingerprint() const override { return device_.fingerprint(); }
  std::vector<std::pair<std::string, std::string>> facts() const override {
    return device_.facts();
  }
  size_t last_level_cache_bytes() const override {
    return device_.last_level_cache_bytes();
  }
  absl::Status CopyToDevice(void* to, const void* from, size_t bytes) override {
    return device_.CopyToDevice(to, from, bytes);
  }
  absl::Status CopyToHost(void* to, const void* from, size_t bytes) override {
    return device_.CopyToHost(to, from, bytes);
  }
  absl::Status CopyWithin(void* to, const void* from, size_t bytes) override {
    return device_.CopyWithin(to, from, bytes);
  }
  absl::Status Synchronize() override { return device_.Synchronize(); }
  Stream stream() const override { return device_.stream(); }
  int threads() const override { return device_.threads(); }
  std::unique_ptr<SampleSource> MakeSampleSource(Launch launch,
                                                 CacheState cache,
                                                 bool as_graph) override {
    return device_.MakeSampleSource(std::move(launch), cache, as_graph);
  }

 protected:
  absl::StatusOr<void*> AllocateRaw(size_t) override {
    return absl::InternalError("a CountingDevice has no memory of its own");
  }
  void FreeRaw(void*) override {}

 private:
  Device& device_;
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
