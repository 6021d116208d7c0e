// SPDX-License-Identifier: Apache-2.0
//
// The kernels under LayerNorm and RMSNorm. A norm does a handful of operations
// an element, so only memory counts: each input is read once, each output
// written once, and enough bytes are in flight to fill the latency of the
// memory (some 35 KB a multiprocessor on an H200).
//
// RowKernel: a row lives in the registers of a warp, or of a block where it is
// wide, between its sums and its output, as it came where that is less than in
// f32. Each group of threads has one row: blocks start and end at any time, in
// the order of memory, which keeps reads and writes mixed and what is under way
// close together. README.md has what was tried.
//
// Groups of a row that are normalised apart are rows of their own, neighbouring
// blocks.
//
// WideKernel: any width and alignment. It reads a row once for each pass; the
// later passes find it in the caches.
#pragma once

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/pack_cuda.h"

namespace seqmark {

// What is done to a row. u = x, then in this order:
struct NormForm {
  bool residual = false;      // u += residual, and residual_out = u
  bool residual_f32 = false;  // both of these are f32, whatever T is
  bool gate_before = false;   // u *= silu(gate)
  bool centered = false;      // u -= mean(u), and the bias is added at the end
  bool gate_after = false;    // y = u / sqrt(mean(u^2) + epsilon) * weight,
                              // times silu(gate)
  // There are gaps between rows, or groups. A form of its own: neighbouring
  // rows need no division.
  bool strided = false;
  // Before all else, u *= 1 / sqrt(mean of the row's squares + epsilon).
  bool scaled = false;
};

constexpr NormForm With(NormForm form, bool NormForm::*what, bool value) {
  form.*what = value;
  return form;
}

template <class T, NormForm kForm>
using ResidualOf = std::conditional_t<kForm.residual_f32, float, T>;

// A (batch, seqlen, width) tensor on the device; strides in elements.
struct NormView {
  void* data = nullptr;  // null where the form does not use it
  int64_t batch_stride = 0, token_stride = 0;
};

struct NormTensors {
  NormView x, residual, gate, y, residual_out;
  const void* weight = nullptr;  // (groups, width)
  const void* bias = nullptr;    // (width) or null
  int64_t rows = 0;              // batch * seqlen
  unsigned seqlen = 1;
  int width = 0;  // of a group
  int groups = 1;
  float per_element = 1;  // 1 / width
  float epsilon = 0;
};
struct ScaledNormTensors : NormTensors {
  NormView squares;  // (batch, seqlen, parts) f32
  int parts = 0;
  float per_square = 1;  // 1 / (how many they were)
  float scale_epsilon = 0;
};
template <bool kScaled>
using NormTensorsOf =
    std::conditional_t<kScaled, ScaledNormTensors, NormTensors>;

// Where row `row` of a view begins, in elements; in a strided form, group
// `group` of it.
template <bool kStrided>
__device__ __forceinline__ int64_t RowStart(const NormTensors& t,
                                            const NormView& view, int64_t row,
                                            int group) {
  if constexpr (!kStrided) return row * t.width;
  const unsigned batch = static_cast<unsigned>(row) / t.seqlen;
  const unsigned token = static_cast<unsigned>(row) - batch * t.seqlen;
  return batch * view.batch_stride + token * view.token_stride +
         int64_t{group} * t.width;
}

inline constexpr int kNormMaxThreads = 512;

__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2)
    v += __shfl_xor_sync(0xffffffffu, v, lane);
  return v;
}

