// SPDX-License-Identifier: Apache-2.0
//
// The kernels under LayerNorm and RMSNorm. A norm does a handful of operations
// an element, so only memory counts: each input is read once, each output
// written once, and enough bytes are in flight to fill the latency of the
// memory (some 35 KB a multiprocessor on an H200).
//
// RowKernel: a row lives in the registers of a warp, or of a block where it is
// wide, between its sums and its output. Each group of threads walks over many
// rows and asks for its next row as soon as the present one is in f32, before
// it reduces: loads stay in flight through shuffles, barriers and stores, at
// any occupancy. Weights stay in registers too.
//
// WideKernel: any width and alignment. It reads a row once for each pass; the
// later passes find it in the caches.
#pragma once

#include "fixtures/cuda.h"
#include "fixtures/pack_cuda.h"

namespace seqmark {

// What is done to a row. u = x, then in this order:
struct NormForm {
  bool residual = false;     // u += residual, and residual_out = u
  bool gate_before = false;  // u *= silu(gate)
  bool centered = false;     // u -= mean(u), and the bias is added at the end
  bool gate_after = false;   // y = u / sqrt(mean(u^2) + epsilon) * weight,
                             // times silu(gate)
};

// All on the device; null where the form does not use it.
struct NormTensors {
  const void* x = nullptr;         // (rows, width)
  const void* residual = nullptr;  // (rows, width)
  const void* gate = nullptr;      // (rows, width)
  const void* weight = nullptr;    // (width)
  const void* bias = nullptr;      // (width)
  void* y = nullptr;               // (rows, width)
  void* residual_out = nullptr;    // (rows, width)
  int64_t rows = 0;
  int width = 0;
  float epsilon = 0;
};

inline constexpr int kNormMaxThreads = 512;

__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2)
    v += __shfl_xor_sync(0xffffffffu, v, lane);
  return v;
}

// The sum of `v` over the blockDim.x threads of a row, in all of them. A
// caller alternates between two `partial`s, zero where there is no warp: then
// one barrier a sum is enough.
template <int kWarps>
__device__ __forceinline__ float RowSum(float v,
                                        float4 (&partial)[kWarps / 4]) {
  v = WarpSum(v);
  if (blockDim.x == 32) return v;
  if (threadIdx.x % 32 == 0)
    reinterpret_cast<float*>(partial)[threadIdx.x / 32] = v;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps / 4; ++i) {
    const float4 p = partial[i];
    sum += (p.x + p.y) + (p.z + p.w);
  }
  return sum;
}

// Threads (x: of a row, y: rows of a block; y > 1 only where x is one warp).
// The width is a multiple of a pack and at most blockDim.x * kPacks packs.
template <class T, NormForm kForm, int kPacks>
__global__ void __launch_bounds__(kNormMaxThreads)
    RowKernel(const NormTensors t) {
  constexpr int kLanes = kPackSize<T>;
  constexpr int kWarps = kNormMaxThreads / 32;
  constexpr bool kGate = kForm.gate_before || kForm.gate_after;
  __shared__ float4 partial[2][kWarps / 4];
  const int packs = t.width / kLanes;
  const int64_t groups = int64_t{gridDim.x} * blockDim.y;
  int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= t.rows) return;  // whole warps; whole blocks where they have one

  // Threads take packs in turn, so that a warp's accesses are contiguous.
  const auto pack_of = [](int i) { return threadIdx.x + i * blockDim.x; };
  uint4 raw_x[kPacks] = {}, raw_residual[kPacks] = {}, raw_gate[kPacks] = {};
  const auto load = [&](int64_t of_row) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (pack_of(i) >= packs) continue;
      const int64_t at = of_row * packs + pack_of(i);
      raw_x[i] = LoadOnce(static_cast<const uint4*>(t.x) + at);
      if constexpr (kForm.residual)
        raw_residual[i] = LoadOnce(static_cast<const uint4*>(t.residual) + at);
      if constexpr (kGate)
        raw_gate[i] = LoadOnce(static_cast<const uint4*>(t.gate) + at);
    }
  };
  load(row);

  uint4 weight[kPacks] = {}, bias[kPacks] = {};
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= packs) continue;
    weight[i] = static_cast<const uint4*>(t.weight)[pack_of(i)];
    if constexpr (kForm.centered)
      bias[i] = static_cast<const uint4*>(t.bias)[pack_of(i)];
  }
  if (blockDim.x > 32) {  // slots of warps that are not there count as 0
    if (threadIdx.x < kWarps / 2)
      partial[threadIdx.x / (kWarps / 4)][threadIdx.x % (kWarps / 4)] = {};
    __syncthreads();
  }

  // Exact, for all of --use_fast_math: the mean of one element is that element.
  const float per_element = __frcp_rn(static_cast<float>(t.width));
  int buffer = 0;
  for (;;) {
    float u[kPacks][kLanes];
    uint4 gate_after[kPacks];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      Unpack<T>(raw_x[i], u[i]);
      if constexpr (kForm.residual) {
        float residual[kLanes];
        Unpack<T>(raw_residual[i], residual);
#pragma unroll
        for (int j = 0; j < kLanes; ++j) u[i][j] += residual[j];
        if (pack_of(i) < packs)
          static_cast<uint4*>(t.residual_out)[row * packs + pack_of(i)] =
              RoundPack<T>(u[i]);
      }
      if constexpr (kForm.gate_before) {
        float gate[kLanes];
        Unpack<T>(raw_gate[i], gate);
#pragma unroll
        for (int j = 0; j < kLanes; ++j) u[i][j] *= SiluFast(gate[j]);
      }
      if constexpr (kForm.gate_after) gate_after[i] = raw_gate[i];
#pragma unroll
      for (int j = 0; j < kLanes; ++j)
        sum += kForm.centered ? u[i][j] : u[i][j] * u[i][j];
    }
    const int64_t next = row + groups;
    if (next < t.rows) load(next);

    if constexpr (kForm.centered) {
      const float mean = RowSum<kWarps>(sum, partial[buffer]) * per_element;
      buffer ^= 1;
      sum = 0;
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        if (pack_of(i) >= packs) continue;
#pragma unroll
        for (int j = 0; j < kLanes; ++j) {
          u[i][j] -= mean;
          sum += u[i][j] * u[i][j];
        }
      }
    }
    const float scale =
        rsqrtf(RowSum<kWarps>(sum, partial[buffer]) * per_element + t.epsilon);
    buffer ^= 1;

