// SPDX-License-Identifier: Apache-2.0
#include "bench/row_runner.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/counters.h"
#include "bench/verify.h"
#include "fixtures/driver_memory.h"
#include "fixtures/plant.h"
#include "fixtures/sampler.h"

namespace seqmark {
namespace {

// Below this a call is worth timing as a graph too.
constexpr double kGraphSeconds = 100e-6;

std::map<std::string, double> SecondsByClass(
    const std::vector<TimedPart>& parts) {
  std::map<std::string, double> seconds;
  if (!parts.empty()) seconds["other"] = 0;
  for (const TimedPart& part : parts) seconds[part.op_class] += part.seconds;
  return seconds;
}

// A result that the plan gives and the run confirms; empty where there is none.
std::string Unconfirmed(const std::map<std::string, double>& counters) {
  const auto longest = counters.find("max_seqlen");
  if (longest == counters.end()) return "";
  return absl::StrFormat(
      "by the plan max_seqlen is %.0f, which no whole run has confirmed",
      longest->second);
}

void AddToLabel(absl::string_view text, std::string& label) {
  absl::StrAppend(&label, label.empty() ? "" : "; ", text);
}

}  // namespace

bool IsSkip(const absl::Status& status) {
  return absl::IsUnimplemented(status) || absl::IsResourceExhausted(status) ||
         absl::IsUnavailable(status);
}

CacheState RowRunner::CacheFor(DeviceKind kind) const {
  if (options_.cache) return *options_.cache;
  return kind == DeviceKind::kCuda ? CacheState::kCold : CacheState::kHot;
}

absl::StatusOr<RowRunner::Machine*> RowRunner::Get(DeviceKind kind) {
  auto it = machines_.find(kind);
  if (it == machines_.end()) {
    const auto make = [&]() -> absl::StatusOr<Machine> {
      auto device = kind == DeviceKind::kCpu
                        ? MakeCpuDevice({.threads = options_.threads})
                        : MakeCudaDevice();
      if (!device.ok()) return device.status();
      // While the device is still idle.
      auto energy = MakeEnergyMeter(**device);
      auto ceilings = GetCeilings(**device, options_.recalibrate);
      if (!ceilings.ok()) return ceilings.status();
      (*device)->SetMemoryLimit(options_.memory_limit);
      auto dram = options_.verify_bytes
                      ? (*device)->OpenDramCounter()
                      : absl::UnavailableError("--verify_bytes=false");
      auto watch = MakeThrottleWatch(**device);
      return Machine{*std::move(device), *std::move(ceilings),
                     std::move(energy), std::move(dram), std::move(watch)};
    };
    it = machines_.emplace(kind, make()).first;
  }
  if (!it->second.ok()) return it->second.status();
  return &*it->second;
}

absl::StatusOr<std::unique_ptr<EnergyMeter>> RowRunner::MakeEnergyMeter(
    const Device& device) const {
  if (options_.energy_time == 0)
    return absl::UnavailableError("not measured: --energy_time=0");
  auto counter = device.OpenEnergyCounter();
  if (!counter.ok()) return counter.status();
  return EnergyMeter::Make(
      *std::move(counter),
      {.window_seconds = std::min(options_.energy_time, options_.max_time)});
}

absl::Status RowRunner::CheckTime(const Row& row, CacheState cache,
                                  const Ceilings& ceilings,
                                  const std::string& unconfirmed) const {
  if (!options_.isolate) return absl::OkStatus();  // nobody ends the row
  const double least =
      LeastSeconds(row.cost(), row.name().dtype, row.bytes_read(),
                   row.bytes_written(), cache, ceilings)
          .seconds;
  if (least <= options_.row_timeout) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("one call takes ", least,
                   " s at least by this machine's ceilings, a row ",
                   options_.row_timeout, " s at most (--row_timeout)",
                   unconfirmed.empty() ? "" : "; ", unconfirmed));
}

