// SPDX-License-Identifier: Apache-2.0
//
// What a warp of waves.cuh works on: its parameters, tiles and their order, how
// a tile's inputs come to shared memory and its outputs leave, and what is done
// once a token, before the states.
#pragma once

#include "fixtures/cuda.h"
#include "ops/mma.cuh"
#include "ops/selective_scan/links.cuh"
#include "ops/selective_scan/scan_math.cuh"

namespace seqmark::selective_scan {

inline constexpr int kSteps = 16;       // of a warp's tile
inline constexpr int kStates = 16;      // of a pass over a tile
inline constexpr int kChannels = 32;    // of a warp's tile: one a lane
inline constexpr int kPolynomials = 1;  // of kSteps exponentials
inline constexpr int kPad = 16;         // words, so that B and C differ in bank

template <class T>
struct View {  // (batch, seqlen, ...), the last axis contiguous
  T* data = nullptr;
  int64_t batch_stride = 0;  // in elements, as the next
  int step_stride = 0;
  __device__ T* At(int b, int l) const {
    return data + b * batch_stride + int64_t{l} * step_stride;
  }
};

// The tensors that a tile is of, in the order of Params::rows.
enum TensorIndex : int { kX, kDt, kZ, kB, kC, kY, kA, kTensors };

// A tensor's memory as tiles see it.
struct Rows {
  char* data = nullptr;
  int64_t batch_stride = 0;  // in bytes, as the rest
  int step_stride = 0;
  int block_stride = 0;  // from a block of channels to the next
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
  Rows rows[kTensors];                   // of all of those with a TensorIndex
  // (chains, columns, kChannels): state and tile of the block before.
  uint64_t* words = nullptr;
  int batch = 1, seqlen = 1, d_inner = 1, d_state = 1;
  int columns = kStates;  // d_state rounded up to whole passes
  int channel_blocks = 1;
  // A grid's worth of tiles, as so many of each.
  int stride_columns = 0, stride_batch = 0, stride_blocks = 0;
  // Whether rows are whole aligned 16-byte vectors.
  bool vector = false;
};

// One of a block's tiles: it has every grid's worth from its own index on.
struct Tiles {
  int column, b, block;  // of time, batch and channels

  template <class T>
  __device__ static Tiles First(const Params<T>& p) {
    const int chain = blockIdx.x % (p.batch * p.channel_blocks);
    return {static_cast<int>(blockIdx.x) / (p.batch * p.channel_blocks),
            chain / p.channel_blocks, chain % p.channel_blocks};
  }
  template <class T>
  __device__ void Next(const Params<T>& p) {
    block += p.stride_blocks;
    b += p.stride_batch;
    column += p.stride_columns;
    if (block >= p.channel_blocks) block -= p.channel_blocks, ++b;
    if (b >= p.batch) b -= p.batch, ++column;
  }
};

// Which tile a warp is at, and where that begins in each tensor.
struct Place {
  int column, b, block;  // of time, batch and channels
  int l0;                // the first step
  int length;  // steps in the sequence, at most kSteps; none if not positive
  int whole;   // whether it is all whole aligned 16-byte vectors
  char* first[kTensors + 1];

