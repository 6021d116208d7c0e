// SPDX-License-Identifier: Apache-2.0
//
// The output of a head from those of the pieces of its keys, always in the same
// order. A block a head; its loads go out before anything is computed, as the
// kernel is nothing but their latency.
#pragma once

#include "ops/attention_decode/split.cuh"

namespace seqmark::decode {

inline constexpr int kCombineThreads = 256;
inline constexpr int kCombineSlices = 16;  // of the pieces, at most
inline constexpr int kCombineAhead = 8;    // pieces of a thread, in flight

template <class T>
__global__ void __launch_bounds__(kCombineThreads)
    DecodeCombine(const __grid_constant__ Call c) {
  __shared__ float4 partial[kCombineThreads];
  LetNextStart();
  WaitForPrevious();
  const int64_t row = blockIdx.x;
  // Thread (slice, column) adds up every slices-th piece.
  const int columns = c.value_dim / 4;
  const int slices = min(kCombineSlices, kCombineThreads / columns);
  const int slice = threadIdx.x / columns, column = threadIdx.x % columns;
  const auto* const outputs = reinterpret_cast<const float4*>(c.outputs) +
                              row * c.splits * columns + column;
  const float2* const sums = c.sums + row * c.splits;

  float4 ahead[kCombineAhead];
  float exponent[kCombineAhead];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kCombineAhead; ++i) {
      const int s = first + i * slices;
      const bool there = slice < slices && s < c.splits;
      ahead[i] = there ? __ldcg(outputs + static_cast<int64_t>(s) * columns)
                       : make_float4(0, 0, 0, 0);
      exponent[i] = there ? __ldcg(&sums[s]).x : -INFINITY;
    }
  };
  load(slice);

  // Every warp the same.
  float greatest = -INFINITY;
  for (int s = threadIdx.x % 32; s < c.splits; s += 32)
    greatest = fmaxf(greatest, __ldcg(&sums[s]).x);
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2)
    greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffffu, greatest, lanes));
  float sum = 0;
  for (int s = threadIdx.x % 32; s < c.splits; s += 32) {
    const float2 of = __ldcg(&sums[s]);
    sum = fmaf(of.y, Exp2Fast(of.x - greatest), sum);
  }
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, lanes);

  float4 total = make_float4(0, 0, 0, 0);
  const auto add = [&](const float4& v, float factor) {
    total.x = fmaf(v.x, factor, total.x);
    total.y = fmaf(v.y, factor, total.y);
    total.z = fmaf(v.z, factor, total.z);
    total.w = fmaf(v.w, factor, total.w);
  };
  for (int first = slice; first < c.splits; first += kCombineAhead * slices) {
    if (first != slice) load(first);
#pragma unroll
    for (int i = 0; i < kCombineAhead; ++i)
      add(ahead[i], Exp2Fast(exponent[i] - greatest));
  }
  partial[threadIdx.x] = total;
  __syncthreads();
  if (slice > 0) return;
  total = make_float4(0, 0, 0, 0);
  for (int i = 0; i < slices; ++i) add(partial[i * columns + column], 1.0f);
  const int heads = c.kv_heads * c.group;
  T* const o = static_cast<T*>(c.o) + row / heads * c.o_batch +
               row % heads * c.value_dim + column * 4;
  o[0] = FromFloat<T>(total.x / sum);
  o[1] = FromFloat<T>(total.y / sum);
  o[2] = FromFloat<T>(total.z / sum);
  o[3] = FromFloat<T>(total.w / sum);
}

}  // namespace seqmark::decode
