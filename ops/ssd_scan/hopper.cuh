// SPDX-License-Identifier: Apache-2.0
//
// The instructions of sm_90a that the scan's kernels there use: barriers in
// shared memory, bulk copies of tiles, products of warpgroups (wgmma), and how
// registers are shared among warpgroups.
//
// Every tile here has rows of 128 bytes, permuted as Swizzled does, in blocks
// of 8 rows that start on 1024 bytes; a wider tile is several such side by
// side, one after the other in memory.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "ops/mma.cuh"

// Set where the code compiled may use these instructions.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SEQMARK_SM90A 1
#else
#define SEQMARK_SM90A 0
#endif

namespace seqmark::hopper {

#if SEQMARK_SM90A

__device__ __forceinline__ void InitBarrier(uint64_t& barrier, int arrivals) {
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(&barrier)),
      "r"(arrivals)
      : "memory");
}
// Makes barriers just set up visible to bulk copies.
__device__ __forceinline__ void FenceBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// The barrier's phase also waits for `bytes` of bulk copies.
__device__ __forceinline__ void ExpectBytes(uint64_t& barrier, uint32_t bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(
                   SharedAddress(&barrier)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void Arrive(uint64_t& barrier) {
  asm volatile(
      "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(&barrier))
      : "memory");
}
__device__ __forceinline__ void Wait(uint64_t& barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}" ::"r"(SharedAddress(&barrier)),
      "r"(parity)
      : "memory");
}
// Where a loop over chunks is among stages, in turn, without divisions on its
// way; `parity` is that of the phase which a barrier of the stage is in.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next() {
    const bool around = stage == kStages - 1;
    stage = around ? 0 : stage + 1;
    parity ^= around;
  }
};
// Waits for the other threads of a group of warps, numbered `id`.
template <int kThreads>
__device__ __forceinline__ void SyncWarps(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}

