// SPDX-License-Identifier: Apache-2.0
//
// The kernels of native.cu, which says what limits them.
//
// A thread owns kPer neighbouring channels and 16 states of each, in registers,
// over one segment of time; nothing is exchanged between threads. x, dt and z
// go straight to the registers of the thread that needs them, four steps ahead.
// B and C, which all channels share, go through shared memory as f32, a tile of
// steps at a time, loaded during the tile before, and are read as broadcasts.
//
// More than 16 states: kGrouped. A warp owns 32 channels and 16 states, a block
// all states of its channels, and y is added up over warps at the tile's end.
#pragma once

#include "fixtures/cuda.h"
#include "ops/selective_scan/time_split.h"

namespace seqmark::selective_scan {

inline constexpr int kStates = 16;    // of a channel, in one thread
inline constexpr int kThreads = 128;  // of a block, unless grouped
inline constexpr int kAhead = 4;      // steps of x, dt and z in flight
inline constexpr float kLog2E = 1.4426950408889634f;

// Steps of B and C in shared memory at a time. In both cases a tile of both is
// eight values a thread, which is how they are loaded.
template <bool kGrouped>
inline constexpr int kTile = kGrouped ? 8 : 32;

// `from`, `bytes` on. Through char, not an integer: the compiler must still see
// that the pointer is a global one.
template <class T>
__device__ __forceinline__ T* AddBytes(T* from, int64_t bytes) {
  return (T*)((const char*)from + bytes);  // NOLINT: T may be const or not
}

template <class T>
struct View {  // (batch, seqlen, ...), the last axis contiguous
  T* data = nullptr;
  int64_t batch_stride = 0, step_stride = 0;  // in bytes
  __device__ T* At(int64_t b, int64_t l) const {
    return AddBytes(data, b * batch_stride + l * step_stride);
  }
  // `from`, a pointer into this view, a step later.
  __device__ T* Next(T* from) const { return AddBytes(from, step_stride); }
};

template <class T>
struct Params {
  View<const T> x, dt, z, B, C;  // z.data is null where there is none
  View<T> y;
  const float* A = nullptr;              // (d_inner, d_state)
  const float* D = nullptr;              // (d_inner) or null
  const float* dt_bias = nullptr;        // (d_inner) or null
  const float* initial_state = nullptr;  // (batch, d_inner, d_state) or null
  float* final_state = nullptr;          // (batch, d_inner, d_state)
  float* ends = nullptr;  // (segments - 1, batch, columns, d_inner)
  float* sums = nullptr;  // (segments - 1, batch, d_inner): of dt'
  int batch = 1, d_inner = 1, d_state = 1;
  int columns = kStates;  // d_state rounded up to a multiple of kStates
  int channel_blocks = 1;
  bool vector_bc = false;  // rows of B and C are whole aligned 16-byte vectors
  TimeSplit split;

