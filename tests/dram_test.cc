// SPDX-License-Identifier: Apache-2.0
//
// A host's memory traffic on made-up controllers, and the counters that a row
// has of a device's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "bench/counters.h"
#include "fixtures/uncore_dram.h"
#include "tests/fake_root.h"

namespace seqmark {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A device of perf's, as a server's kernel has it.
void PutController(const FakeRoot& root, const std::string& name, int type,
                   const std::string& suffix = "") {
  const std::string folder = "/" + name;
  root.Put(folder + "/type", absl::StrCat(type));
  root.Put(folder + "/cpumask", "0,18-19");
  root.Put(folder + "/format/event", "config:0-7");
  root.Put(folder + "/format/umask", "config:8-15,20");
  root.Put(folder + "/events/clockticks", "event=0x01");
  for (const auto& [event, terms] :
       {std::pair("cas_count_read", "event=0x04,umask=0x103"),
        std::pair("cas_count_write", "event=0x04,umask=0x0c")}) {
    const std::string file = absl::StrCat(folder, "/events/", event, suffix);
    root.Put(file, terms);
    root.Put(file + ".scale", "6.103515625e-5");
    root.Put(file + ".unit", "MiB");
  }
}

constexpr uint64_t kReads = 0x100304, kWrites = 0x0c04;

// Memory whose traffic is known; each of three sockets' first controller has
// all of its socket's.
struct Memory {
  double reads = 1e9, writes = 2e9;  // of 64 bytes, since boot
  std::multimap<uint64_t, std::pair<uint32_t, int>> opened;  // type and CPU
  std::string fails;                                         // why reading does

  PerfOpen Open() {
    return [this](uint32_t type, uint64_t config, int cpu) {
      opened.insert({config, {type, cpu}});
      return absl::StatusOr<std::unique_ptr<PerfEvent>>(
          std::make_unique<Event>(*this, config == kReads, cpu == 0));
    };
  }
  class Event final : public PerfEvent {
   public:
    Event(const Memory& memory, bool reads, bool busy)
        : memory_(memory), reads_(reads), busy_(busy) {}
    absl::StatusOr<double> Read() override {
      if (!memory_.fails.empty()) return absl::UnavailableError(memory_.fails);
      return busy_ ? reads_ ? memory_.reads : memory_.writes : 12345.0;
    }

