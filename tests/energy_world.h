// SPDX-License-Identifier: Apache-2.0
//
// A made-up device whose power is known, for tests of the energy meter: its
// time is counted, not waited for, also where two threads live in it.
#pragma once

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "fixtures/energy.h"

namespace seqmark {

inline constexpr double kIdleWatts = 70;

// Time, and the energy used so far, which is published at updates only. All
// threads in it wait for a time to come; when all do, it is the earliest one's
// time, so that what happens does not depend on how the threads are run.
class World {
 public:
  // What may be set before anything happens.
  double update = 0.1;
  // Added to the time of an update (its joules are those of the time given by
  // `update`) and to its joules' time; drawn anew for each.
  std::function<double()> late = [] { return 0.0; };
  std::function<double()> irregular = [] { return 0.0; };
  std::function<double(double now)> watts = [](double) { return kIdleWatts; };
  double stops = INFINITY;  // no updates from here on
  std::function<void(double joules)> publish = [](double) {};

  double Now() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return now_;
  }
  double Published() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return published_;
  }
  // Seconds pass for this thread.
  void Advance(double seconds) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto self = std::make_pair(now_ + std::max(0.0, seconds),
                                     std::this_thread::get_id());
    waiting_.insert(self);
    --running_;
    if (*waiting_.begin() != self) turn_.notify_all();
    turn_.wait(lock,
               [&] { return running_ == 0 && *waiting_.begin() == self; });
    waiting_.erase(self);
    ++running_;
    MoveTo(self.first);
  }
  EnergyOptions Options() {
    EnergyOptions options;
    options.now = [this] { return Now(); };
    options.wait = [this](double seconds) { Advance(seconds); };
    options.beside = [this](const std::function<void()>& watch,
                            const std::function<void()>& load) {
      Run(1);
      std::thread thread([&] {
        watch();
        Run(-1);
      });
      load();
      Run(-1);
      thread.join();
      Run(1);
    };
    return options;
  }

 private:
  void Run(int threads) {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_ += threads;
    turn_.notify_all();
  }
  void MoveTo(double end) {
    while (now_ < end) {
      // Steps small enough that power is constant in each.
      const double to =
          std::min({end, next_count_, next_publication_, now_ + 1e-4});
      used_ += (to - now_) * watts(now_);
      now_ = to;
      if (now_ >= next_count_) {
        counted_ = used_;
        next_publication_ = now_ + std::max(0.0, late());
        next_count_ += update + irregular();
      }
      if (now_ >= next_publication_) {
        if (now_ < stops) published_ = counted_;
        publish(published_);
        next_publication_ = INFINITY;
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable turn_;
  std::set<std::pair<double, std::thread::id>> waiting_;
  int running_ = 1;
  double now_ = 12345.678;
  double used_ = 9e6;
  double counted_ = 9e6, published_ = 9e6;
  double next_count_ = 12345.7, next_publication_ = INFINITY;
};

class FakeCounter final : public EnergyCounter {
 public:
  explicit FakeCounter(World& world, double read_seconds = 5e-5)
      : world_(world), read_seconds_(read_seconds) {}
  std::string name() const override { return "a fake counter"; }
  absl::StatusOr<double> Joules() override {
    world_.Advance(read_seconds_ / 2);
    const double joules = world_.Published();
    world_.Advance(read_seconds_ / 2);
    if (world_.Now() >= fails_at) return absl::InternalError("the bus is down");
    return joules;
  }
  double fails_at = INFINITY;

 private:
  World& world_;
  double read_seconds_;
};

// Calls of `seconds`; on a GPU's like, the host looks around while they run.
class FakeSource final : public SampleSource {
 public:
  FakeSource(World& world, double seconds, bool asynchronous)
      : world_(world), seconds_(seconds), asynchronous_(asynchronous) {}
  absl::StatusOr<SampleBatch> Take(int) override {
    return absl::InternalError("nobody asked");
  }
  double Now() override { return world_.Now(); }

  absl::StatusOr<BusyTime> KeepBusy(
      const std::function<bool(int64_t)>& go_on) override {
    if (fails) return absl::InternalError("the kernel died");
    world_.Advance(3e-4);  // idle still: graphs are made
    const double start = world_.Now();
    const auto idle = std::exchange(world_.watts, [this, start](double now) {
      return watts(std::fmod(now - start, seconds_) / seconds_) *
             ramp(now - start);
    });
    const auto done = [&] {
      const double now = world_.Now() - start;
      const double fast = std::min(now, slower_after);
      return static_cast<int64_t>((fast + (now - fast) / slower_by) / seconds_ +
                                  1e-9);
    };
    const auto end_of = [&](int64_t calls) {
      const double fast = static_cast<double>(calls) * seconds_;
      return fast + (slower_by - 1) * std::max(0.0, fast - slower_after);
    };
    calls = 0;
    do {
      if (done() >= calls) calls = done() + 1;
      world_.Advance(asynchronous_ ? 1e-3 : std::max(seconds_, kLeastSample));
    } while (go_on(done()));
    world_.Advance(start + end_of(calls) - world_.Now());
    world_.watts = idle;
    return BusyTime{.calls = calls, .seconds = end_of(calls)};
  }

  // By the fraction of a call that is done, and by the time of load.
  std::function<double(double)> watts = [](double) { return 500.0; };
  std::function<double(double)> ramp = [](double) { return 1.0; };
  // Calls take so many times as long after so much load.
  double slower_after = INFINITY, slower_by = 1;
  bool fails = false;
  int64_t calls = 0;

 private:
  static constexpr double kLeastSample = 50e-6;  // as in device_cpu.cc
  World& world_;
  double seconds_;
  bool asynchronous_;
};

}  // namespace seqmark
