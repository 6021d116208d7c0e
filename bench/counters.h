// SPDX-License-Identifier: Apache-2.0
//
// The one place where counters are named and derived.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "bench/throttle.h"
#include "fixtures/device.h"
#include "fixtures/dram_counter.h"
#include "fixtures/driver_memory.h"
#include "fixtures/energy.h"
#include "fixtures/roofline.h"
#include "fixtures/row.h"
#include "fixtures/sampler.h"

namespace seqmark {

// Everything measured about a row.
struct Measurement {
  SampleSummary samples;
  MemoryUse memory;
  double plan_seconds = 0;
  double graph_seconds = 0;  // 0: not measured
  // Of a sample, what is not its kernels'; 0: not known.
  double timer_overhead = 0;
  // Seconds by what they are booked under; empty: a row of one call.
  std::map<std::string, double> class_seconds;
  std::map<std::string, double> of_row;  // the row's own counters
  std::optional<EnergyReading> energy;
  std::optional<DramBytes> dram;
  std::optional<DriverMemory> driver_memory;
  Slowdown slowdown;
  double verified = 0;  // fraction of the outputs compared; 0: not looked at
  CacheState cache = CacheState::kHot;
};

// Counters by name, as DESIGN freezes them; a quantity that cannot be had is
// absent. An error when `sol` is above 1.02: the cost, the clock or the kernel
// is wrong then.
absl::StatusOr<std::map<std::string, double>> MakeCounters(
    const Row& row, const Measurement& measurement, const Ceilings& ceilings);

}  // namespace seqmark
