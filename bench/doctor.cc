// SPDX-License-Identifier: Apache-2.0
#include "bench/doctor.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace seqmark {
namespace {

// Runnable tasks a CPU that other work may have.
constexpr double kIdleLoad = 0.1;
constexpr double kLeastMemoryAvailable = 0.25;
constexpr int kHotGpu = 80;            // degrees Celsius, doing nothing
constexpr double kBusyGpuWatts = 0.4;  // of the limit, doing nothing

void Hurts(std::vector<Finding>& findings, std::string what, std::string mend) {
  findings.push_back({true, std::move(what), std::move(mend)});
}
void Notes(std::vector<Finding>& findings, std::string what, std::string mend) {
  findings.push_back({false, std::move(what), std::move(mend)});
}

void Print(const std::string& subject, const std::vector<Finding>& findings) {
  if (findings.empty()) std::printf("  ok     %s\n", subject.c_str());
  for (const Finding& finding : findings) {
    std::printf("  %s  %s: %s\n", finding.hurts ? "HURTS" : "note ",
                subject.c_str(), finding.what.c_str());
    if (!finding.mend.empty())
      std::printf("         mend: %s\n", finding.mend.c_str());
  }
}

int CountHurts(const std::vector<Finding>& findings) {
  int count = 0;
  for (const Finding& finding : findings) count += finding.hurts;
  return count;
}

}  // namespace

std::vector<Finding> Diagnose(const HostState& host) {
  std::vector<Finding> found;
  if (host.governors.ok()) {
    for (const auto& [governor, cpus] : *host.governors)
      if (governor != "performance")
        Hurts(found,
              absl::StrCat("the frequency governor of ", cpus, " CPUs is ",
                           governor, ": the clock rises late and falls early"),
              "sudo cpupower frequency-set -g performance");
  }
  if (host.load.ok() && host.cpus.ok() && *host.load > kIdleLoad * *host.cpus)
    Hurts(found,
          absl::StrFormat("others are at work: a load of %.2f on %d CPUs in "
                          "the last minute",
                          *host.load, *host.cpus),
          "stop them (ps -eo pid,pcpu,comm --sort=-pcpu | head), or wait");
  if (host.cpu_quota.ok() && *host.cpu_quota > 0) {
    const int cpus = host.cpus_allowed.ok() ? *host.cpus_allowed : 0;
    Hurts(found,
          absl::StrFormat("a quota of %.2f CPUs over %d: threads are stopped "
                          "when it is used up",
                          *host.cpu_quota, cpus),
          absl::StrFormat(
              "run outside the container or without its CPU limit, "
              "or with --threads=%d",
              std::max(1, static_cast<int>(std::floor(*host.cpu_quota)))));
  }
  if (host.turbo.ok() && *host.turbo)
    Notes(found,
          "turbo is on: the clock depends on heat and on how many cores work",
          "for steady clocks: echo 1 | sudo tee "
          "/sys/devices/system/cpu/intel_pstate/no_turbo (or echo 0 to "
          ".../cpufreq/boost)");
  if (host.numa_nodes.ok() && *host.numa_nodes > 1)
    Notes(found,
          absl::StrCat(*host.numa_nodes, " NUMA nodes: far memory is slower"),
          "to measure one: numactl --cpunodebind=0 --membind=0 tools/bench");
  if (host.huge_pages.ok() && *host.huge_pages == "never")
    Hurts(found, "transparent huge pages are off: large tensors miss the TLB",
          "echo madvise | sudo tee "
          "/sys/kernel/mm/transparent_hugepage/enabled");
  if (host.memory_available.ok() &&
      *host.memory_available < kLeastMemoryAvailable)
    Hurts(found,
          absl::StrFormat("%.0f %% of memory is free: large rows are skipped, "
                          "or swap",
                          100 * *host.memory_available),
          "end what holds it (ps -eo pid,rss,comm --sort=-rss | head)");
  if (host.clock_source.ok() &&
      (*host.clock_source == "hpet" || *host.clock_source == "acpi_pm" ||
       *host.clock_source == "jiffies"))
    Hurts(found,
          absl::StrCat("the clock is read from ", *host.clock_source,
                       ": a reading takes microseconds"),
          "boot with clocksource=tsc, if dmesg does not call it unstable");
  if (host.smt.ok() && *host.smt)
    Notes(found, "SMT is on: neighbours of busy threads slow them down",
          "keep the other threads of these cores idle, or echo off | sudo tee "
          "/sys/devices/system/cpu/smt/control");
  if (host.container.ok() && *host.container != "none")
    Notes(found,
          absl::StrCat("inside a container (", *host.container,
                       "): work outside it is not seen here"),
          "");
  if (host.virtual_machine.ok() && *host.virtual_machine != "none")
    Notes(found,
          absl::StrCat("a virtual machine (", *host.virtual_machine,
                       "): its CPUs may be shared, and there is no energy "
                       "counter or governor to see"),
          "");
  return found;
}