  __device__ int64_t EndIndex(int64_t slot, int b, int column,
                              int channel) const {
    return ((slot * batch + b) * columns + column) * d_inner + channel;
  }
};

// The channels of one step, as f32.
template <class T, int kPer>
__device__ __forceinline__ void Unpack(const Pack<T, kPer>& from,
                                       float (&to)[kPer]) {
#pragma unroll
  for (int j = 0; j < kPer; ++j) to[j] = ToFloat(from.v[j]);
}
// One instruction each, which the compiler does not find.
__device__ __forceinline__ void Unpack(const Pack<__nv_bfloat16, 2>& from,
                                       float (&to)[2]) {
  const unsigned bits = *reinterpret_cast<const unsigned*>(&from);
  to[0] = __uint_as_float(bits << 16);
  to[1] = __uint_as_float(bits & 0xffff0000u);
}

// 2^x on the FMA pipe, within 2e-7 relative: the integer nearest to x falls out
// of adding 1.5 * 2^23, the fraction takes a minimax polynomial, 1 at 0.
__device__ __forceinline__ float Exp2Polynomial(float x) {
  constexpr float kMagic = 12582912.0f;
  x = fmaxf(x, -126.0f);
  const float shifted = x + kMagic;
  const float f = x - (shifted - kMagic);
  float p = 1.3264727e-3f;
  p = fmaf(p, f, 9.6715130e-3f);
  p = fmaf(p, f, 5.5507336e-2f);
  p = fmaf(p, f, 2.4022242e-1f);
  p = fmaf(p, f, 6.9314700e-1f);
  p = fmaf(p, f, 1.0f);
  return __int_as_float(__float_as_int(p) + (__float_as_int(shifted) << 23));
}

// Of 16 exponentials, how many the FMA pipe takes from the special function
// unit. One costs 9 issue slots more and spares that unit 8 cycles; it is the
// bottleneck, more so where there is no output to compute.
template <bool kOutput>
inline constexpr int kPolynomials = kOutput ? 1 : 2;

template <bool kOutput, int kState>
__device__ __forceinline__ float Decay(float x) {
  constexpr int kShare = kPolynomials<kOutput>;
  // Evenly spread over the states.
  if constexpr ((kState + 1) * kShare / kStates > kState * kShare / kStates)
    return Exp2Polynomial(x);
  else
    return Exp2Fast(x);
}

// Four states of one channel, one step on.
template <bool kOutput, int kFirst>
__device__ __forceinline__ void Advance(const float (&a)[kStates],
                                        float (&h)[kStates], float step,
                                        float input, const float4& b,
                                        const float4& c, float& y) {
  h[kFirst] =
      fmaf(Decay<kOutput, kFirst>(step * a[kFirst]), h[kFirst], input * b.x);
  h[kFirst + 1] = fmaf(Decay<kOutput, kFirst + 1>(step * a[kFirst + 1]),
                       h[kFirst + 1], input * b.y);
  h[kFirst + 2] = fmaf(Decay<kOutput, kFirst + 2>(step * a[kFirst + 2]),
                       h[kFirst + 2], input * b.z);
  h[kFirst + 3] = fmaf(Decay<kOutput, kFirst + 3>(step * a[kFirst + 3]),
                       h[kFirst + 3], input * b.w);
  if constexpr (kOutput) {
    y = fmaf(c.x, h[kFirst], y);
    y = fmaf(c.y, h[kFirst + 1], y);
    y = fmaf(c.z, h[kFirst + 2], y);
    y = fmaf(c.w, h[kFirst + 3], y);
  }
}

template <bool kOutput, int kPer, int kFirst>
__device__ __forceinline__ void AdvanceFour(const float (&a)[kPer][kStates],
                                            float (&h)[kPer][kStates],
                                            const float (&step)[kPer],
                                            const float (&input)[kPer],
                                            const float* b, const float* c,
                                            float (&y)[kPer]) {
  const float4 b4 = *reinterpret_cast<const float4*>(b + kFirst);
  float4 c4 = {};
  if constexpr (kOutput) c4 = *reinterpret_cast<const float4*>(c + kFirst);
#pragma unroll
  for (int j = 0; j < kPer; ++j)
    Advance<kOutput, kFirst>(a[j], h[j], step[j], input[j], b4, c4, y[j]);
}

// This thread's eight values of a tile of B and C, in two parts, so that the
// load is in flight while the tile before is computed.
template <class T, bool kGrouped, bool kOutput>
class TileCopy {
 public:
  __device__ TileCopy(const Params<T>& p, int b, int64_t begin, int length)
      : p_(p), length_(length) {
    const int row_vectors = p.columns / 8;
    const int index = threadIdx.x % (kTile<kGrouped> * row_vectors);
    is_c_ = threadIdx.x >= kTile<kGrouped> * row_vectors;
    row_ = index / row_vectors;
    column_ = index % row_vectors * 8;
    const View<const T>& view = is_c_ ? p.C : p.B;
    source_ = view.At(b, begin + row_) + column_;
    tile_stride_ = view.step_stride * kTile<kGrouped>;
  }

  // The tiles from the segment's begin, one a call; `l0` is where this starts.
  __device__ void Load(int l0) {
    if (is_c_ && !kOutput) return;
    const bool inside = l0 + row_ < length_;
    if (inside && p_.vector_bc) {
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
    source_ = AddBytes(source_, tile_stride_);
  }

  // `tile`: (steps, 2, columns), B then C.
  __device__ void Store(float* tile) const {
    if (is_c_ && !kOutput) return;
    float* const to = tile + (2 * row_ + is_c_) * p_.columns + column_;
#pragma unroll
    for (int i = 0; i < 8; i += 4)
      *reinterpret_cast<float4*>(to + i) =
          make_float4(ToFloat(values_[i]), ToFloat(values_[i + 1]),
                      ToFloat(values_[i + 2]), ToFloat(values_[i + 3]));
  }

 private:
  const Params<T>& p_;
  const T* source_;
  int64_t tile_stride_;  // in bytes
  int length_;
  int row_, column_;
  bool is_c_;
  alignas(16) T values_[8];
};

// One segment of this block's channels, batch entry b. kOutput: from the true
// initial state, writing y; otherwise from zero, for the end state alone.
template <class T, int kPer, bool kGrouped, bool kOutput>
__device__ __forceinline__ void ScanSegment(const Params<T>& p, int segment,
                                            int b, int channel_block,
                                            float* shared) {
  constexpr int kSteps = kTile<kGrouped>;
  using Channels = Pack<T, kPer>;
  const int lane = threadIdx.x % 32;
  const int first_state = kGrouped ? threadIdx.x / 32 * kStates : 0;
  const int wanted = kGrouped
                         ? channel_block * 32 + lane
                         : (channel_block * kThreads + int(threadIdx.x)) * kPer;
  // Threads past the last channel repeat it, and write nothing.
  const bool active = wanted < p.d_inner;
  const int channel = active ? wanted : p.d_inner - kPer;
  const int last = static_cast<int>(p.split.segments) - 1;
  const int64_t begin = p.split.Begin(segment);
  const int length = static_cast<int>(p.split.End(segment) - begin);

  float a[kPer][kStates], h[kPer][kStates], bias[kPer], skip[kPer];
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    bias[j] = p.dt_bias != nullptr ? p.dt_bias[channel + j] : 0.0f;
    skip[j] = p.D != nullptr ? p.D[channel + j] : 0.0f;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = first_state + i;
      const bool real = n < p.d_state;
      const int64_t row = channel + j;
      a[j][i] = real ? p.A[row * p.d_state + n] * kLog2E : 0.0f;
      h[j][i] = 0.0f;
      if (kOutput && segment > 0)
        h[j][i] = p.ends[p.EndIndex(segment - 1, b, n, channel + j)];
      else if (kOutput && p.initial_state != nullptr && real)
        h[j][i] =
            p.initial_state[(int64_t{b} * p.d_inner + row) * p.d_state + n];
    }
  }

