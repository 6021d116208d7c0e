// SPDX-License-Identifier: Apache-2.0
//
// How states pass from a warp to the warp that has the next steps of the same
// channels: within a block through shared memory, each state with a barrier of
// its own (mbarrier); from a block's last warp to the first warp of another
// block through L2, as 64-bit words of a state and the number of the tile
// whose end it is, so that a word that has come is complete.
#pragma once

#include <cstdint>

#include "ops/arrivals.cuh"
#include "ops/mma.cuh"

namespace seqmark::selective_scan {

inline constexpr int kLinkStates = 16;  // of a pass

__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int count) {
  asm volatile(
      "mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(count)
      : "memory");
}
// Until the phase of that parity is over, of the barrier kOffset bytes on: the
// offset is in the instruction.
#if __CUDA_ARCH__ >= 900
// Nanoseconds that a warp may sleep: it is woken when the phase is over, and
// one that looks again takes the others' issue slots.
#define SEQMARK_WAIT \
  "mbarrier.try_wait.parity.shared.b64 p, [%1 + %3], %2, 10000000; "
#else
#define SEQMARK_WAIT "mbarrier.test_wait.parity.shared.b64 p, [%1 + %3], %2; "
#endif
template <int kOffset>
__device__ __forceinline__ void WaitAt(uint32_t barrier, uint32_t parity) {
  uint32_t over;
  do {
    asm volatile("{ .reg .pred p; " SEQMARK_WAIT "selp.u32 %0, 1, 0, p; }"
                 : "=r"(over)
                 : "r"(barrier), "r"(parity), "n"(kOffset)
                 : "memory");
  } while (!over);
}

template <int kOffset>
__device__ __forceinline__ void ArriveAt(uint32_t barrier, bool really) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 state; setp.ne.u32 p, %2, 0;"
      " @p mbarrier.arrive.shared.b64 state, [%0 + %1]; }" ::"r"(barrier),
      "n"(kOffset), "r"(static_cast<uint32_t>(really))
      : "memory");
}
template <int kOffset>
__device__ __forceinline__ float LoadAt(uint32_t from) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1 + %2];"
               : "=f"(v)
               : "r"(from), "n"(kOffset)
               : "memory");
  return v;
}
template <int kOffset>
__device__ __forceinline__ void StoreAt(uint32_t to, float v) {
  asm volatile("st.shared.f32 [%0 + %1], %2;" ::"r"(to), "n"(kOffset), "f"(v)
               : "memory");
}

__device__ __forceinline__ uint64_t LoadWord(const uint64_t* word) {
  uint64_t v;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];"
               : "=l"(v)
               : "l"(word)
               : "memory");
  return v;
}
__device__ __forceinline__ void StoreWord(uint64_t* word, float value,
                                          uint32_t tag) {
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(word),
               "l"(uint64_t{tag} << 32 | __float_as_uint(value))
               : "memory");
}

// The state in `word`, once that is of the tile before `column`. Each lane goes
// on when its own has come: this is on the path of the first warp, which is
// what all others wait for.
__device__ __forceinline__ float AwaitWord(uint64_t value, const uint64_t* word,
                                           int column) {
  while (static_cast<int>(value >> 32) != column) value = LoadWord(word);
  return __uint_as_float(static_cast<uint32_t>(value));
}

// Where a warp's states come from and go to.
enum class Role : uint8_t {
  kInner,  // from and to a warp of this block
  kFirst,  // from another block, to a warp of this one
  kLast,   // from a warp of this block to another block
  kOther,  // any, with the initial or the final state at an end
};

// Warp w has received state n of a pass when phase `pass` of full[w][n] is
// over, and warp w has read them all when that of read[w] is.
template <int kWarps>
struct Links {
  float carry[kWarps][kLinkStates][32];  // into warp w
  uint64_t full[kWarps][kLinkStates];    // they are there
  uint64_t read[kWarps];                 // all of a pass are read

  __device__ void Init() {
    for (int i = threadIdx.x; i < kWarps * kLinkStates; i += blockDim.x)
      InitBarrier(&full[0][0] + i, kArrivalsOfWarp);
    if (threadIdx.x < kWarps) InitBarrier(&read[threadIdx.x], kArrivalsOfWarp);
    __syncthreads();
  }
  // Before a warp overwrites what it sent to warp w in its pass before.
  __device__ void WaitRead(int w, uint32_t passes_sent) {
    if (passes_sent > 0)
      WaitAt<0>(SharedAddress(&read[w]), (passes_sent - 1) & 1);
  }
};

}  // namespace seqmark::selective_scan
