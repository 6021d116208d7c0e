// SPDX-License-Identifier: Apache-2.0
//
// Splitting a scan in time, where batch and channels alone do not fill the
// machine. Segment 0 is scanned at once; segments 1 .. n-2 are first scanned
// from a zero state, only for their end state and the sum of their steps;
// those are chained (a segment's decay is exp(A sum(dt'))); then segments
// 1 .. n-1 are scanned from their true initial states. So the exponentials of
// the middle are done twice, and a split in two is no gain at all:
//
//   launch 1: segment 0 in full, 1 .. n-2 for their end states
//   launch 2: the chain over segments 1 .. n-2
//   launch 3: segments 1 .. n-1 in full
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace seqmark {

struct TimeSplit {
  int64_t segments = 1;
  int64_t first = 0;  // steps of segment 0
  int64_t rest = 0;   // steps of each other segment
  double cost = 0;    // what it takes, in steps in full

  // constexpr: device code calls them too.
  constexpr int64_t Begin(int64_t s) const {
    return s == 0 ? 0 : first + (s - 1) * rest;
  }
  constexpr int64_t End(int64_t s) const { return first + s * rest; }
};

// What a machine pays, in units of one step in full.
struct SplitCosts {
  double state_step = 1;    // a step for the end state only
  double per_split = 0;     // once, for the two launches more
  double per_segment = 0;   // for each link of the chain
  double least_rounds = 1;  // units that a worker must hold to be busy
};

// The fastest split for `units` independent scans (batch x channel blocks) of
// `seqlen` steps on `workers` that take one unit's segment a round each.
// Segments are multiples of `multiple` steps, but for the first.
inline TimeSplit ChooseTimeSplit(int64_t seqlen, int64_t units, int64_t workers,
                                 int64_t multiple, const SplitCosts& costs) {
  const auto rounds = [&](int64_t count) {
    return std::max(std::ceil(static_cast<double>(count) / workers),
                    costs.least_rounds);
  };
  TimeSplit best{.segments = 1,
                 .first = seqlen,
                 .rest = 0,
                 .cost = rounds(units) * seqlen};
  // Beyond a few units a worker there is nothing to gain.
  const int64_t most = std::min(seqlen / multiple, 4 * workers / units) + 2;
  for (int64_t n = 3; n <= most; ++n) {
    // Segment 0 takes as long in full as the others for their end states.
    const auto even =
        static_cast<int64_t>(std::ceil(seqlen / (n - 1 + costs.state_step)));
    const int64_t rest = (even + multiple - 1) / multiple * multiple;
    const int64_t first = seqlen - (n - 1) * rest;
    if (first < 1) continue;
    const double cost =
        rounds(units * (n - 1)) *
            (std::max<double>(first, rest * costs.state_step) + rest) +
        costs.per_split + n * costs.per_segment;
    if (cost < best.cost)
      best = {.segments = n, .first = first, .rest = rest, .cost = cost};
  }
  return best;
}

}  // namespace seqmark