  // One step of this thread's channels, fetched kAhead steps before its use.
  // Without a z, x stands in for it and the gate is one.
  const bool has_z = p.z.data != nullptr;
  const View<const T>& z_view = has_z ? p.z : p.x;
  const T* x_at = p.x.At(b, begin) + channel;
  const T* dt_at = p.dt.At(b, begin) + channel;
  const T* z_at = z_view.At(b, begin) + channel;
  T* y_at = p.y.At(b, begin) + channel;
  Channels x[kAhead] = {}, dt[kAhead] = {}, z[kAhead] = {};
  const auto fetch = [&](int k, bool inside) {
    if (!inside) return;
    x[k] = *reinterpret_cast<const Channels*>(x_at);
    dt[k] = *reinterpret_cast<const Channels*>(dt_at);
    if (kOutput && !kGrouped) z[k] = *reinterpret_cast<const Channels*>(z_at);
    x_at = p.x.Next(x_at);
    dt_at = p.dt.Next(dt_at);
    z_at = z_view.Next(z_at);
  };
#pragma unroll
  for (int k = 0; k < kAhead; ++k) fetch(k, k < length);

  const int columns = kGrouped ? p.columns : kStates;
  const int tile_floats = kSteps * 2 * columns;
  float* const partial = shared + 2 * tile_floats;  // (groups, steps, 32)
  float* tile = shared;
  float* next_tile = shared + tile_floats;
  TileCopy<T, kGrouped, kOutput> copy(p, b, begin, length);
  copy.Load(0);
  copy.Store(tile);
  __syncthreads();