std::vector<Finding> Diagnose(const GpuState& gpu) {
  std::vector<Finding> found;
  if (gpu.persistence.ok() && !*gpu.persistence)
    Hurts(found,
          "persistence mode is off: the driver lets go of the GPU between "
          "programs, and its clocks and ECC state start anew",
          "sudo nvidia-smi -pm 1");
  if (gpu.mig.ok() && *gpu.mig)
    Hurts(found,
          "MIG is on: a slice has a part of the memory's bandwidth, and other "
          "slices share the power limit",
          "measure on a GPU without it, or say so with the result "
          "(its administrator: nvidia-smi -mig 0)");
  if (gpu.processes.ok() && !gpu.processes->empty()) {
    std::vector<std::string> pids;
    for (const GpuProcess& process : *gpu.processes)
      pids.push_back(absl::StrCat(process.pid));
    Hurts(found,
          absl::StrCat(pids.size(), " other processes use the GPU: ",
                       absl::StrJoin(pids, " ")),
          "end them, or choose another GPU with CUDA_VISIBLE_DEVICES");
  }
  if (gpu.power_limit_watts.ok() && gpu.default_power_limit_watts.ok() &&
      *gpu.power_limit_watts < 0.995 * *gpu.default_power_limit_watts)
    Hurts(
        found,
        absl::StrFormat("the power limit is %.0f W, below its default of "
                        "%.0f W",
                        *gpu.power_limit_watts, *gpu.default_power_limit_watts),
        absl::StrFormat("sudo nvidia-smi -pl %.0f",
                        *gpu.default_power_limit_watts));
  if (gpu.application_clock_hz.ok() && gpu.default_application_clock_hz.ok() &&
      *gpu.application_clock_hz < *gpu.default_application_clock_hz)
    Hurts(found,
          absl::StrFormat("application clocks are set to %.0f MHz, below "
                          "their default of %.0f MHz",
                          *gpu.application_clock_hz * 1e-6,
                          *gpu.default_application_clock_hz * 1e-6),
          "sudo nvidia-smi -rac");
  if (gpu.clocks_event_reasons.ok() &&
      (*gpu.clocks_event_reasons & kClocksSlowdowns) != 0)
    Hurts(found,
          absl::StrCat("its clocks are held down now: ",
                       ClocksEventReasonNames(*gpu.clocks_event_reasons &
                                              kClocksSlowdowns)),
          "let it cool down, and look at its power supply and air "
          "(nvidia-smi -q -d PERFORMANCE)");
  if (gpu.temperature.ok() && *gpu.temperature >= kHotGpu)
    Hurts(found, absl::StrCat("it is at ", *gpu.temperature, " C already"),
          "let it cool down; look at its air");
  if (gpu.power_watts.ok() && gpu.power_limit_watts.ok() &&
      *gpu.power_watts > kBusyGpuWatts * *gpu.power_limit_watts)
    Hurts(found,
          absl::StrFormat("it takes %.0f W before anything was started",
                          *gpu.power_watts),
          "something uses it: nvidia-smi, also outside this container");
  if (gpu.compute_mode.ok() && *gpu.compute_mode == "prohibited")
    Hurts(found, "its compute mode is prohibited: nothing can run on it",
          "sudo nvidia-smi -c 0");
  if (gpu.pcie_width.ok() && gpu.max_pcie_width.ok() &&
      *gpu.pcie_width < *gpu.max_pcie_width)
    Notes(found,
          absl::StrCat("its PCIe link has ", *gpu.pcie_width, " of ",
                       *gpu.max_pcie_width, " lanes: copies are slower"),
          "");
  if (gpu.ecc.ok() && !*gpu.ecc)
    Notes(found, "ECC is off: bandwidth is a little higher than where it is on",
          "");
  // NVML does not say whether clocks are locked.
  Notes(found,
        "whether clocks are locked is not to be seen; rows report the clock "
        "they were measured at",
        "for the steadiest clocks: sudo nvidia-smi -lgc <MHz>,<MHz>, and -rgc "
        "afterwards");
  return found;
}

int Doctor(const std::string& root, const char* nvml_library) {
  int hurts = 0;
  const auto report = [&hurts](const std::string& subject,
                               const std::vector<Finding>& findings) {
    Print(subject, findings);
    hurts += CountHurts(findings);
  };
  const HostState host = ReadHostState(root);
  report("host", Diagnose(host));
  const auto gpus = Nvml::OpenAll(nvml_library);
  if (gpus.ok()) {
    for (size_t i = 0; i < gpus->size(); ++i) {
      const GpuState state = (*gpus)[i]->State();
      report(absl::StrCat("gpu ", i, " (", state.name, ")"), Diagnose(state));
    }
  } else {
    std::printf("  note   no GPU is looked at: %s\n",
                std::string(gpus.status().message()).c_str());
  }
  for (const auto& [name, value] : Facts(host))
    if (absl::string_view(value).substr(0, 9) == "not known")
      std::printf("  note   %s is %s\n", name.c_str(), value.c_str());
  std::printf(hurts == 0 ? "nothing here hurts a measurement\n"
                         : "%d things here hurt a measurement\n",
              hurts);
  return hurts == 0 ? 0 : 1;
}

}  // namespace seqmark
