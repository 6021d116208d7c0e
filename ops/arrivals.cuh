// SPDX-License-Identifier: Apache-2.0
//
// Which lanes of a warp arrive at a barrier in shared memory (mbarrier) for it:
// one, after __syncwarp. racecheck of compute-sanitizer (2025.3) does not
// follow the other lanes' reads through the two, and reports them as racing
// with what is written behind the barrier. So that it has something to check, a
// build with -DSEQMARK_RACECHECK=ON has every lane arrive: the same order, more
// arrivals.
#pragma once

namespace seqmark {

#if defined(SEQMARK_RACECHECK)
inline constexpr int kArrivalsOfWarp = 32;
#else
inline constexpr int kArrivalsOfWarp = 1;
#endif

__device__ __forceinline__ bool ArrivesForWarp(int lane) {
  return lane < kArrivalsOfWarp;
}

}  // namespace seqmark