// What a scaled form multiplies row `row` by. Each warp adds all parts up, so
// that none waits for another.
__device__ __forceinline__ float RowScale(const ScaledNormTensors& t,
                                          int64_t row) {
  const unsigned batch = static_cast<unsigned>(row) / t.seqlen;
  const unsigned token = static_cast<unsigned>(row) - batch * t.seqlen;
  const float* const squares = static_cast<const float*>(t.squares.data) +
                               batch * t.squares.batch_stride +
                               token * t.squares.token_stride;
  float sum = 0;
  for (int i = threadIdx.x % 32; i < t.parts; i += 32) sum += squares[i];
  return rsqrtf(WarpSum(sum) * t.per_square + t.scale_epsilon);
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

// Elements of an access of RowKernel. Beside an f32 residual the others take 8
// bytes, so that neighbouring threads' 16 bytes of it are neighbours.
template <class T, NormForm kForm>
inline constexpr int kRowLanes = kPackSize<ResidualOf<T, kForm>>;

// Threads (x: of a row, y: rows of a block; y > 1 only where x is one warp).
// The width is a multiple of a pack and at most blockDim.x * kPacks packs.
template <class T, NormForm kForm, int kPacks>
__global__ void __launch_bounds__(kNormMaxThreads)
    RowKernel(const NormTensorsOf<kForm.scaled> t) {
  using R = ResidualOf<T, kForm>;
  constexpr int kLanes = kRowLanes<T, kForm>;
  using Raw = Words<T, kLanes>;
  using RawResidual = Words<R, kLanes>;
  constexpr int kWarps = kNormMaxThreads / 32;
  constexpr bool kGate = kForm.gate_before || kForm.gate_after;
  __shared__ float4 partial[2][kWarps / 4];
  const int packs = t.width / kLanes;
  const unsigned block = kForm.strided ? blockIdx.x / t.groups : blockIdx.x;
  const int group = kForm.strided ? blockIdx.x % t.groups : 0;
  const int64_t row = int64_t{block} * blockDim.y + threadIdx.y;
  if (row >= t.rows) return;  // whole warps; whole blocks where they have one

  // Threads take packs in turn, so that a warp's accesses are contiguous.
  const auto pack_of = [](int i) { return threadIdx.x + i * blockDim.x; };
  const auto start = [&](const NormView& view) {
    return RowStart<kForm.strided>(t, view, row, group);
  };
  Raw weight[kPacks] = {}, bias[kPacks] = {};
  const int first_weight = group * packs;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= packs) continue;
    weight[i] = static_cast<const Raw*>(t.weight)[first_weight + pack_of(i)];
    if constexpr (kForm.centered)
      bias[i] = static_cast<const Raw*>(t.bias)[first_weight + pack_of(i)];
  }
  // Weights are nobody's output.
  LetNextStart();
  WaitForPrevious();
  // Plain loads: L1::no_allocate would cost 4 % of the bandwidth.
  Raw x[kPacks] = {}, gate[kPacks] = {};
  RawResidual residual[kPacks] = {};
  const T* const x_row = static_cast<const T*>(t.x.data) + start(t.x);
  const T* const gate_row =
      static_cast<const T*>(t.gate.data) + (kGate ? start(t.gate) : 0);
  const R* const residual_row = static_cast<const R*>(t.residual.data) +
                                (kForm.residual ? start(t.residual) : 0);
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= packs) continue;
    const int at = pack_of(i) * kLanes;
    x[i] = *reinterpret_cast<const Raw*>(x_row + at);
    if constexpr (kForm.residual)
      residual[i] = *reinterpret_cast<const RawResidual*>(residual_row + at);
    if constexpr (kGate) gate[i] = *reinterpret_cast<const Raw*>(gate_row + at);
  }
  // Slots of warps that are not there count as 0.
  if (blockDim.x > 32 && threadIdx.x >= blockDim.x / 32 && threadIdx.x < kWarps)
    for (auto& slots : partial)
      reinterpret_cast<float*>(slots)[threadIdx.x] = 0;

  // Between the passes u is kept as it came where that takes fewer registers.
  constexpr bool kKeepFloats =
      kForm.scaled || kForm.residual || kForm.gate_before;
  float kept[kKeepFloats ? kPacks : 1][kLanes];
  const auto u_of = [&](int i, float(&u)[kLanes]) {
    if constexpr (kKeepFloats) {
#pragma unroll
      for (int j = 0; j < kLanes; ++j) u[j] = kept[i][j];
    } else {
      KeepPacked(x[i]);
      Unpack<T, kLanes>(x[i], u);
    }
  };
  float row_scale = 1;
  if constexpr (kForm.scaled) row_scale = RowScale(t, row);
  float sum = 0;
  R* const residual_out = static_cast<R*>(t.residual_out.data) +
                          (kForm.residual ? start(t.residual_out) : 0);
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    float u[kLanes];
    Unpack<T, kLanes>(x[i], u);
    if constexpr (kForm.scaled) {
#pragma unroll
      for (int j = 0; j < kLanes; ++j) u[j] *= row_scale;
    }
    if constexpr (kForm.residual) {
      float r[kLanes];
      Unpack<R, kLanes>(residual[i], r);
#pragma unroll
      for (int j = 0; j < kLanes; ++j) u[j] += r[j];
      if (pack_of(i) < packs)
        *reinterpret_cast<RawResidual*>(residual_out + pack_of(i) * kLanes) =
            RoundPack<R, kLanes>(u);
    }
    if constexpr (kForm.gate_before) {
      float g[kLanes];
      Unpack<T, kLanes>(gate[i], g);
#pragma unroll
      for (int j = 0; j < kLanes; ++j) u[j] *= SiluFast(g[j]);
    }
#pragma unroll
    for (int j = 0; j < kLanes; ++j) {
      sum += kForm.centered ? u[j] : u[j] * u[j];
      if constexpr (kKeepFloats) kept[i][j] = u[j];
    }
  }
  float mean = 0;
  if constexpr (kForm.centered) {
    mean = RowSum<kWarps>(sum, partial[0]) * t.per_element;
    sum = 0;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (pack_of(i) >= packs) continue;
      float u[kLanes];
      u_of(i, u);
#pragma unroll
      for (int j = 0; j < kLanes; ++j) sum += (u[j] - mean) * (u[j] - mean);
    }
  }
  const float scale =
      rsqrtf(RowSum<kWarps>(sum, partial[1]) * t.per_element + t.epsilon);

  T* const y_row = static_cast<T*>(t.y.data) + start(t.y);
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= packs) continue;
    float u[kLanes], w[kLanes], b[kLanes], g[kLanes];
    u_of(i, u);
    KeepPacked(weight[i]);
    Unpack<T, kLanes>(weight[i], w);
    if constexpr (kForm.centered) {
      KeepPacked(bias[i]);
      Unpack<T, kLanes>(bias[i], b);
    }
    if constexpr (kForm.gate_after) Unpack<T, kLanes>(gate[i], g);
