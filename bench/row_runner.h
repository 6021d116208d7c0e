// SPDX-License-Identifier: Apache-2.0
//
// Runs one row: tensors, plan, samples, counters. Knows devices and rows and
// nothing of Google Benchmark or processes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/options.h"
#include "bench/throttle.h"
#include "fixtures/device.h"
#include "fixtures/dram_counter.h"
#include "fixtures/energy.h"
#include "fixtures/roofline.h"
#include "fixtures/row.h"

namespace seqmark {

// One of the calls that a row is made of, timed.
struct TimedPart {
  std::string name;  // "<op>/<provider>"
  std::string op_class;
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
};

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

  absl::StatusOr<RowResult> Run(const Row& row);

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

  const Options& options_;
  std::map<DeviceKind, absl::StatusOr<Machine>> machines_;
};

}  // namespace seqmark
