// SPDX-License-Identifier: Apache-2.0
//
// Selective scan where batch and channels fill the chip.
//
// A thread owns two neighbouring channels and all their states, in registers,
// and goes through time; nothing is exchanged between threads. x, dt and z go
// straight to the registers of the thread that needs them, four steps ahead. B
// and C, which all channels share, go through shared memory as f32, a tile of
// steps at a time, loaded during the tile before, and are read as broadcasts.
#pragma once

#include "fixtures/cuda.h"
#include "ops/selective_scan/scan_math.cuh"
#include "ops/selective_scan/waves.cuh"

namespace seqmark::selective_scan {

inline constexpr int kThreads = 128;  // of a block
inline constexpr int kPair = 2;       // channels a thread
inline constexpr int kAhead = 4;      // steps of x, dt and z in flight
// Steps of B and C in shared memory at a time: a tile of both is eight values a
// thread, which is how they are loaded.
inline constexpr int kTile = 32;

// The channels of one step, as f32.
template <class T>
__device__ __forceinline__ void Unpack(const Pack<T, kPair>& from,
                                       float (&to)[kPair]) {
#pragma unroll
  for (int j = 0; j < kPair; ++j) to[j] = ToFloat(from.v[j]);
}
// One instruction each, which the compiler does not find.
__device__ __forceinline__ void Unpack(const Pack<__nv_bfloat16, 2>& from,
                                       float (&to)[2]) {
  const unsigned bits = *reinterpret_cast<const unsigned*>(&from);
  to[0] = __uint_as_float(bits << 16);
  to[1] = __uint_as_float(bits & 0xffff0000u);
}

// State kState of one channel, one step on. One exponential of 16 goes to the
// FMA pipe, which costs 9 issue slots and spares the special function unit 8
// cycles; that is the bottleneck.
template <int kState>
__device__ __forceinline__ void Advance(float a, float& h, float step,
                                        float input, float b, float c,
                                        float& y) {
  const float decay =
      kState == kStates - 1 ? Exp2Polynomial(step * a) : Exp2Fast(step * a);
  h = fmaf(decay, h, input * b);
  y = fmaf(c, h, y);
}

template <int kFirst>
__device__ __forceinline__ void AdvanceFour(const float (&a)[kPair][kStates],
                                            float (&h)[kPair][kStates],
                                            const float (&step)[kPair],
                                            const float (&input)[kPair],
                                            const float* rows,
                                            float (&y)[kPair]) {
  const float4 b = *reinterpret_cast<const float4*>(rows + kFirst);
  const float4 c = *reinterpret_cast<const float4*>(rows + kStates + kFirst);
#pragma unroll
  for (int j = 0; j < kPair; ++j) {
    Advance<kFirst>(a[j][kFirst], h[j][kFirst], step[j], input[j], b.x, c.x,
                    y[j]);
    Advance<kFirst + 1>(a[j][kFirst + 1], h[j][kFirst + 1], step[j], input[j],
                        b.y, c.y, y[j]);
    Advance<kFirst + 2>(a[j][kFirst + 2], h[j][kFirst + 2], step[j], input[j],
                        b.z, c.z, y[j]);
    Advance<kFirst + 3>(a[j][kFirst + 3], h[j][kFirst + 3], step[j], input[j],
                        b.w, c.w, y[j]);
  }
}

// This thread's eight values of a tile of B and C, in two parts, so that the
// load is in flight while the tile before is computed.
template <class T>
class TileCopy {
 public:
  __device__ TileCopy(const Params<T>& p, int b, bool vector)
      : p_(p), vector_(vector) {
    const int index = threadIdx.x % (kTile * 2);
    is_c_ = threadIdx.x >= kTile * 2;
    row_ = index / 2;
    column_ = index % 2 * 8;
    const View<const T>& view = is_c_ ? p.C : p.B;
    source_ = view.At(b, row_) + column_;
    tile_stride_ = int64_t{view.step_stride} * kTile;
  }

  // The tiles from the first, one a call; `l0` is where this starts.
  __device__ void Load(int l0) {
    const bool inside = l0 + row_ < p_.seqlen;
    if (inside && vector_) {
#pragma unroll
      for (int i = 0; i < 8; i += kPackSize<T>)
        *reinterpret_cast<uint4*>(values_ + i) =
            *reinterpret_cast<const uint4*>(source_ + i);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        values_[i] = inside && column_ + i < p_.d_state ? source_[i]
                                                        : FromFloat<T>(0.0f);
    }
    source_ += tile_stride_;
  }

  // `tile`: (steps, 2, kStates), B then C.
  __device__ void Store(float* tile) const {
    float* const to = tile + (2 * row_ + is_c_) * kStates + column_;
#pragma unroll
    for (int i = 0; i < 8; i += 4)
      *reinterpret_cast<float4*>(to + i) =
          make_float4(ToFloat(values_[i]), ToFloat(values_[i + 1]),
                      ToFloat(values_[i + 2]), ToFloat(values_[i + 3]));
  }

