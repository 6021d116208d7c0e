// SPDX-License-Identifier: Apache-2.0
//
// Every provider of every operator against its reference, on the inputs that
// the benchmark uses, with poisoned outputs.
#include <gtest/gtest.h>

#include <map>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "fixtures/device.h"
#include "fixtures/row.h"

namespace seqmark {
namespace {

Device* SharedDevice(DeviceKind kind, std::string* why) {
  static auto* const devices =
      new std::map<DeviceKind, absl::StatusOr<std::unique_ptr<Device>>>();
  auto it = devices->find(kind);
  if (it == devices->end())
    it = devices
             ->emplace(kind, kind == DeviceKind::kCpu ? MakeCpuDevice({})
                                                      : MakeCudaDevice())
             .first;
  if (!it->second.ok()) {
    *why = std::string(it->second.status().message());
    return nullptr;
  }
  return it->second->get();
}

// Whether a tool that slows every instruction down by a thousand (racecheck)
// still gets through it in seconds.
bool IsSmall(const Row& row) {
  const Cost cost = row.cost();
  return row.bytes_read() + row.bytes_written() <= size_t{1} << 20 &&
         cost.matrix_flops + cost.vector_flops + cost.special_ops <= 2e7;
}

// ThreadSanitizer is here for what providers' threads do. The references of
// large problems would take it hours, and it has looked at those of small ones.
bool IsCompared(const Row& row) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  return IsSmall(row);
#else
  static_cast<void>(row);
  return true;
#endif
}

// One test a provider and dtype: a case each would be thousands of processes.
class ProviderTest : public testing::Test {
 public:
  explicit ProviderTest(std::vector<const Row*> rows)
      : rows_(std::move(rows)) {}

  void TestBody() override {
    std::string why;
    Device* const device = SharedDevice(rows_.front()->name().device, &why);
    if (device == nullptr) GTEST_SKIP() << why;
    int checked = 0;
    for (const Row* row : rows_)
      for (uint64_t seed : {1, 2}) checked += Check(*row, *device, seed);
    EXPECT_GT(checked, 0) << "every problem was skipped";
  }

 private:
  static int Check(const Row& row, Device& device, uint64_t seed) {
    SCOPED_TRACE(row.name().ToString());
    auto instance = row.Instantiate(device, {.seed = seed});
    if (absl::IsUnimplemented(instance.status())) return 0;
    EXPECT_TRUE(instance.ok()) << instance.status();
    if (!instance.ok()) return 0;
    if (IsCompared(row)) Compare(**instance, seed);
    const auto first = (*instance)->RunAndReadOutputs();
    const auto second = (*instance)->RunAndReadOutputs();
    EXPECT_TRUE(first.ok() && second.ok() && *first == *second)
        << "two runs on the same inputs differ";
    return 1;
  }
  static void Compare(RowInstance& instance, uint64_t seed) {
    const auto errors = instance.Verify();
    ASSERT_TRUE(errors.ok()) << errors.status();
    for (const OutputError& error : *errors)
      EXPECT_TRUE(error.ok) << "seed " << seed << ": " << error.message;
    // As --verify does where the whole reference would take too long.
    const auto parts =
        instance.VerifySample({.seed = seed, .whole_operations = 0});
    ASSERT_TRUE(parts.ok()) << parts.status();
    EXPECT_GT(parts->fraction, 0);
    for (const OutputError& error : parts->errors)
      EXPECT_TRUE(error.ok) << parts->how << ": " << error.message;
  }
  std::vector<const Row*> rows_;
};

void RegisterTests() {
  static const auto* const rows =
      new std::vector<std::unique_ptr<Row>>(MakeRows(RowSet::kTest, {}));
  std::map<std::pair<std::string, std::string>, std::vector<const Row*>> groups;
  for (const auto& row : *rows) {
    const RowName& n = row->name();
    groups[{IsSmall(*row) ? "Rows" : "LargeRows",
            absl::StrCat(n.op, "_", n.provider, "_", Name(n.device), "_",
                         Name(n.dtype))}]
        .push_back(row.get());
  }
  for (const auto& [name, group] : groups)
    testing::RegisterTest(name.first.c_str(), name.second.c_str(), nullptr,
                          nullptr, __FILE__, __LINE__,
                          [group = group]() -> testing::Test* {
                            return new ProviderTest(group);
                          });
}

}  // namespace

// Called from main, after static registration is complete.
void RegisterRowTests() { RegisterTests(); }

}  // namespace seqmark
