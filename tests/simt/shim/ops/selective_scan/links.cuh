// SPDX-License-Identifier: Apache-2.0
//
// ops/selective_scan/links.cuh for tests/simt/simt.h: barriers in shared memory
// (mbarrier), as so many arrivals left and the number of the phase.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/mma.cuh"

namespace seqmark::selective_scan {

struct PhaseBarrier {
  uint16_t all, left;
  uint32_t phase;
};

inline PhaseBarrier* AsBarrier(void* barrier) {
  static_assert(sizeof(PhaseBarrier) == sizeof(uint64_t));
  return static_cast<PhaseBarrier*>(barrier);
}
inline void InitBarrier(uint64_t* barrier, int count) {
  const auto n = static_cast<uint16_t>(count);
  *AsBarrier(barrier) = {n, n, 0};
}
template <int kOffset>
void ArriveAt(uint32_t address, bool really) {
  if (!really) return;
  PhaseBarrier& barrier = *AsBarrier(FromShared(address) + kOffset);
  if (--barrier.left > 0) return;
  barrier = {barrier.all, barrier.all, barrier.phase + 1};
  simt::Block::now()->Progress();
}
inline void WaitBarrier(uint64_t* barrier, int parity) {
  const PhaseBarrier& at = *AsBarrier(barrier);
  simt::Block::now()->Wait(
      [&] { return static_cast<int>(at.phase & 1) != parity; });
}

}  // namespace seqmark::selective_scan