 private:
  const Params<T>& p_;
  const bool vector_;
  const T* source_;
  int64_t tile_stride_;
  int row_, column_;
  bool is_c_;
  alignas(16) T values_[8];
};

// A block a (batch entry, block of channels). d_state is at most kStates, and
// two neighbouring channels can be read and written as one.
template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    SequentialKernel(const __grid_constant__ Params<T> p) {
  __shared__ __align__(16) float shared[2][kTile * 2 * kStates];
  using Channels = Pack<T, kPair>;
  const int blocks = (p.d_inner + kThreads * kPair - 1) / (kThreads * kPair);
  const int b = blockIdx.x / blocks;
  const int wanted =
      (static_cast<int>(blockIdx.x) % blocks * kThreads + threadIdx.x) * kPair;
  // Threads past the last channel repeat it, and write nothing.
  const bool active = wanted < p.d_inner;
  const int channel = active ? wanted : p.d_inner - kPair;

  float a[kPair][kStates], h[kPair][kStates], bias[kPair], skip[kPair];
#pragma unroll
  for (int j = 0; j < kPair; ++j) {
    bias[j] = p.dt_bias != nullptr ? p.dt_bias[channel + j] : 0.0f;
    skip[j] = p.D != nullptr ? p.D[channel + j] : 0.0f;
    const int64_t row = (int64_t{b} * p.d_inner + channel + j) * p.d_state;
#pragma unroll
    for (int n = 0; n < kStates; ++n) {
      const bool real = n < p.d_state;
      a[j][n] =
          real ? p.A[int64_t{channel + j} * p.d_state + n] * kLog2E : 0.0f;
      h[j][n] =
          real && p.initial_state != nullptr ? p.initial_state[row + n] : 0.0f;
    }
  }

  // One step of this thread's channels, fetched kAhead steps before its use.
  // Without a z, x stands in for it and the gate is one.
  const bool has_z = p.z.data != nullptr;
  const View<const T>& z_view = has_z ? p.z : p.x;
  const T* x_at = p.x.At(b, 0) + channel;
  const T* dt_at = p.dt.At(b, 0) + channel;
  const T* z_at = z_view.At(b, 0) + channel;
  T* y_at = p.y.At(b, 0) + channel;
  Channels x[kAhead] = {}, dt[kAhead] = {}, z[kAhead] = {};
  const auto fetch = [&](int k, bool inside) {
    if (!inside) return;
    x[k] = *reinterpret_cast<const Channels*>(x_at);
    dt[k] = *reinterpret_cast<const Channels*>(dt_at);
    z[k] = *reinterpret_cast<const Channels*>(z_at);
    x_at += p.x.step_stride;
    dt_at += p.dt.step_stride;
    z_at += z_view.step_stride;
  };
#pragma unroll
  for (int k = 0; k < kAhead; ++k) fetch(k, k < p.seqlen);

  TileCopy<T> copy(p, b, p.vector);
  copy.Load(0);
  copy.Store(shared[0]);
  __syncthreads();
  int buffer = 0;
  for (int l0 = 0; l0 < p.seqlen; l0 += kTile, buffer ^= 1) {
    if (l0 + kTile < p.seqlen) copy.Load(l0 + kTile);
    for (int r0 = 0; r0 < kTile && l0 + r0 < p.seqlen; r0 += kAhead) {
      const int left = p.seqlen - l0 - r0;
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        // Past the end, a step of zero leaves the state as it is.
        const bool inside = k < left;
        const float longest = inside ? __int_as_float(0x7f800000) : 0.0f;
        float xs[kPair], step[kPair], gate[kPair], input[kPair], y[kPair];
        Unpack(x[k], xs);
        Unpack(dt[k], step);
        Unpack(z[k], gate);
#pragma unroll
        for (int j = 0; j < kPair; ++j) {
          step[j] = fminf(SoftplusFast(step[j] + bias[j]), longest);
          input[j] = step[j] * xs[j];
          y[j] = skip[j] * xs[j];
          gate[j] = has_z ? SiluFast(gate[j]) : 1.0f;
        }
        fetch(k, k + kAhead < left);
        const float* const rows = &shared[buffer][2 * (r0 + k) * kStates];
        AdvanceFour<0>(a, h, step, input, rows, y);
        AdvanceFour<4>(a, h, step, input, rows, y);
        AdvanceFour<8>(a, h, step, input, rows, y);
        AdvanceFour<12>(a, h, step, input, rows, y);
        Channels out;
#pragma unroll
        for (int j = 0; j < kPair; ++j) out.v[j] = FromFloat<T>(y[j] * gate[j]);
        if (inside && active) *reinterpret_cast<Channels*>(y_at) = out;
        y_at += p.y.step_stride;
      }
    }
    if (l0 + kTile < p.seqlen) copy.Store(shared[buffer ^ 1]);
    __syncthreads();
  }

  if (!active) return;
#pragma unroll
  for (int j = 0; j < kPair; ++j)
#pragma unroll
    for (int n = 0; n < kStates; ++n)
      if (n < p.d_state)
        p.final_state[(int64_t{b} * p.d_inner + channel + j) * p.d_state + n] =
            h[j][n];
}

}  // namespace seqmark::selective_scan
