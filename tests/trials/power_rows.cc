// SPDX-License-Identifier: Apache-2.0
//
// Each row's energy by fixtures/energy.h, and the power that NVML says in the
// same window, watched by another thread.
//
//   seqmark_bench --benchmark_list_tests ... | seqmark_power_rows 2 >
//   power.json
//
// The argument is the window's seconds.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fixtures/device.h"
#include "fixtures/energy.h"
#include "fixtures/row.h"
#include "nlohmann/json.hpp"
#include "tests/trials/trial_rows.h"

namespace seqmark {
namespace {

using Json = nlohmann::json;

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Reading {
  double seconds = 0;  // when
  double value = 0;    // watts, or joules
};

// The mean of readings within a window, and how often they changed in it.
struct Mean {
  double value = 0;
  int readings = 0;
  int changes = 0;
};
Mean MeanWithin(const std::vector<Reading>& all, double from, double to) {
  Mean mean;
  double before = -1;
  for (const Reading& reading : all) {
    if (reading.seconds < from || reading.seconds > to) continue;
    mean.value += reading.value;
    ++mean.readings;
    mean.changes += reading.value != before;
    before = reading.value;
  }
  if (mean.readings > 0) mean.value /= mean.readings;
  return mean;
}

// NVML's power of a GPU, read every few milliseconds by a thread.
class PowerWatch {
 public:
  explicit PowerWatch(const std::string& pci_bus_id) {
    void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    const auto find = [library](const char* name, auto& function) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
          dlsym(library, name));
      return function != nullptr;
    };
    int (*init)() = nullptr;
    int (*handle)(const char*, void**) = nullptr;
    if (!find("nvmlInit_v2", init) || init() != 0 ||
        !find("nvmlDeviceGetHandleByPciBusId_v2", handle) ||
        handle(pci_bus_id.c_str(), &device_) != 0)
      return;
    find("nvmlDeviceGetFieldValues", fields_);
    thread_ = std::thread([this] { Watch(); });
  }
  ~PowerWatch() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  PowerWatch(const PowerWatch&) = delete;
  PowerWatch& operator=(const PowerWatch&) = delete;

  // What was read so far; the thread goes on.
  std::vector<Reading> Readings() const {
    const size_t count = count_.load(std::memory_order_acquire);
    return {readings_.begin(), readings_.begin() + count};
  }

 private:
  // NVML's documented nvmlFieldValue_t, and its number of a GPU's power at the
  // moment: nvmlDeviceGetPowerUsage is an average of the last second.
  struct Field {
    unsigned id = 0, scope = 0;
    long long timestamp = 0, latency = 0;
    int type = 0, result = 0;
    union {
      unsigned milliwatts;
      unsigned long long eight_bytes = 0;
    };
  };
  static constexpr unsigned kPowerInstant = 186;
  static constexpr size_t kMostReadings = 1 << 16;

  void Watch() {
    while (!stop_ && fields_ != nullptr && count_ < kMostReadings) {
      Field field;
      field.id = kPowerInstant;
      if (fields_(device_, 1, &field) == 0 && field.result == 0) {
        readings_[count_] = {Now(), field.milliwatts * 1e-3};
        count_.fetch_add(1, std::memory_order_release);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
    }
  }

  void* device_ = nullptr;
  int (*fields_)(void*, int, Field*) = nullptr;
  std::vector<Reading> readings_ = std::vector<Reading>(kMostReadings);
  std::atomic<size_t> count_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

absl::StatusOr<Json> Measure(const Row& row, Device& device, EnergyMeter& meter,
                             const PowerWatch& power) {
  const auto instance = row.Instantiate(device, {.seed = 1});
  if (!instance.ok()) return instance.status();
  const auto source =
      device.MakeSampleSource((*instance)->launch(), CacheState::kHot,
                              (*instance)->replayed_as_graph());
  auto batch = source->Take(21);
  if (!batch.ok()) return batch.status();
  std::sort(batch->seconds.begin(), batch->seconds.end());
  const auto reading = meter.Measure(*source, batch->seconds[10]);
  if (!reading.ok()) return reading.status();
  const Mean sampled =
      MeanWithin(power.Readings(), reading->start, reading->end);
  return Json{{"row", row.name().ToString()},
              {"energy", reading->joules},
              {"power", reading->watts},
              {"energy_noise", reading->noise},
              {"window_seconds", reading->end - reading->start},
              {"ran_dry", reading->ran_dry},
              {"sampled_power", sampled.value},
              {"power_readings", sampled.readings},
              {"power_changes", sampled.changes}};
}

absl::Status Main(double window) {
  const auto rows = ReadRows(std::cin);
  if (!rows.ok()) return rows.status();
  const auto device = MakeCudaDevice();
  if (!device.ok()) return device.status();
  std::string bus_id;
  Json context = Json::object();
  for (const auto& [key, value] : (*device)->facts()) {
    if (key == "gpu_pci_bus_id") bus_id = value;
    context[key] = value;
  }
  PowerWatch power(bus_id);
  const double from = Now();
  auto counter = (*device)->OpenEnergyCounter();
  if (!counter.ok()) return counter.status();
  const auto meter = EnergyMeter::Make(*std::move(counter),
                                       {.window_seconds = window, .now = Now});
  if (!meter.ok()) return meter.status();
  const Mean idle = MeanWithin(power.Readings(), from, Now());
  context["energy"] = (*meter)->name();
  context["energy_window_seconds"] = (*meter)->window_seconds();
  context["energy_window_error"] = (*meter)->window_error();
  context["energy_lead_in_seconds"] = (*meter)->lead_in_seconds();
  context["energy_read_seconds"] = (*meter)->read_seconds();
  context["energy_update_seconds"] = (*meter)->update_seconds();
  context["idle_power_watts"] = (*meter)->idle_watts();
  context["sampled_idle_power_watts"] = idle.value;
  Json measured = Json::array();
  for (const auto& row : *rows) {
    auto result = Measure(*row, **device, **meter, power);
    if (!result.ok())
      result = Json{{"row", row->name().ToString()},
                    {"error", std::string(result.status().message())}};
    measured.push_back(*result);
  }
  std::printf("%s\n",
              Json{{"context", context}, {"rows", measured}}.dump(1).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace seqmark

int main(int argc, char** argv) {
  const double window = argc > 1 ? std::atof(argv[1]) : 2;
  const absl::Status status = seqmark::Main(window);
  if (status.ok()) return 0;
  std::cerr << "seqmark_power_rows: " << status.message() << "\n";
  return 1;
}
