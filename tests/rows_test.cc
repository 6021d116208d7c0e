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

// One test a provider and dtype: a case each would be thousands of processes.
class ProviderTest : public testing::Test {
 public:
  ProviderTest(std::vector<const Row*> rows, bool compares)
      : rows_(std::move(rows)), compares_(compares) {}

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
  int Check(const Row& row, Device& device, uint64_t seed) const {
    SCOPED_TRACE(row.name().ToString());
    auto instance = row.Instantiate(device, {.seed = seed});
    if (absl::IsUnimplemented(instance.status())) return 0;
    EXPECT_TRUE(instance.ok()) << instance.status();
    if (!instance.ok()) return 0;
    if (compares_ && !WasCompared(**instance, seed)) return 0;
    const auto first = (*instance)->RunAndReadOutputs();
    const auto second = (*instance)->RunAndReadOutputs();
    EXPECT_TRUE(first.ok() && second.ok() && *first == *second)
        << "two runs on the same inputs differ";
    return 1;
  }
  // Whether it could be compared with the reference; what is wrong then fails.
  static bool WasCompared(RowInstance& instance, uint64_t seed) {
    const auto errors = instance.Verify();
    EXPECT_TRUE(errors.ok()) << errors.status();
    if (!errors.ok()) return false;
    for (const OutputError& error : *errors)
      EXPECT_TRUE(error.ok) << "seed " << seed << ": " << error.message;
    // As --verify does where the whole reference would take too long.
    const auto parts =
        instance.VerifySample({.seed = seed, .whole_operations = 0});
    EXPECT_TRUE(parts.ok()) << parts.status();
    if (parts.ok()) {
      EXPECT_GT(parts->fraction, 0);
      for (const OutputError& error : parts->errors)
        EXPECT_TRUE(error.ok) << parts->how << ": " << error.message;
    }
    return true;
  }
  std::vector<const Row*> rows_;
  bool compares_;
};

// Whether a tool that slows every instruction down by a thousand (racecheck)
// still gets through it in seconds.
bool IsSmall(const Row& row) {
  const Cost cost = row.cost();
  return row.bytes_read() + row.bytes_written() <= size_t{1} << 20 &&
         cost.matrix_flops + cost.vector_flops + cost.special_ops <= 2e7;
}

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
  const auto add = [](const std::string& suite, const std::string& name,
                      const std::vector<const Row*>& group, bool compares) {
    testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr,
                          __FILE__, __LINE__,
                          [group, compares]() -> testing::Test* {
                            return new ProviderTest(group, compares);
                          });
  };
  for (const auto& [name, group] : groups) {
    add(name.first, name.second, group, /*compares=*/true);
#ifdef ABSL_HAVE_THREAD_SANITIZER
    // What it is here for are the providers' threads; with the references, in
    // double, large problems take it hours.
    if (name.first == "LargeRows")
      add("LargeRuns", name.second, group, /*compares=*/false);
#endif
  }
}

}  // namespace

// Called from main, after static registration is complete.
void RegisterRowTests() { RegisterTests(); }

}  // namespace seqmark