#pragma unroll
    for (int j = 0; j < kLanes; ++j) {
      u[j] = (u[j] - mean) * (scale * w[j]);
      if constexpr (kForm.centered) u[j] += b[j];
      if constexpr (kForm.gate_after) u[j] *= SiluFast(g[j]);
    }
    *reinterpret_cast<Raw*>(y_row + pack_of(i) * kLanes) =
        RoundPack<T, kLanes>(u);
  }
}

// A block takes a row at a time, kLanes elements an access. The last pass
// writes the residual, which may lie where it was read: no pass reads it after.
template <class T, class R, int kLanes, bool kScaled>
__global__ void __launch_bounds__(1024)
    WideKernel(const NormTensorsOf<kScaled> t, const NormForm form) {
  using P = Pack<T, kLanes>;
  using PackR = Pack<R, kLanes>;
  constexpr int kWarps = 32;
  __shared__ float4 partial[2][kWarps / 4];
  if (threadIdx.x < kWarps / 2)
    partial[threadIdx.x / (kWarps / 4)][threadIdx.x % (kWarps / 4)] = {};
  __syncthreads();
  const int packs = t.width / kLanes;
  const P* const weights =
      static_cast<const P*>(t.weight) + int64_t{blockIdx.y} * packs;
  const P* const biases =
      static_cast<const P*>(t.bias) + int64_t{blockIdx.y} * packs;
  int buffer = 0;
  const auto row_sum = [&](float v) {
    const float sum = RowSum<kWarps>(v, partial[buffer]);
    buffer ^= 1;
    return sum;
  };
  for (int64_t row = blockIdx.x; row < t.rows; row += gridDim.x) {
    const auto from = [&]<class E>(E, const NormView& view) {
      return reinterpret_cast<Pack<E, kLanes>*>(
          static_cast<E*>(view.data) +
          RowStart<true>(t, view, row, blockIdx.y));
    };
    const P* const x = from(T(), t.x);
    const P* const gate = from(T(), t.gate);
    const PackR* const residual = from(R(), t.residual);
    float row_scale = 1;
    if constexpr (kScaled) row_scale = RowScale(t, row);
    const auto u_at = [&](int i) {
      const P pack = x[i];
      Pack<float, kLanes> u;
#pragma unroll
      for (int j = 0; j < kLanes; ++j) {
        u.v[j] = ToFloat(pack.v[j]);
        if constexpr (kScaled) u.v[j] *= row_scale;
      }
      if (form.residual) {
        const PackR r = residual[i];
#pragma unroll
        for (int j = 0; j < kLanes; ++j) u.v[j] += ToFloat(r.v[j]);
      }
      return u;
    };
    const auto gated = [&](Pack<float, kLanes> u, int i) {
      if (!form.gate_before) return u;
      const P g = gate[i];
#pragma unroll
      for (int j = 0; j < kLanes; ++j) u.v[j] *= SiluFast(ToFloat(g.v[j]));
      return u;
    };
    float mean = 0;
    if (form.centered) {
      float sum = 0;
#pragma unroll 4
      for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        const auto u = gated(u_at(i), i);
#pragma unroll
        for (int j = 0; j < kLanes; ++j) sum += u.v[j];
      }
      mean = row_sum(sum) * t.per_element;
    }
    float squares = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
      const auto u = gated(u_at(i), i);
#pragma unroll
      for (int j = 0; j < kLanes; ++j)
        squares += (u.v[j] - mean) * (u.v[j] - mean);
    }
    const float scale = rsqrtf(row_sum(squares) * t.per_element + t.epsilon);
    P* const y = from(T(), t.y);
    PackR* const residual_out = from(R(), t.residual_out);
#pragma unroll 2
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
      auto u = u_at(i);
      if (form.residual) {
        PackR rounded;
#pragma unroll
        for (int j = 0; j < kLanes; ++j) rounded.v[j] = FromFloat<R>(u.v[j]);
        residual_out[i] = rounded;
      }
      u = gated(u, i);
      const P weight = weights[i];
      P out;
#pragma unroll
      for (int j = 0; j < kLanes; ++j) {
        float v = (u.v[j] - mean) * (scale * ToFloat(weight.v[j]));
        if (form.centered) v += ToFloat(biases[i].v[j]);
        if (form.gate_after) v *= SiluFast(ToFloat(gate[i].v[j]));
        out.v[j] = FromFloat<T>(v);
      }
      y[i] = out;
    }
  }
}

}  // namespace seqmark
