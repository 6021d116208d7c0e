// SPDX-License-Identifier: Apache-2.0
#include "bench/throttle.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace seqmark {
namespace {

// Asking the driver takes some tens of microseconds, between samples.
constexpr double kLookSeconds = 0.02;
// Counters that moved less say nothing.
constexpr double kLeastFraction = 0.01;
// Stolen time is counted in hundredths of a second.
constexpr double kLeastStolenSeconds = 0.03;

double SteadySeconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Difference of two counters of seconds; 0 where either is not known.
double Grown(const absl::StatusOr<double>& before,
             const absl::StatusOr<double>& after) {
  return before.ok() && after.ok() ? std::max(0.0, *after - *before) : 0;
}

// Adds a share of the time, if it is one worth saying.
void Add(double fraction, absl::string_view what,
         std::vector<std::string>& parts, double& most) {
  if (!(fraction >= kLeastFraction)) return;
  fraction = std::min(1.0, fraction);
  most = std::max(most, fraction);
  parts.push_back(absl::StrFormat("%s for %.0f %% of the time",
                                  std::string(what), fraction * 100));
}

class GpuWatch final : public ThrottleWatch {
 public:
  GpuWatch(std::unique_ptr<Nvml> nvml, std::function<double()> now)
      : nvml_(std::move(nvml)), now_(std::move(now)) {}

  void Start() override {
    start_ = last_ = now_();
    power_ = nvml_->PowerCapSeconds();
    thermal_ = nvml_->ThermalSeconds();
    looks_ = slow_looks_ = 0;
    seen_ = 0;
    last_power_ = power_;
    power_limited_ = false;
  }
  void Look() override {
    const double now = now_();
    if (now - last_ < kLookSeconds) return;
    last_ = now;
    const auto reasons = nvml_->ClocksEventReasons();
    const auto power = nvml_->PowerCapSeconds();
    power_limited_ = power.ok() ? Grown(last_power_, power) > 0
                                : reasons.ok() && (*reasons & kClocksPowerCap);
    if (power.ok()) last_power_ = power;
    if (!reasons.ok()) return;
    ++looks_;
    seen_ |= *reasons & kClocksSlowdowns;
    slow_looks_ += (*reasons & kClocksSlowdowns) != 0;
  }
  bool power_limited() const override { return power_limited_; }
  Slowdown Stop() override {
    const double seconds = now_() - start_;
    std::vector<std::string> parts;
    Slowdown slowdown;
    if (seconds > 0) {
      Add(Grown(power_, nvml_->PowerCapSeconds()) / seconds, "power cap", parts,
          slowdown.fraction);
      Add(Grown(thermal_, nvml_->ThermalSeconds()) / seconds, "heat", parts,
          slowdown.fraction);
    }
    if (parts.empty() && slow_looks_ > 0) {
      slowdown.fraction = static_cast<double>(slow_looks_) / looks_;
      parts.push_back(absl::StrCat(ClocksEventReasonNames(seen_), " at ",
                                   slow_looks_, " of ", looks_, " looks"));
    }
    slowdown.what = absl::StrJoin(parts, ", ");
    return slowdown;
  }
  std::string Now() const override {
    const auto reasons = nvml_->ClocksEventReasons();
    return reasons.ok()
               ? ClocksEventReasonNames(*reasons)
               : absl::StrCat("not known: ", reasons.status().message());
  }

 private:
  std::unique_ptr<Nvml> nvml_;
  std::function<double()> now_;
  double start_ = 0, last_ = 0;
  absl::StatusOr<double> power_, thermal_, last_power_;
  bool power_limited_ = false;
  int looks_ = 0, slow_looks_ = 0;
  uint64_t seen_ = 0;
};

class CpuWatch final : public ThrottleWatch {
 public:
  CpuWatch(std::string root, int threads, std::function<double()> now)
      : root_(std::move(root)), threads_(threads), now_(std::move(now)) {}

  void Start() override {
    start_ = now_();
    before_ = ReadCpuSlowdowns(root_);
  }
  Slowdown Stop() override {
    const double seconds = now_() - start_;
    const CpuSlowdowns after = ReadCpuSlowdowns(root_);
    std::vector<std::string> parts;
    Slowdown slowdown;
    if (seconds > 0) {
      Add(Grown(before_.quota_seconds, after.quota_seconds) / seconds,
          "CPU quota", parts, slowdown.fraction);
      // Of all CPUs, while these threads ran.
      const double stolen = Grown(before_.stolen_seconds, after.stolen_seconds);
      if (stolen >= kLeastStolenSeconds)
        Add(stolen / seconds / threads_, "CPU time taken by the hypervisor",
            parts, slowdown.fraction);
    }
    if (before_.thermal_events.ok() && after.thermal_events.ok() &&
        *after.thermal_events > *before_.thermal_events) {
      parts.push_back(absl::StrCat(
          *after.thermal_events - *before_.thermal_events, " thermal events"));
      slowdown.fraction = std::max(slowdown.fraction, kLeastFraction);
    }
    slowdown.what = absl::StrJoin(parts, ", ");
    return slowdown;
  }
  std::string Now() const override {
    const CpuSlowdowns now = ReadCpuSlowdowns(root_);
    const auto value = [](const auto& v, absl::string_view unit) {
      return v.ok() ? absl::StrCat(*v, unit)
                    : absl::StrCat("not known (", v.status().message(), ")");
    };
    return absl::StrCat("quota used up for ", value(now.quota_seconds, " s"),
                        ", taken by the hypervisor ",
                        value(now.stolen_seconds, " s"), ", thermal events ",
                        value(now.thermal_events, ""));
  }

 private:
  std::string root_;
  int threads_;
  std::function<double()> now_;
  double start_ = 0;
  CpuSlowdowns before_;
};

}  // namespace

std::unique_ptr<ThrottleWatch> MakeGpuThrottleWatch(
    std::unique_ptr<Nvml> nvml, std::function<double()> now) {
  return std::make_unique<GpuWatch>(std::move(nvml), std::move(now));
}

std::unique_ptr<ThrottleWatch> MakeCpuThrottleWatch(
    std::string root, int threads, std::function<double()> now) {
  return std::make_unique<CpuWatch>(std::move(root), std::max(1, threads),
                                    std::move(now));
}

std::unique_ptr<ThrottleWatch> MakeThrottleWatch(const Device& device) {
  if (device.kind() == DeviceKind::kCpu)
    return MakeCpuThrottleWatch("/", device.threads(), SteadySeconds);
  for (const auto& [name, value] : device.facts()) {
    if (name != "gpu_pci_bus_id") continue;
    auto nvml = Nvml::Open(value);
    if (!nvml.ok()) return nullptr;
    return MakeGpuThrottleWatch(*std::move(nvml), SteadySeconds);
  }
  return nullptr;
}

}  // namespace seqmark
