// SPDX-License-Identifier: Apache-2.0
//
// Runs one row: tensors, plan, samples, counters. Knows devices and rows and
// nothing of Google Benchmark or processes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/options.h"
#include "bench/part_times.h"
#include "bench/throttle.h"
#include "fixtures/device.h"
#include "fixtures/dram_counter.h"
#include "fixtures/energy.h"
#include "fixtures/roofline.h"
#include "fixtures/row.h"

namespace seqmark {

struct RowResult {
  double seconds = 0;                      // median of one call
  std::map<std::string, double> counters;  // all finite
  std::vector<TimedPart> parts;            // in order; none of a single call
  bool replayed_as_graph = false;          // so `seconds` was taken
  std::string label;                       // what numbers cannot say
};

// Whether a failure is a skipped row (not this problem, does not fit, no such
// device) rather than an error.
bool IsSkip(const absl::Status& status);

class RowRunner {
 public:
  explicit RowRunner(const Options& options) : options_(options) {}

  // `note` is told, before the row is run, what should be said of it if it
  // never comes to an end.
  absl::StatusOr<RowResult> Run(
      const Row& row, const std::function<void(const std::string&)>& note =
                          [](const std::string&) {});

  // Facts of the devices that `kinds` names, ceilings included, for the
  // result file's context. Devices that are not there give their reason.
  std::vector<std::pair<std::string, std::string>> Facts(
      const std::vector<DeviceKind>& kinds);

  // What can only be said when rows have been run.
  std::vector<std::pair<std::string, std::string>> FactsAfter() const;

  CacheState CacheFor(DeviceKind kind) const;

 private:
  struct Machine {
    std::unique_ptr<Device> device;
    Ceilings ceilings;
    absl::StatusOr<std::unique_ptr<EnergyMeter>>
        energy;                                         // or why there is none
    absl::StatusOr<std::unique_ptr<DramCounter>> dram;  // likewise
    std::unique_ptr<ThrottleWatch> watch;  // null where nothing tells
  };
  absl::StatusOr<std::unique_ptr<EnergyMeter>> MakeEnergyMeter(
      const Device& device) const;
  absl::StatusOr<Machine*> Get(DeviceKind kind);
  // DeadlineExceeded for a row that cannot end within --row_timeout.
  absl::Status CheckTime(const Row& row, CacheState cache,
                         const Ceilings& ceilings,
                         const std::string& unconfirmed) const;

  const Options& options_;
  std::map<DeviceKind, absl::StatusOr<Machine>> machines_;
};

}  // namespace seqmark
