// SPDX-License-Identifier: Apache-2.0
//
// ops/mma.cuh for tests/simt/simt.h: copies to shared memory.
#pragma once

#include <cstdint>

#include "simt.h"

namespace seqmark {

// Shared memory is a static variable's: its distance from another's address.
inline char shared_origin;
inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p) -
                               reinterpret_cast<uintptr_t>(&shared_origin));
}
inline char* FromShared(uint32_t address) {
  return reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(&shared_origin) +
                                 static_cast<int32_t>(address));
}

inline void CopyAsync16If(bool real, uint32_t to, const void* from,
                          bool valid) {
  if (real) simt::Block::now()->StartCopy(FromShared(to), from, 16, valid);
}
inline void CommitCopies() {}
template <int kPending>
void WaitCopies() {
  static_assert(kPending == 0, "copies are not kept by group here");
  simt::Block::now()->FinishCopies();
}

}  // namespace seqmark