  __device__ int channel() const { return block * kChannels; }
  __device__ Tiles tiles() const { return {column, b, block}; }
};

// What a warp keeps to itself.
template <class T>
struct alignas(16) WarpTile {
  T x[kSteps][kChannels];
  T dt[kSteps][kChannels];
  T z[kSteps][kChannels];     // and y, on its way out
  T raw[2][kSteps][kStates];  // B and C of the next pass
  float B[kStates][kSteps];   // times ln 2
  float pad[kPad];            // so that B and C are on different banks
  float C[kStates][kSteps];
  float A[kChannels][kStates + 4];
  float bias[kChannels], skip[kChannels];
  Place place[2];  // here, or they would be spilled to slower memory
};

template <class T, int kWarps>
struct BlockTiles {
  WarpTile<T> warp[kWarps];
  Links<kWarps> links;
  Rows rows[kTensors];
};

// This lane's words of a chain.
template <class T>
__device__ __forceinline__ uint64_t* Words(const Params<T>& p, int b, int block,
                                           int lane) {
  return p.words +
         (int64_t{b} * p.channel_blocks + block) * p.columns * kChannels + lane;
}

// kRows rows of kRowBytes at `from` to rows of kToStride bytes in shared
// memory, by one warp.
template <int kRows, int kRowBytes, int kToStride = kRowBytes>
__device__ __forceinline__ void CopyVectors(const char* from, int stride,
                                            int lane, void* to) {
  constexpr int kPerRow = kRowBytes / 16;
  constexpr int kRowsAtOnce = 32 / kPerRow;
  const int row = lane / kPerRow, column = lane % kPerRow * 16;
  from += row * stride + column;
  const uint32_t shared = SharedAddress(to) + row * kToStride + column;
#pragma unroll
  for (int i = 0; i < kRows / kRowsAtOnce; ++i)
    CopyAsync16(shared + i * kRowsAtOnce * kToStride,
                from + int64_t{i * kRowsAtOnce} * stride, true);
}

// The same, element by element, with zeros outside of the tensor.
template <int kColumns, class T>
__device__ __noinline__ void CopyElements(const View<const T>& view,
                                          const Place& at, int first, int end,
                                          int lane, T* to) {
  const T* const from = view.At(at.b, at.l0) + first;
#pragma unroll 1
  for (int i = lane; i < kSteps * kColumns; i += 32) {
    const int row = i / kColumns, column = i % kColumns;
    to[i] = row < at.length && first + column < end
                ? from[int64_t{row} * view.step_stride + column]
                : FromFloat<T>(0.0f);
  }
}

template <class T, int kWarps>
class Loader {
 public:
  __device__ Loader(const Params<T>& p, const Rows* rows, WarpTile<T>& s, int w,
                    int lane)
      : p_(p), rows_(rows), s_(s), w_(w), lane_(lane) {}

  __device__ void First(Place& at) const { Locate(Tiles::First(p_), at); }
  __device__ void Next(const Place& from, Place& at) const {
    Tiles tiles = from.tiles();
    tiles.Next(p_);
    Locate(tiles, at);
  }

  __device__ void Steps(const Place& at) const {
    Activations<kX>(p_.x, at, s_.x);
    Activations<kDt>(p_.dt, at, s_.dt);
  }
  __device__ void Gates(const Place& at) const {
    if (p_.z.data != nullptr) Activations<kZ>(p_.z, at, s_.z);
  }
  __device__ void Projections(const Place& at, int n0) const {
    constexpr int kRowBytes = kStates * sizeof(T);
    if (at.whole) {
      const int64_t skip = n0 * int64_t{sizeof(T)};
      CopyVectors<kSteps, kRowBytes>(at.first[kB] + skip,
                                     p_.rows[kB].step_stride, lane_, s_.raw[0]);
      CopyVectors<kSteps, kRowBytes>(at.first[kC] + skip,
                                     p_.rows[kC].step_stride, lane_, s_.raw[1]);
    } else {
      CopyElements<kStates>(p_.B, at, n0, p_.d_state, lane_, &s_.raw[0][0][0]);
      CopyElements<kStates>(p_.C, at, n0, p_.d_state, lane_, &s_.raw[1][0][0]);
    }
  }
  __device__ void Rates(const Place& at, int n0) const {
    if (at.whole) {
      CopyVectors<kChannels, kStates * 4, sizeof(s_.A[0])>(
          at.first[kA] + n0 * 4, p_.d_state * 4, lane_, s_.A);
    } else {
      const float* const from = p_.A + int64_t{at.channel()} * p_.d_state + n0;
#pragma unroll 1
      for (int i = lane_; i < kChannels * kStates; i += 32) {
        const int row = i / kStates, n = i % kStates;
        s_.A[row][n] = at.channel() + row < p_.d_inner && n0 + n < p_.d_state
                           ? from[int64_t{row} * p_.d_state + n]
                           : 0.0f;
      }
    }
    if (n0 > 0) return;
    const int channel = at.channel() + lane_;
    const bool inside = channel < p_.d_inner;
    if (p_.dt_bias != nullptr)
      CopyAsync4(SharedAddress(&s_.bias[lane_]),
                 p_.dt_bias + (inside ? channel : 0), inside);
    if (p_.D != nullptr)
      CopyAsync4(SharedAddress(&s_.skip[lane_]), p_.D + (inside ? channel : 0),
                 inside);
  }