   private:
    const Memory& memory_;
    bool reads_, busy_;
  };
};

TEST(UncoreDram, OpensEveryControllerOnEverySocket) {
  const FakeRoot root;
  PutController(root, "uncore_imc_0", 24);
  PutController(root, "uncore_imc_11", 25);
  PutController(root, "uncore_imc_free_running_0", 26);  // counts them again
  PutController(root, "uncore_cha_0", 27);
  Memory memory;
  const auto counter = OpenUncoreDramCounter([] {}, root.path(), memory.Open());
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_THAT((*counter)->name(), HasSubstr("2 memory controllers"));
  for (const uint64_t config : {kReads, kWrites}) {
    std::vector<std::pair<uint32_t, int>> opened;
    const auto [begin, end] = memory.opened.equal_range(config);
    for (auto it = begin; it != end; ++it) opened.push_back(it->second);
    EXPECT_THAT(opened, ElementsAre(std::pair(24, 0), std::pair(24, 18),
                                    std::pair(24, 19), std::pair(25, 0),
                                    std::pair(25, 18), std::pair(25, 19)));
  }
  EXPECT_EQ(memory.opened.size(), 12u);
}

TEST(UncoreDram, CountsColdCallsWithWhatTheyLeaveDirty) {
  const FakeRoot root;
  PutController(root, "uncore_imc", 24, "_sch0");
  Memory memory;
  bool dirty = true;
  int calls = 0;
  const auto counter = OpenUncoreDramCounter(
      [&] { memory.writes += std::exchange(dirty, false) ? 500 : 0; },
      root.path(), memory.Open());
  ASSERT_TRUE(counter.ok()) << counter.status();
  const auto bytes = (*counter)->Count(
      [&](Stream) {
        // Others' traffic, but while the third call runs.
        memory.reads += 1000 + (++calls == 3 ? 0 : 50 * calls);
        memory.writes += 100;
        dirty = true;
        return absl::OkStatus();
      },
      CacheState::kCold);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_DOUBLE_EQ(bytes->read, 64 * 1000);
  EXPECT_DOUBLE_EQ(bytes->written, 64 * (100 + 500));
}

TEST(UncoreDram, CountsHotCallsEach) {
  const FakeRoot root;
  PutController(root, "uncore_imc_0", 24);
  Memory memory;
  int evictions = 0;
  const auto counter =
      OpenUncoreDramCounter([&] { ++evictions; }, root.path(), memory.Open());
  ASSERT_TRUE(counter.ok()) << counter.status();
  bool first = true;
  const auto bytes = (*counter)->Count(
      [&](Stream) {
        memory.reads += std::exchange(first, false) ? 9999 : 8;
        memory.writes += 4;
        return absl::OkStatus();
      },
      CacheState::kHot);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_NEAR(bytes->read, 64 * 8, 1e-3);
  EXPECT_NEAR(bytes->written, 64 * 4, 1e-3);
  EXPECT_EQ(evictions, 0);
}

TEST(UncoreDram, FailuresAreTheCallsOrReasons) {
  const FakeRoot root;
  PutController(root, "uncore_imc_0", 24);
  Memory memory;
  const auto counter = OpenUncoreDramCounter([] {}, root.path(), memory.Open());
  ASSERT_TRUE(counter.ok()) << counter.status();
  for (const CacheState cache : {CacheState::kCold, CacheState::kHot}) {
    const auto broken = [](Stream) { return absl::InternalError("broken"); };
    EXPECT_EQ((*counter)->Count(broken, cache).status(),
              absl::InternalError("broken"));
    memory.fails = "gone";
    const auto fine = [](Stream) { return absl::OkStatus(); };
    EXPECT_EQ((*counter)->Count(fine, cache).status(),
              absl::UnavailableError("gone"));
    memory.fails = "";
  }
}

TEST(UncoreDram, WhereThereIsNoneTheReasonIsSaid) {
  const auto reason = [](const FakeRoot& root, const PerfOpen& open) {
    const auto counter = OpenUncoreDramCounter([] {}, root.path(), open);
    EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
    return std::string(counter.status().message());
  };
  Memory memory;
  const FakeRoot none;
  EXPECT_THAT(reason(none, memory.Open()), HasSubstr("no memory controller"));
  const auto missing = OpenUncoreDramCounter([] {}, "/no/such/folder");
  EXPECT_THAT(std::string(missing.status().message()),
              HasSubstr("/no/such/folder: No such file"));
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"/type", "software", "'software'"},
      {"/cpumask", "all", "'all'"},
      {"/cpumask", "3-1", "'3-1'"},
      {"/format/umask", "config1:0-7", "'config1:0-7'"},
      {"/format/umask", "config:0-99", "'config:0-99'"},
      {"/events/cas_count_read", "event=x", "'event=x'"},
      {"/events/cas_count_read", "thresh=0x1", "thresh cannot be read"},
      {"/events/cas_count_read.scale", "0", "'0'"},
      {"/events/cas_count_read.unit", "furlongs", "'furlongs'"},
  };
  for (const auto& [file, text, said] : cases) {
    const FakeRoot root;
    PutController(root, "uncore_imc_0", 24);
    root.Put(std::string("/uncore_imc_0") + file, text);
    EXPECT_THAT(reason(root, memory.Open()), HasSubstr(said)) << file;
  }
  const FakeRoot root;
  PutController(root, "uncore_imc_0", 24);
  EXPECT_THAT(reason(root,
                     [](uint32_t, uint64_t,
                        int) -> absl::StatusOr<std::unique_ptr<PerfEvent>> {
                       return absl::UnavailableError("not permitted");
                     }),
              HasSubstr("not permitted"));
}

// A type that no kernel has: an error of perf_event_open's, or its refusal.
TEST(UncoreDram, PerfSaysWhyNot) {
  const auto event = OpenPerfEvent(0x7fffffff, 0, 0);
  EXPECT_TRUE(absl::IsUnavailable(event.status())) << event.status();
  EXPECT_THAT(std::string(event.status().message()),
              HasSubstr("perf_event_open: "));
}

// A row that moves 3000 bytes at least.
class FakeRow final : public Row {
 public:
  Cost cost() const override { return {}; }
  size_t bytes_read() const override { return 2000; }
  size_t bytes_written() const override { return 1000; }
  absl::StatusOr<std::unique_ptr<RowInstance>> Instantiate(
      Device&, const InstanceOptions&) const override {
    return absl::UnimplementedError("nobody asked");
  }
};

TEST(DramCounters, AreThereWhenCounted) {
  Measurement measurement;
  measurement.samples.median = 1e-3;
  const auto absent = MakeCounters(FakeRow(), measurement, Ceilings());
  ASSERT_TRUE(absent.ok()) << absent.status();
  EXPECT_FALSE(absent->contains("dram_bytes"));
  EXPECT_FALSE(absent->contains("dram_bytes_over_minimum"));

  measurement.dram = DramBytes{.read = 2500, .written = 1100};
  const auto counters = MakeCounters(FakeRow(), measurement, Ceilings());
  ASSERT_TRUE(counters.ok()) << counters.status();
  EXPECT_EQ(counters->at("dram_bytes"), 3600);
  EXPECT_DOUBLE_EQ(counters->at("dram_bytes_over_minimum"), 1.2);

  // A set that lies in the caches: no traffic is no counter, not a zero.
  measurement.dram = DramBytes{};
  EXPECT_FALSE(
      MakeCounters(FakeRow(), measurement, Ceilings())->contains("dram_bytes"));
}

}  // namespace
}  // namespace seqmark
