// SPDX-License-Identifier: Apache-2.0
//
// Warp-level matrix instructions of sm_80 and newer, for 16-bit operands:
// asynchronous copies to shared memory, fragments by ldmatrix, m16n8k16
// products, and the swizzle that keeps fragments free of bank conflicts.
//
// Fragments of one warp, g = lane / 4 and t = lane % 4:
//   A (16 x 16): a[0] row g, columns 2t 2t+1; a[1] row g+8; a[2] and a[3] the
//                same rows, columns + 8.
//   B (16 x 8):  b[0] rows 2t 2t+1, column g; b[1] rows + 8.
//   C (16 x 8):  c[0] c[1] row g, columns 2t 2t+1; c[2] c[3] row g+8.
// So the C fragments of two neighbouring 16 x 8 tiles, rounded, are the A
// fragment of the 16 x 16 tile.
#pragma once

#include <cstdint>

#include "fixtures/cuda.h"

namespace seqmark {

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes to shared memory; zeros, and `from` is not read, if !valid.
__device__ __forceinline__ void CopyAsync16(uint32_t to, const void* from,
                                            bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
               "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CopyAsync4(uint32_t to, const void* from,
                                           bool valid) {
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to),
               "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kPending of this thread's newest groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices; lanes 8i..8i+7 give the row addresses of matrix i.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], uint32_t row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(row)
      : "memory");
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4],
                                                       uint32_t row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(row)
      : "memory");
}

// An 8 x 8 matrix held one row to four lanes, transposed.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t r) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
               : "=r"(out)
               : "r"(r));
  return out;
}

// c += a b
template <class T>
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4],
                                    uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void Mma<__nv_bfloat16>(float (&c)[4],
                                                   const uint32_t (&a)[4],
                                                   uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void Mma<__half>(float (&c)[4],
                                            const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two f32 as one register of T, the first in the low half, and back.
template <class T>
__device__ __forceinline__ uint32_t PackPair(float low, float high);
template <>
__device__ __forceinline__ uint32_t PackPair<__nv_bfloat16>(float low,
                                                            float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
template <>
__device__ __forceinline__ uint32_t PackPair<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
template <class T>
__device__ __forceinline__ float2 UnpackPair(uint32_t pair);
template <>
__device__ __forceinline__ float2 UnpackPair<__nv_bfloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
template <>
__device__ __forceinline__ float2 UnpackPair<__half>(uint32_t pair) {
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}

// Tiles in shared memory have rows that are a multiple of 128 bytes, and start
// on a multiple of the row. The 16-byte columns of a row are permuted by the
// row, so that the eight rows of an 8 x 8 matrix fall into different banks.
__device__ __forceinline__ uint32_t Swizzled(int row, int column,
                                             int row_bytes) {
  return row * row_bytes + ((column ^ (row & 7)) << 4);
}
// From the address of a (row, column), that of (row + rows, column + columns):
// rows must be a multiple of 8, and columns have no bit in common with column.
__device__ __forceinline__ uint32_t Shifted(uint32_t address, int rows,
                                            int columns, int row_bytes) {
  return (address ^ (columns << 4)) + rows * row_bytes;
}

// Row addresses of four 8 x 8 matrices, for this lane, in a 16 x 16 square
// whose left column is `column`. Across: matrices 0 and 1 side by side, 2 and 3
// below: B fragments of two tiles, from rows of n; transposed, an A fragment
// from rows of k.
__device__ __forceinline__ uint32_t Across(uint32_t tile, int lane, int column,
                                           int row_bytes) {
  return tile + Swizzled((lane >> 4) * 8 + (lane & 7),
                         column + ((lane >> 3) & 1), row_bytes);
}
// Down: 0 above 1, 2 and 3 to the right: an A fragment, from its rows;
// transposed, B fragments of two tiles from rows of k.
__device__ __forceinline__ uint32_t Down(uint32_t tile, int lane, int column,
                                         int row_bytes) {
  return tile + Swizzled(((lane >> 3) & 1) * 8 + (lane & 7),
                         column + (lane >> 4), row_bytes);
}

// The same value, of which the compiler knows nothing: what is computed from
// it stays where it is used, where otherwise every fragment's address would be
// kept in a register across the loop over chunks.
__device__ __forceinline__ int Opaque(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

}  // namespace seqmark