absl::StatusOr<RowResult> RowRunner::Run(
    const Row& row, const std::function<void(const std::string&)>& note) {
  const auto machine = Get(row.name().device);
  if (!machine.ok()) return machine.status();
  Device& device = *(*machine)->device;
  device.ResetPeak();
  const InstanceOptions of_instance{.seed = options_.seed};
  auto instance = row.Instantiate(device, of_instance);
  if (!instance.ok()) return instance.status();

  Measurement m;
  std::string label;
  m.cache = CacheFor(row.name().device);
  m.plan_seconds = (*instance)->plan_seconds();
  m.of_row = (*instance)->counters();
  const std::string unconfirmed = Unconfirmed(m.of_row);
  if (absl::Status s =
          CheckTime(row, m.cache, (*machine)->ceilings, unconfirmed);
      !s.ok())
    return s;
  if (!unconfirmed.empty()) note(unconfirmed);
  if (options_.verify_memory && CanCheckDriverMemory(device).ok()) {
    auto checked =
        InstantiateAgain(row, of_instance, *std::move(instance), device);
    if (!checked.ok()) return checked.status();
    m.driver_memory = checked->memory;
    instance = std::move(checked->instance);
  }
  if (options_.verify) {
    const auto verified = Verify(**instance, options_.seed);
    if (!verified.ok()) return verified.status();
    m.verified = verified->fraction;
    label = verified->label;
  }
  const bool as_graph = (*instance)->replayed_as_graph();
  const std::vector<RowPart> row_parts = (*instance)->parts();
  Launch launch = (*instance)->launch();
  std::optional<FirstCallParts> first_call;
  if (device.kind() == DeviceKind::kCpu && !row_parts.empty())
    launch = first_call.emplace(row_parts).launch();
  const auto plant = PlantOfThisBuild();
  if (!plant.ok()) return plant.status();
  if (*plant && (*plant)->IsFor(row.name())) {
    const PlantedTiming timing{.cache = m.cache, .as_graph = as_graph};
    auto slowed = Slowed(launch, (*plant)->factor, timing, device);
    if (!slowed.ok()) return slowed.status();
    launch = *std::move(slowed);
    AddToLabel(absl::StrCat("planted: ", (*plant)->factor, " of its time"),
               label);
  }
  const std::unique_ptr<SampleSource> source =
      device.MakeSampleSource(std::move(launch), m.cache, as_graph);
  SamplerOptions sampling;
  sampling.noise = options_.noise;
  sampling.min_time = options_.benchmark.min_time;
  sampling.max_time = std::max(options_.max_time, sampling.min_time);
  sampling.warm_up_time =
      std::max(sampling.warm_up_time, options_.benchmark.min_warmup_time);
  if (options_.benchmark.samples > 0)
    sampling.min_samples = sampling.max_samples = options_.benchmark.samples;
  ThrottleWatch* const watch = (*machine)->watch.get();
  WatchedSource watched(*source, watch);
  if (watch != nullptr) watch->Start();
  auto samples = Sample(watched, sampling);
  if (!samples.ok()) return samples.status();
  m.samples = *samples;
  if (watch != nullptr) m.slowdown = watch->Stop();
  if (!m.slowdown.what.empty())
    AddToLabel(absl::StrCat("throttled: ", m.slowdown.what), label);
  if (m.samples.throttled)
    AddToLabel("throttled: its samples have a low clock", label);
  m.memory = device.memory();
  const auto overhead = device.MeasureTimerOverhead(
      (*machine)->ceilings.kernel_edges_seconds, m.cache, as_graph);
  if (overhead.ok())
    m.timer_overhead = *overhead;
  else if (!absl::IsUnavailable(overhead.status()) &&
           !absl::IsUnimplemented(overhead.status()))
    return overhead.status();
  const bool one_call = m.samples.samples + m.samples.warm_up_samples == 1;
  auto parts =
      first_call && one_call
          ? absl::StatusOr<std::vector<TimedPart>>(first_call->timed())
          : TimeParts(row_parts, m.samples.median, sampling.max_time, device);
  if (!parts.ok()) return parts.status();
  m.class_seconds = SecondsByClass(*parts);
  if (m.samples.median < kGraphSeconds)
    if (const auto seconds = source->GraphSeconds(); seconds.ok())
      m.graph_seconds = *seconds;
  if ((*machine)->energy.ok()) {
    const auto energy =
        (**(*machine)->energy).Measure(*source, m.samples.median);
    if (energy.ok()) {
      const std::string doubt = Doubt(*energy, m.samples.median);
      if (doubt.empty())
        m.energy = *energy;
      else
        AddToLabel(absl::StrCat("energy not measured: ", doubt), label);
    } else if (!absl::IsUnavailable(energy.status())) {
      return energy.status();
    }
  }

  if ((*machine)->dram.ok()) {
    const auto dram =
        (**(*machine)->dram).Count((*instance)->launch(), m.cache);
    if (dram.ok())
      m.dram = *dram;
    else if (absl::IsUnavailable(dram.status()))
      AddToLabel(
          absl::StrCat("dram_bytes not measured: ", dram.status().message()),
          label);
    else
      return dram.status();
  }

  auto counters = MakeCounters(row, m, (*machine)->ceilings);
  if (!counters.ok()) return counters.status();
  return RowResult{.seconds = m.samples.median,
                   .counters = *std::move(counters),
                   .parts = *std::move(parts),
                   .replayed_as_graph = (*instance)->replayed_as_graph(),
                   .label = std::move(label)};
}

