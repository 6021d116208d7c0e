// SPDX-License-Identifier: Apache-2.0
//
// Whether a device was slowed down while a row was timed: a GPU by its power
// limit or by heat, a CPU by a quota, by heat or by a hypervisor that gave its
// time to others. Looked at between samples and around all of them, never in
// one.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fixtures/device.h"
#include "fixtures/host.h"
#include "fixtures/nvml.h"

namespace seqmark {

struct Slowdown {
  // Of the time watched, or of the looks where nothing counts time. 0: none.
  double fraction = 0;
  std::string what;  // "power cap for 43 % of the time"; empty: none
};

class ThrottleWatch {
 public:
  virtual ~ThrottleWatch() = default;
  virtual void Start() = 0;
  // Called often; looks every few milliseconds at most.
  virtual void Look() {}
  // Whether the device met its power limit between the last two looks.
  virtual bool power_limited() const { return false; }
  virtual Slowdown Stop() = 0;
  // The state now, in words, for the file's context.
  virtual std::string Now() const = 0;
};

// Null where nothing tells.
std::unique_ptr<ThrottleWatch> MakeThrottleWatch(const Device& device);
// `now`: seconds, a test's clock.
std::unique_ptr<ThrottleWatch> MakeGpuThrottleWatch(
    std::unique_ptr<Nvml> nvml, std::function<double()> now);
std::unique_ptr<ThrottleWatch> MakeCpuThrottleWatch(
    std::string root, int threads, std::function<double()> now);

// A source whose samples are watched.
class WatchedSource final : public SampleSource {
 public:
  WatchedSource(SampleSource& source, ThrottleWatch* watch)
      : source_(source), watch_(watch) {}
  absl::Status Prepare() override { return source_.Prepare(); }
  absl::StatusOr<SampleBatch> Take(int count) override {
    auto batch = source_.Take(count);
    if (watch_ == nullptr) return batch;
    watch_->Look();
    if (batch.ok()) batch->power_limited = watch_->power_limited();
    return batch;
  }
  double Now() override { return source_.Now(); }
  double ExpectedClockHz() override { return source_.ExpectedClockHz(); }

 private:
  SampleSource& source_;
  ThrottleWatch* watch_;
};

}  // namespace seqmark