#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (pack_of(i) >= packs) continue;
      float w[kLanes], b[kLanes], gate[kLanes];
      KeepPacked(weight[i]);
      Unpack<T>(weight[i], w);
      if constexpr (kForm.centered) {
        KeepPacked(bias[i]);
        Unpack<T>(bias[i], b);
      }
      if constexpr (kForm.gate_after) Unpack<T>(gate_after[i], gate);
#pragma unroll
      for (int j = 0; j < kLanes; ++j) {
        u[i][j] *= scale * w[j];
        if constexpr (kForm.centered) u[i][j] += b[j];
        if constexpr (kForm.gate_after) u[i][j] *= SiluFast(gate[j]);
      }
      static_cast<uint4*>(t.y)[row * packs + pack_of(i)] = RoundPack<T>(u[i]);
    }
    if (next >= t.rows) return;
    row = next;
  }
}

// A block takes a row at a time, kLanes elements an access.
template <class T, int kLanes>
__global__ void __launch_bounds__(1024)
    WideKernel(const NormTensors t, const NormForm form) {
  using P = Pack<T, kLanes>;
  constexpr int kWarps = 32;
  __shared__ float4 partial[2][kWarps / 4];
  if (threadIdx.x < kWarps / 2)
    partial[threadIdx.x / (kWarps / 4)][threadIdx.x % (kWarps / 4)] = {};
  __syncthreads();
  const int packs = t.width / kLanes;
  const float per_element = __frcp_rn(static_cast<float>(t.width));
  int buffer = 0;
  const auto row_sum = [&](float v) {
    const float sum = RowSum<kWarps>(v, partial[buffer]);
    buffer ^= 1;
    return sum;
  };
  for (int64_t row = blockIdx.x; row < t.rows; row += gridDim.x) {
    const auto at = [&](const void* tensor, int i) {
      return static_cast<const P*>(tensor)[row * packs + i];
    };
    const auto u_at = [&](int i, bool write_residual) {
      const P x = at(t.x, i);
      Pack<float, kLanes> u;
#pragma unroll
      for (int j = 0; j < kLanes; ++j) u.v[j] = ToFloat(x.v[j]);
      if (form.residual) {
        const P residual = at(t.residual, i);
        P rounded;
#pragma unroll
        for (int j = 0; j < kLanes; ++j) {
          u.v[j] += ToFloat(residual.v[j]);
          rounded.v[j] = FromFloat<T>(u.v[j]);
        }
        if (write_residual)
          static_cast<P*>(t.residual_out)[row * packs + i] = rounded;
      }
      if (form.gate_before) {
        const P gate = at(t.gate, i);
#pragma unroll
        for (int j = 0; j < kLanes; ++j) u.v[j] *= SiluFast(ToFloat(gate.v[j]));
      }
      return u;
    };
    float mean = 0;
    if (form.centered) {
      float sum = 0;
#pragma unroll 4
      for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        const auto u = u_at(i, false);
#pragma unroll
        for (int j = 0; j < kLanes; ++j) sum += u.v[j];
      }
      mean = row_sum(sum) * per_element;
    }
    float squares = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
      const auto u = u_at(i, true);
#pragma unroll
      for (int j = 0; j < kLanes; ++j)
        squares += (u.v[j] - mean) * (u.v[j] - mean);
    }
    const float scale = rsqrtf(row_sum(squares) * per_element + t.epsilon);
#pragma unroll 2
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
      const auto u = u_at(i, false);
      const P weight = static_cast<const P*>(t.weight)[i];
      P y;
#pragma unroll
      for (int j = 0; j < kLanes; ++j) {
        float v = (u.v[j] - mean) * (scale * ToFloat(weight.v[j]));
        if (form.centered) v += ToFloat(static_cast<const P*>(t.bias)[i].v[j]);
        if (form.gate_after) v *= SiluFast(ToFloat(at(t.gate, i).v[j]));
        y.v[j] = FromFloat<T>(v);
      }
      static_cast<P*>(t.y)[row * packs + i] = y;
    }
  }
}

}  // namespace seqmark