std::vector<std::pair<std::string, std::string>> RowRunner::Facts(
    const std::vector<DeviceKind>& kinds) {
  std::vector<std::pair<std::string, std::string>> facts;
  for (const DeviceKind kind : kinds) {
    const std::string device(Name(kind));
    const auto machine = Get(kind);
    if (!machine.ok()) {
      facts.emplace_back(absl::StrCat(device, "_unavailable"),
                         machine.status().message());
      continue;
    }
    for (auto& fact : (*machine)->device->facts())
      facts.push_back(std::move(fact));
    facts.emplace_back(absl::StrCat(device, "_ceilings"),
                       ToJson((*machine)->ceilings));
    facts.emplace_back(absl::StrCat(device, "_cache"), Name(CacheFor(kind)));
    if ((*machine)->watch != nullptr)
      facts.emplace_back(absl::StrCat(device, "_slowdowns_before"),
                         (*machine)->watch->Now());
    const auto add = [&](absl::string_view name, const auto& value) {
      facts.emplace_back(absl::StrCat(device, name), absl::StrCat(value));
    };
    const auto& dram = (*machine)->dram;
    add("_dram_counters",
        dram.ok() ? (*dram)->name()
                  : absl::StrCat("not measured: ", dram.status().message()));
    const absl::Status memory =
        options_.verify_memory
            ? CanCheckDriverMemory(*(*machine)->device)
            : absl::UnavailableError("--verify_memory=false");
    add("_driver_memory",
        memory.ok()
            ? absl::StrCat("what the driver lends, in granules of ",
                           (*machine)->device->memory_granule(), " bytes")
            : absl::StrCat("not measured: ", memory.message()));
    const auto& energy = (*machine)->energy;
    if (!energy.ok()) {
      add("_energy", energy.status().message());
      continue;
    }
    add("_energy", (*energy)->name());
    add("_energy_window_seconds", (*energy)->window_seconds());
    add("_energy_window_error", (*energy)->window_error());
    add("_energy_lead_in_seconds", (*energy)->lead_in_seconds());
    add("_energy_update_seconds", (*energy)->update_seconds());
    add("_idle_power_watts", (*energy)->idle_watts());
  }
  return facts;
}

std::vector<std::pair<std::string, std::string>> RowRunner::FactsAfter() const {
  std::vector<std::pair<std::string, std::string>> facts;
  for (const auto& [kind, machine] : machines_)
    if (machine.ok() && machine->watch != nullptr)
      facts.emplace_back(absl::StrCat(Name(kind), "_slowdowns_after"),
                         machine->watch->Now());
  return facts;
}

}  // namespace seqmark