// Bulk copies of a box of a tensor; what lies outside it is zeros.
__device__ __forceinline__ void CopyBox(void* to, const CUtensorMap& map,
                                        uint64_t& barrier, int c0, int c1,
                                        int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_"
      "tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(&barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ __forceinline__ void CopyBox(void* to, const CUtensorMap& map,
                                        uint64_t& barrier, int c0, int c1,
                                        int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_"
      "tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(&barrier)), "r"(c0), "r"(c1), "r"(c2),
      "r"(c3)
      : "memory");
}
// The same boxes to the L2 alone.
__device__ __forceinline__ void PrefetchBox(const CUtensorMap& map, int c0,
                                            int c1, int c2) {
  asm volatile(
      "cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%0, {%1, %2, %3}];" ::
          "l"(&map),
      "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ __forceinline__ void PrefetchBox(const CUtensorMap& map, int c0,
                                            int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.prefetch.tensor.4d.L2.global.tile [%0, {%1, %2, %3, "
      "%4}];" ::"l"(&map),
      "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
// From shared memory; what lies outside the tensor is not written.
__device__ __forceinline__ void StoreBox(const CUtensorMap& map, int c0, int c1,
                                         int c2, const void* from) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, "
      "%3, %4}], [%1];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map),
      "r"(SharedAddress(from)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
// This thread's stores have read their shared memory.
__device__ __forceinline__ void WaitStores() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// After a barrier, products and bulk copies may read shared memory that this
// thread has written, and copies write where it has read.
__device__ __forceinline__ void FenceForProducts() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Four 8 x 8 matrices to shared memory, addresses as in LoadMatrices.
__device__ __forceinline__ void StoreMatrices(uint32_t row,
                                              const uint32_t (&r)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
          row),
      "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
      : "memory");
}
__device__ __forceinline__ void StoreMatricesTransposed(
    uint32_t row, const uint32_t (&r)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, "
      "%4};" ::"r"(row),
      "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
      : "memory");
}

// Operands in shared memory, at a multiple of 32 bytes in the first row of a
// block (of a left operand a row each, of a right one a column each:
// ByColumns), or at the first of 16 rows that are each one place of the sum
// (ByRows; further columns are kTileBytes on).
struct Operand {
  uint32_t low;
  // The operand `bytes` further on.
  __device__ __forceinline__ uint64_t At(uint32_t bytes) const {
    constexpr uint64_t kHigh = 1024 >> 4 | 1 << 30;
    return kHigh << 32 | (low + (bytes >> 4));
  }
  __device__ __forceinline__ Operand On(uint32_t bytes) const {
    return {low + (bytes >> 4)};
  }
};
__device__ __forceinline__ Operand ByColumns(const void* tile) {
  return {(SharedAddress(tile) >> 4) | 1 << 16};
}
template <int kTileBytes>
__device__ __forceinline__ Operand ByRows(const void* tile) {
  return {(SharedAddress(tile) >> 4) | (kTileBytes >> 4) << 16};
}

// Registers written since are seen by the products that follow.
__device__ __forceinline__ void BeginProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// The compiler moves no use of these registers across.
template <int kTiles>
__device__ __forceinline__ void Hold(float (&r)[kTiles][4]) {
#pragma unroll
  for (auto& tile : r)
#pragma unroll
    for (float& v : tile) asm volatile("" : "+f"(v)::"memory");
}
template <int kTiles>
__device__ __forceinline__ void Hold(uint32_t (&r)[kTiles][4]) {
#pragma unroll
  for (auto& tile : r)
#pragma unroll
    for (uint32_t& v : tile) asm volatile("" : "+r"(v)::"memory");
}

// d = a b, or d += a b: 64 rows, 16 deep, 8 columns a tile of d. The
// warpgroup's warp w has rows 16w..16w+15, its fragments as in mma.cuh.
#define SEQMARK_4(d, i) \
  "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SEQMARK_32(d, i)                                             \
  SEQMARK_4(d, i), SEQMARK_4(d, i + 1), SEQMARK_4(d, i + 2),         \
      SEQMARK_4(d, i + 3), SEQMARK_4(d, i + 4), SEQMARK_4(d, i + 5), \
      SEQMARK_4(d, i + 6), SEQMARK_4(d, i + 7)
#define SEQMARK_LIST_32                                                    \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, " \
  "%30, %31"
#define SEQMARK_LIST_64                                                      \
  SEQMARK_LIST_32                                                            \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
  "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "   \
  "%60, %61, %62, %63"

#define SEQMARK_WGMMA(Type, name)                                            \
  template <bool kByRows>                                                    \
  __device__ __forceinline__ void Product(                                   \
      float(&d)[8][4], const uint32_t(&a)[4], uint64_t b, bool add, Type) {  \
    asm volatile(                                                            \
        "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"                     \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name          \
        " {" SEQMARK_LIST_32                                                 \
        "}, {%32, %33, %34, %35}, %36, add, 1, 1, %38;\n}"                   \
        : SEQMARK_32(d, 0)                                                   \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{add}), \
          "n"(kByRows)                                                       \
        : "memory");                                                         \
  }                                                                          \
  template <bool kByRows>                                                    \
  __device__ __forceinline__ void Product(                                   \
      float(&d)[16][4], const uint32_t(&a)[4], uint64_t b, bool add, Type) { \
    asm volatile(                                                            \
        "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"                     \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." name "." name         \
        " {" SEQMARK_LIST_64                                                 \
        "}, {%64, %65, %66, %67}, %68, add, 1, 1, %70;\n}"                   \
        : SEQMARK_32(d, 0), SEQMARK_32(d, 8)                                 \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{add}), \
          "n"(kByRows)                                                       \
        : "memory");                                                         \
  }                                                                          \
  /* Both in shared memory; b is given by its columns. */                    \
  template <bool kLeftByRows>                                                \
  __device__ __forceinline__ void Product(float(&d)[8][4], uint64_t a,       \
                                          uint64_t b, bool add, Type) {      \
    asm volatile(                                                            \
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"                     \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." name "." name          \
        " {" SEQMARK_LIST_32 "}, %32, %33, add, 1, 1, %35, 0;\n}"            \
        : SEQMARK_32(d, 0)                                                   \
        : "l"(a), "l"(b), "r"(int{add}), "n"(kLeftByRows)                    \
        : "memory");                                                         \
  }
SEQMARK_WGMMA(__nv_bfloat16, "bf16")
SEQMARK_WGMMA(__half, "f16")
#undef SEQMARK_WGMMA
#undef SEQMARK_LIST_64
#undef SEQMARK_LIST_32
#undef SEQMARK_32
#undef SEQMARK_4

#endif  // SEQMARK_SM90A

}  // namespace seqmark::hopper
