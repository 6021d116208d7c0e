// SPDX-License-Identifier: Apache-2.0
#include "bench/counters.h"

#include <cmath>
#include <limits>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"

namespace seqmark {
namespace {

// ThreadSanitizer makes the ceilings' code slower, and leaves libraries' as it
// is: nothing can be said of a row there.
#ifdef ABSL_HAVE_THREAD_SANITIZER
constexpr double kMostSol = std::numeric_limits<double>::infinity();
#else
constexpr double kMostSol = 1.02;
#endif

}  // namespace

absl::StatusOr<std::map<std::string, double>> MakeCounters(
    const Row& row, const Measurement& m, const Ceilings& ceilings) {
  const double seconds = m.samples.median;
  if (!(seconds > 0) || !std::isfinite(seconds))
    return absl::InternalError(absl::StrCat(
        "the median of ", m.samples.samples, " samples is ", seconds,
        " s: the launch did no work or the clock is bad"));
  std::map<std::string, double> counters;
  const auto set = [&](const char* name, double value) {
    if (std::isfinite(value)) counters[name] = value;
  };
  const auto set_if = [&](const char* name, double value) {
    if (value > 0) set(name, value);
  };
  const Cost cost = row.cost();
  const double bytes =
      static_cast<double>(row.bytes_read() + row.bytes_written());
  set("samples", static_cast<double>(m.samples.samples));
  set("noise", m.samples.noise);
  set("time_p10", m.samples.p10);
  set("time_p90", m.samples.p90);
  set_if("samples_dropped", static_cast<double>(m.samples.dropped));
  set("bytes_moved", bytes);
  set("bytes_per_second", bytes / seconds);
  set("flops", cost.flops());
  set("flops_per_second", cost.flops() / seconds);
  set("tokens_per_second", row.tokens() / seconds);
  if (m.energy) {
    set_if("energy", m.energy->joules);
    set_if("energy_per_token", m.energy->joules / row.tokens());
    set_if("power", m.energy->watts);
    set("energy_noise", m.energy->noise);
  }
  if (m.dram && m.dram->total() > 0) {
    set("dram_bytes", m.dram->total());
    if (bytes > 0) set("dram_bytes_over_minimum", m.dram->total() / bytes);
  }
  set("peak_memory", static_cast<double>(m.memory.peak));
  set_if("memory_workspace", static_cast<double>(m.memory.workspace));
  if (m.driver_memory) {
    set("driver_memory", m.driver_memory->gone);
    set("driver_memory_difference", m.driver_memory->difference());
    set("allocations", static_cast<double>(m.driver_memory->allocations));
  }
  set("plan_seconds", m.plan_seconds);
  set_if("graph_time", m.graph_seconds);
  if (m.timer_overhead > 0) set_if("kernel_time", seconds - m.timer_overhead);
  set_if("host_time", m.samples.host_seconds);
  set_if("clock", m.samples.clock_hz);
  set_if("verified", m.verified);
  set_if("throttled", m.slowdown.fraction);

  for (const auto& [name, value] : m.of_row) set(name.c_str(), value);
  double sum = 0;
  for (const auto& [name, part] : m.class_seconds) sum += part;
  for (const auto& [name, part] : m.class_seconds)
    set(absl::StrCat("share_", name).c_str(), part / sum);

  const LeastTime least = LeastSeconds(cost, row.name().dtype, row.bytes_read(),
                                       row.bytes_written(), m.cache, ceilings);
  const double sol = least.seconds / seconds;
  if (sol > kMostSol)
    return absl::InternalError(absl::StrCat(
        "sol is ", sol, ": ", seconds, " s measured, ", least.seconds,
        " s the least by ", Name(least.limit),
        "; the declared cost, the clock, the ceilings (--recalibrate) or the ",
        "kernel is wrong"));
  set_if("sol", sol);
  return counters;
}

}  // namespace seqmark