  float sum[kPer] = {};
  for (int l0 = 0; l0 < length; l0 += kSteps) {
    if (l0 + kSteps < length) copy.Load(l0 + kSteps);
    float tile_sum[kPer] = {};  // so that the error is that of a sum of sums
    for (int r0 = 0; r0 < kSteps && l0 + r0 < length; r0 += kAhead) {
      const float* const chunk = tile + 2 * r0 * columns + first_state;
      const int left = length - l0 - r0;
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        // Past the end, a step of zero leaves the state as it is.
        const bool inside = k < left;
        const float longest = inside ? __int_as_float(0x7f800000) : 0.0f;
        float xs[kPer], step[kPer], gate[kPer], input[kPer], y[kPer];
        Unpack(x[k], xs);
        Unpack(dt[k], step);
        Unpack(z[k], gate);
#pragma unroll
        for (int j = 0; j < kPer; ++j) {
          step[j] = fminf(SoftplusFast(step[j] + bias[j]), longest);
          tile_sum[j] += step[j];
          input[j] = step[j] * xs[j];
          y[j] = kGrouped ? 0.0f : skip[j] * xs[j];
          gate[j] = has_z ? SiluFast(gate[j]) : 1.0f;
        }
        fetch(k, k + kAhead < left);
        const float* const rows = chunk + 2 * k * columns;
        AdvanceFour<kOutput, kPer, 0>(a, h, step, input, rows, rows + columns,
                                      y);
        AdvanceFour<kOutput, kPer, 4>(a, h, step, input, rows, rows + columns,
                                      y);
        AdvanceFour<kOutput, kPer, 8>(a, h, step, input, rows, rows + columns,
                                      y);
        AdvanceFour<kOutput, kPer, 12>(a, h, step, input, rows, rows + columns,
                                       y);
        if constexpr (kOutput && kGrouped) {
          partial[(first_state / kStates * kSteps + r0 + k) * 32 + lane] = y[0];
        } else if constexpr (kOutput) {
          Channels out;
#pragma unroll
          for (int j = 0; j < kPer; ++j)
            out.v[j] = FromFloat<T>(y[j] * gate[j]);
          if (inside && active) *reinterpret_cast<Channels*>(y_at) = out;
          y_at = p.y.Next(y_at);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kPer; ++j) sum[j] += tile_sum[j];

    if constexpr (kOutput && kGrouped) {
      __syncthreads();
      for (int i = threadIdx.x; i < kSteps * 32; i += blockDim.x) {
        const int c = channel_block * 32 + i % 32;
        if (l0 + i / 32 >= length || c >= p.d_inner) continue;
        const int64_t l = begin + l0 + i / 32;
        float y = 0.0f;
        for (int g = 0; g < columns / kStates; ++g)
          y += partial[g * kSteps * 32 + i];
        if (p.D != nullptr) y = fmaf(p.D[c], ToFloat(p.x.At(b, l)[c]), y);
        if (has_z) y *= SiluFast(ToFloat(p.z.At(b, l)[c]));
        p.y.At(b, l)[c] = FromFloat<T>(y);
      }
    }
    if (l0 + kSteps < length) copy.Store(next_tile);
    __syncthreads();
    float* const done = tile;
    tile = next_tile;
    next_tile = done;
  }

  if (!active) return;
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    if (segment < last && first_state == 0)
      p.sums[(int64_t{segment} * p.batch + b) * p.d_inner + channel + j] =
          sum[j];
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = first_state + i;
      if (segment == last) {
        const int64_t row = int64_t{b} * p.d_inner + channel + j;
        if (n < p.d_state) p.final_state[row * p.d_state + n] = h[j][i];
      } else if (segment == 0 || !kOutput) {
        p.ends[p.EndIndex(segment, b, n, channel + j)] = h[j][i];
      }
    }
  }
}

// A block a (segment, batch entry, block of channels), from `first_segment`.
// The first launch, from segment 0, is in full for that segment only.
template <class T, int kPer, bool kGrouped>
__global__ void __launch_bounds__(kGrouped ? 512 : kThreads, kGrouped    ? 1
                                                             : kPer == 2 ? 3
                                                                         : 4)
    ScanKernel(const __grid_constant__ Params<T> p, int first_segment) {
  extern __shared__ __align__(16) float shared[];
  const int channel_block = blockIdx.x % p.channel_blocks;
  const int rest = blockIdx.x / p.channel_blocks;
  const int b = rest % p.batch;
  const int segment = first_segment + rest / p.batch;
  if (first_segment > 0 || segment == 0)
    ScanSegment<T, kPer, kGrouped, true>(p, segment, b, channel_block, shared);
  else
    ScanSegment<T, kPer, kGrouped, false>(p, segment, b, channel_block, shared);
}

// Turns the end states of segments 1 .. n-2 into those from the true initial
// state. A thread a (batch entry, state, channel).
template <class T>
__global__ void __launch_bounds__(kThreads)
    ChainKernel(const __grid_constant__ Params<T> p) {
  constexpr int kLinks = 8;  // loads in flight
  const int64_t plane = int64_t{p.columns} * p.d_inner;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.batch * plane) return;
  const int b = static_cast<int>(i / plane);
  const int n = static_cast<int>(i % plane / p.d_inner);
  const int channel = static_cast<int>(i % p.d_inner);
  if (n >= p.d_state) return;  // those are zero
  const float rate = p.A[int64_t{channel} * p.d_state + n] * kLog2E;
  const int64_t sums_stride = int64_t{p.batch} * p.d_inner;
  const float* const sums = p.sums + int64_t{b} * p.d_inner + channel;
  float* const ends = p.ends + i;
  const int slots = static_cast<int>(p.split.segments) - 1;
  float h = ends[0];
  for (int s = 1; s < slots; s += kLinks) {
    float sum[kLinks], end[kLinks];
#pragma unroll
    for (int k = 0; k < kLinks; ++k) {
      const int64_t slot = min(s + k, slots - 1);
      sum[k] = sums[slot * sums_stride];
      end[k] = ends[slot * p.batch * plane];
    }
#pragma unroll
    for (int k = 0; k < kLinks; ++k) {
      if (s + k >= slots) break;
      h = fmaf(Exp2Fast(rate * sum[k]), h, end[k]);
      ends[(s + k) * p.batch * plane] = h;
    }
  }
}

}  // namespace seqmark::selective_scan
