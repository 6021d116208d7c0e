// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a program: its wall clock steps back by an hour, a third of a
// second after it first looked at any clock, and runs on from there, as where
// the system's time is set. The steady clock cannot.
#include <dlfcn.h>
#include <time.h>

#include <atomic>

namespace {

constexpr long long kAfterNanoseconds = 300'000'000;
constexpr time_t kStepSeconds = 3600;

long long Nanoseconds(const timespec& time) {
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* to) {
  using Function = int (*)(clockid_t, timespec*);
  static const auto real =
      reinterpret_cast<Function>(dlsym(RTLD_NEXT, "clock_gettime"));
  static std::atomic<long long> first = 0;
  timespec steady{};
  real(CLOCK_MONOTONIC, &steady);
  long long none = 0;
  first.compare_exchange_strong(none, Nanoseconds(steady));
  const int error = real(clock, to);
  if (error == 0 &&
      (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) &&
      Nanoseconds(steady) - first > kAfterNanoseconds)
    to->tv_sec -= kStepSeconds;
  return error;
}