  // y, from s.z.
  __device__ void StoreOutputs(const Place& at) const {
    constexpr int kRowBytes = kChannels * sizeof(T);
    constexpr int kPerRow = kRowBytes / 16;
    constexpr int kRowsAtOnce = 32 / kPerRow;
    if (at.whole) {
      const int row = lane_ / kPerRow, column = lane_ % kPerRow * 16;
      const int stride = p_.rows[kY].step_stride;
      char* const to = at.first[kY] + row * stride + column;
      const char* const from =
          reinterpret_cast<const char*>(s_.z) + row * kRowBytes + column;
#pragma unroll
      for (int i = 0; i < kSteps / kRowsAtOnce; ++i)
        *reinterpret_cast<uint4*>(to + int64_t{i * kRowsAtOnce} * stride) =
            *reinterpret_cast<const uint4*>(from + i * kRowsAtOnce * kRowBytes);
    } else if (at.channel() + lane_ < p_.d_inner) {
      T* to = p_.y.At(at.b, at.l0) + at.channel() + lane_;
#pragma unroll 1
      for (int t = 0; t < at.length; ++t) {
        *to = s_.z[t][lane_];
        to += p_.y.step_stride;
      }
    }
  }

 private:
  __device__ void Locate(const Tiles& tiles, Place& at) const {
    const auto [column, b, block] = tiles;
    const int l0 = (column * kWarps + w_) * kSteps;
    if (lane_ < kTensors) {
      const Rows& rows = rows_[lane_];
      at.first[lane_] = rows.data + b * rows.batch_stride +
                        int64_t{l0} * rows.step_stride +
                        int64_t{block} * rows.block_stride;
    }
    if (lane_ == 0) {
      const int length = min(p_.seqlen - l0, kSteps);
      at.column = column;
      at.b = b;
      at.block = block;
      at.l0 = l0;
      at.length = length;
      at.whole = p_.vector && length == kSteps &&
                 (block + 1) * kChannels <= p_.d_inner;
    }
  }

  template <int kTensor>
  __device__ void Activations(const View<const T>& view, const Place& at,
                              T (&to)[kSteps][kChannels]) const {
    if (at.whole)
      CopyVectors<kSteps, kChannels * sizeof(T)>(
          at.first[kTensor], p_.rows[kTensor].step_stride, lane_, to);
    else
      CopyElements<kChannels>(view, at, at.channel(), p_.d_inner, lane_,
                              &to[0][0]);
  }

  const Params<T>& p_;
  const Rows* const rows_;  // p_.rows, in shared memory
  WarpTile<T>& s_;
  const int w_, lane_;
};

// s.raw, as f32 with time innermost.
template <class T>
__device__ __forceinline__ void Transpose(WarpTile<T>& s, int lane) {
  constexpr int kVector = kPackSize<T>;
  const bool is_c = lane >= kSteps;
  const int t = lane % kSteps;
  const float scale = is_c ? 1.0f : kLn2;
  float* const to = (is_c ? &s.C[0][0] : &s.B[0][0]) + t;
#pragma unroll
  for (int n = 0; n < kStates; n += kVector) {
    const auto v =
        *reinterpret_cast<const Pack<T, kVector>*>(&s.raw[is_c ? 1 : 0][t][n]);
#pragma unroll
    for (int i = 0; i < kVector; ++i)
      to[(n + i) * kSteps] = ToFloat(v.v[i]) * scale;
  }
}

// dt' in bits (step), dt' x likewise (u) and D x (y), from s.
template <class T>
__device__ __forceinline__ void Discretise(const WarpTile<T>& s, int length,
                                           int lane, float (&step)[kSteps],
                                           float (&u)[kSteps],
                                           float (&y)[kSteps]) {
  const float bias = s.bias[lane] * kLog2E, skip = s.skip[lane];
  float largest = 0.0f;
#pragma unroll
  for (int t = 0; t < kSteps; ++t) {
    const float e = Exp2Fast(fmaf(ToFloat(s.dt[t][lane]), kLog2E, bias));
    largest = fmaxf(largest, e);
    step[t] = e * Log2p1OverE(e);
  }
  // fmaxf drops NaN, which the polynomial has passed on.
  if (__any_sync(~0u, largest > 1.0f)) {
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
      const float v = fmaf(ToFloat(s.dt[t][lane]), kLog2E, bias);
      if (v > 0.0f) step[t] = v > 30.0f ? v : __log2f(1.0f + Exp2Fast(v));
    }
  }
  if (length < kSteps) {
#pragma unroll
    for (int t = 0; t < kSteps; ++t)
      if (t >= length) step[t] = 0.0f;  // leaves the states as they are
  }
#pragma unroll
  for (int t = 0; t < kSteps; ++t) {
    const float x = ToFloat(s.x[t][lane]);
    u[t] = step[t] * x;
    y[t] = skip * x;
  }
}

}  // namespace seqmark::selective_scan
