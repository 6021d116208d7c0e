// SPDX-License-Identifier: Apache-2.0
//
// A decode step's projection with the norm before it and the convolution after
// it, in one launch: up to 8 rows. The reading of W limits it where W is large,
// latency where it is small; a chain of such kernels is made for both:
//
//  - one block of 16 warps a multiprocessor. Before the kernel that makes x has
//    ended (fixtures/dependent_launch_cuda.h), each thread asks for kDepth
//    steps of W, 32 bytes each, by asynchronous copies to a ring in shared
//    memory: some 12 MB over the chip. It copies what it will read itself, so
//    that the ring needs no barrier, and two such loads are a whole line of a
//    row of W;
//  - features are divided evenly over the blocks, to the feature; within one, a
//    team of warps shares K and takes 8 features at a time;
//  - the norm of a short row costs less than a launch: every block does it
//    again, into shared memory. residual_out is written once, each block a part
//    of it, which is why it may not be residual: others still read that;
//  - products are m16n8k16 with x's rows as m and features as n. The sum over k
//    has no order, so a thread takes 8 neighbouring k by one 16-byte load and
//    calls them what the fragment wants;
//  - a channel's convolution has one reader and one writer, the thread that
//    holds the product: its state is updated in place, and no launch is left.
//
// Between x and y a warp is alone with its latencies, so that addresses, and
// all else that x is not needed for, come before the wait.
//
// Sums have one order: runs are identical bit for bit.
#pragma once

#include <algorithm>

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/pack_cuda.h"
#include "ops/mma.cuh"

namespace seqmark {

inline constexpr int kNormGemmWarps = 16;
inline constexpr int kNormGemmThreads = kNormGemmWarps * 32;
inline constexpr int kNormGemmRows = 8;
inline constexpr int kNormGemmMostChunks = 64;  // of a row
inline constexpr int kNormGemmTile = 8;         // features of a team at a time
inline constexpr int kNormGemmStep = 64;        // k of a warp's two loads
inline constexpr int kNormGemmChunk =
    256;  // elements that a warp norms at once
inline constexpr int kNormGemmTaps = 4;

// Rows lie `_stride` elements apart.
struct NormGemmTensors {
  const void* x = nullptr;         // (rows, in_features)
  const void* residual = nullptr;  // (rows, in_features) or null
  void* residual_out = nullptr;
  const void* norm_weight = nullptr;  // (in_features); null: no norm
  const void* weight = nullptr;       // (out_features, in_features)
  const void* bias = nullptr;         // (out_features) or null
  void* y = nullptr;                  // (rows, out_features)
  const void* conv_weight = nullptr;  // (channels, conv_width)
  const void* conv_bias = nullptr;    // (channels) or null
  const void* conv_state = nullptr;   // (rows, conv_width - 1, channels)
  void* conv_state_out = nullptr;     // may be conv_state
  int64_t x_stride = 0, residual_stride = 0, residual_out_stride = 0,
          y_stride = 0;
  int rows = 0, in_features = 0, out_features = 0;
  int groups = 1;
  float epsilon = 0;
  float per_element = 0;  // 1 / (in_features / groups)
  bool residual_f32 = false;
  int first_channel = 0, channels = 0, conv_width = 0;  // of y's columns
  int split = 1;  // warps of a team, a power of two
};

// Elements between rows of x in shared memory: rows of a fragment's eight then
// fall into different banks.
__host__ __device__ constexpr int NormGemmRow(int in_features) {
  return (in_features + 63) / 64 * 64 + 32;
}

// The ring of W; x, 2 bytes an element; where the norm comes first, u, 4.
inline size_t NormGemmSharedBytes(int rows, int in_features, int depth,
                                  bool late) {
  return size_t{kNormGemmThreads} * 32 * depth +
         size_t{2} * rows * NormGemmRow(in_features) +
         (late ? 0 : size_t{4} * rows * in_features);
}

// The norm of the rows of x, each warp a chunk of a row's group at a time.
//
// kLate: what goes to shared memory is u * norm_weight, and outputs are scaled
// by Scale at the end: the products do not wait for the sum of squares. That
// needs one group a row, and a type that holds what is not yet scaled.
template <class T, bool kLate>
class NormRows {
 public:
  // What can be done before x is there: where it is.
  __device__ __forceinline__ NormRows(const NormGemmTensors& a, T* to, float* u,
                                      float* chunk_sums)
      : a_(a), to_(to), u_(u), chunk_sums_(chunk_sums) {
    width_ = kLate ? a.in_features : a.in_features / a.groups;
    of_segment_ = (width_ + kNormGemmChunk - 1) / kNormGemmChunk;
    chunks_ = a.rows * (kLate ? 1 : a.groups) * of_segment_;
    GoTo(threadIdx.x / 32);
  }

  // Asks for this chunk of x.
  __device__ __forceinline__ void Load() {
    if (!valid_) return;
    raw_x_ = *x_;
    if (residual_ == nullptr) return;
    raw_residual_[0] = residual_[0];
    if (a_.residual_f32) raw_residual_[1] = residual_[1];
  }

  // After Load. With barriers; late, the sums are there after the next one.
  __device__ __forceinline__ void Run() {
    float sum = 0;
    int pending = -1;
    while (chunk_ < chunks_) {
      sum = 0;
      if (valid_) {
        float v[kLanes];
        AddResidual(v);
#pragma unroll
        for (int j = 0; j < kLanes; ++j) sum = fmaf(v[j], v[j], sum);
        if constexpr (kLate) {
          Store(v, 1.0f);
        } else {
          auto* const keep =
              reinterpret_cast<float4*>(u_ + row_ * a_.in_features + column_);
          keep[0] = {v[0], v[1], v[2], v[3]};
          keep[1] = {v[4], v[5], v[6], v[7]};
        }
      }
      pending = chunk_;
      if (chunk_ + kNormGemmWarps >= chunks_) break;
      GoTo(chunk_ + kNormGemmWarps);
      Load();
      AddUp(pending, sum);
    }
    if constexpr (kLate) __syncthreads();
    if (pending >= 0) AddUp(pending, sum);
    if constexpr (!kLate) {
      __syncthreads();
      for (int i = threadIdx.x / 32; i < chunks_; i += kNormGemmWarps) {
        if (chunk_ != i) GoTo(i);
        if (!valid_) continue;
        const auto* const kept = reinterpret_cast<const float4*>(
            u_ + row_ * a_.in_features + column_);
        const float4 low = kept[0], high = kept[1];
        float v[kLanes] = {low.x,  low.y,  low.z,  low.w,
                           high.x, high.y, high.z, high.w};
        Store(v, Scale(i / of_segment_));
      }
      __syncthreads();
    }
  }

  // 1 / sqrt(mean + epsilon) of a row's group.
  __device__ __forceinline__ float Scale(int segment) const {
    const float* const sums = chunk_sums_ + segment * of_segment_;
    float sum = 0;
#pragma unroll 4
    for (int i = 0; i < of_segment_; ++i) sum += sums[i];
    return rsqrtf(fmaf(sum, a_.per_element, a_.epsilon));
  }

 private:
  static constexpr int kLanes = 8;

  __device__ __forceinline__ void GoTo(int chunk) {
    chunk_ = chunk;
    const int segment = chunk / of_segment_;
    const int in_group = (chunk - segment * of_segment_) * kNormGemmChunk +
                         static_cast<int>(threadIdx.x % 32) * kLanes;
    row_ = kLate ? segment : segment / a_.groups;
    column_ = (kLate ? 0 : (segment - row_ * a_.groups) * width_) + in_group;
    valid_ = chunk < chunks_ && in_group < width_;
    if (!valid_) return;
    weight_ = *reinterpret_cast<const uint4*>(
        static_cast<const T*>(a_.norm_weight) + column_);
    x_ = reinterpret_cast<const uint4*>(static_cast<const T*>(a_.x) +
                                        row_ * a_.x_stride + column_);
    const int bytes = a_.residual_f32 ? 4 : static_cast<int>(sizeof(T));
    if (a_.residual != nullptr)
      residual_ = reinterpret_cast<const uint4*>(
          static_cast<const char*>(a_.residual) +
          (row_ * a_.residual_stride + column_) * bytes);
    residual_out_ =
        a_.residual == nullptr || chunk % gridDim.x != blockIdx.x
            ? nullptr
            : reinterpret_cast<uint4*>(
                  static_cast<char*>(a_.residual_out) +
                  (row_ * a_.residual_out_stride + column_) * bytes);
  }
  __device__ __forceinline__ void AddResidual(float (&v)[kLanes]) const {
    UnpackEach<T, kLanes>(raw_x_, v);
    if (residual_ == nullptr) return;
    if (a_.residual_f32) {
      const uint4 low = raw_residual_[0], high = raw_residual_[1];
      const float r[kLanes] = {
          __uint_as_float(low.x),  __uint_as_float(low.y),
          __uint_as_float(low.z),  __uint_as_float(low.w),
          __uint_as_float(high.x), __uint_as_float(high.y),
          __uint_as_float(high.z), __uint_as_float(high.w)};
#pragma unroll
      for (int j = 0; j < kLanes; ++j) v[j] += r[j];
      if (residual_out_ == nullptr) return;
      auto* const out = reinterpret_cast<float4*>(residual_out_);
      out[0] = {v[0], v[1], v[2], v[3]};
      out[1] = {v[4], v[5], v[6], v[7]};
    } else {
      float r[kLanes];
      UnpackEach<T, kLanes>(raw_residual_[0], r);
#pragma unroll
      for (int j = 0; j < kLanes; ++j) v[j] += r[j];
      if (residual_out_ != nullptr) *residual_out_ = RoundPack<T, kLanes>(v);
    }
  }
  __device__ __forceinline__ void Store(float (&v)[kLanes], float scale) const {
    float w[kLanes];
    UnpackEach<T, kLanes>(weight_, w);
#pragma unroll
    for (int j = 0; j < kLanes; ++j) v[j] *= kLate ? w[j] : scale * w[j];
    *reinterpret_cast<uint4*>(to_ + row_ * NormGemmRow(a_.in_features) +
                              column_) = RoundPack<T, kLanes>(v);
  }
  __device__ __forceinline__ void AddUp(int chunk, float sum) const {
#pragma unroll
    for (int other = 16; other > 0; other /= 2)
      sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (threadIdx.x % 32 == 0) chunk_sums_[chunk] = sum;
  }

  const NormGemmTensors& a_;
  T* const to_;
  float* const u_;           // (rows, in_features), where not late
  float* const chunk_sums_;  // of squares
  int width_, of_segment_, chunks_;
  int chunk_, row_, column_;
  bool valid_;
  const uint4 *x_ = nullptr, *residual_ = nullptr;
  uint4* residual_out_ = nullptr;  // null where another block writes it
  uint4 weight_ = {}, raw_x_ = {}, raw_residual_[2] = {};
};

// The output of a thread in a round, and what it adds to the product there.
// What no launch writes is loaded apart, before the kernel waits.
template <class T>
class NormGemmEpilogue {
 public:
  __device__ __forceinline__ explicit NormGemmEpilogue(const NormGemmTensors& a,
                                                       int row)
      : a_(a), row_(row) {}

  __device__ __forceinline__ void GoTo(int feature, bool valid) {
    feature_ = valid ? feature : -1;
    state_ = -1;
    if (!valid) return;
    if (a_.bias != nullptr) bias_ = static_cast<const T*>(a_.bias)[feature];
    const int channel = feature - a_.first_channel;
    if (channel < 0 || channel >= a_.channels) return;
    state_ = row_ * (a_.conv_width - 1) * a_.channels + channel;
    if (a_.conv_bias != nullptr)
      conv_bias_ = static_cast<const T*>(a_.conv_bias)[channel];
    const auto* const from =
        static_cast<const T*>(a_.conv_weight) + channel * a_.conv_width;
    if (a_.conv_width == kNormGemmTaps) {
      taps_ = *reinterpret_cast<const uint2*>(from);
    } else {  // the newest last; those before the width are zero
      const int missing = kNormGemmTaps - a_.conv_width;
      Pack<T, kNormGemmTaps> pack;
#pragma unroll
      for (int i = 0; i < kNormGemmTaps; ++i)
        pack.v[i] = i < missing ? FromFloat<T>(0.0f) : from[i - missing];
      taps_ = Bits<uint2>(pack);
    }
  }
  __device__ __forceinline__ void FetchState() {
    EachInput([](T&, const T* from) { FetchL2(from); });
  }
  __device__ __forceinline__ void LoadState() {
    EachInput([](T& to, const T* from) { to = *from; });
  }
  __device__ __forceinline__ bool valid() const { return feature_ >= 0; }
  __device__ __forceinline__ void Store(float sum) {
    T out = FromFloat<T>(sum + ToFloat(bias_));
    if (state_ >= 0) {
      T* const state_out = static_cast<T*>(a_.conv_state_out) + state_;
      float tap[kNormGemmTaps];
      UnpackEach<T, kNormGemmTaps>(taps_, tap);
      float v = fmaf(tap[kNormGemmTaps - 1], ToFloat(out), ToFloat(conv_bias_));
#pragma unroll
      for (int i = 0; i < kNormGemmTaps - 1; ++i) {
        v = fmaf(tap[i], ToFloat(input_[i]), v);
        const int to = i - 1 + a_.conv_width - kNormGemmTaps;
        if (to >= 0) state_out[to * a_.channels] = input_[i];
      }
      state_out[(a_.conv_width - 2) * a_.channels] = out;
      out = FromFloat<T>(SiluFast(v));
    }
    static_cast<T*>(a_.y)[row_ * a_.y_stride + feature_] = out;
  }

 private:
  template <class Body>
  __device__ __forceinline__ void EachInput(Body&& body) {
    if (state_ < 0) return;
#pragma unroll
    for (int i = 0; i < kNormGemmTaps - 1; ++i) {
      const int from = i + a_.conv_width - kNormGemmTaps;
      if (from >= 0)
        body(input_[i], static_cast<const T*>(a_.conv_state) + state_ +
                            from * a_.channels);
    }
  }

  const NormGemmTensors& a_;
  const int row_;
  int feature_ = -1;  // -1 where there is nothing to write
  int state_ = -1;    // of the oldest input; -1: no convolution here
  T bias_ = {}, conv_bias_ = {}, input_[kNormGemmTaps - 1] = {};
  uint2 taps_ = {};  // four of T
};

// kDepth: steps of W under way, 32 bytes each a thread.
template <class T, bool kLate, int kDepth>
__global__ void __launch_bounds__(kNormGemmThreads, 2)
    NormGemmKernel(const NormGemmTensors a) {
  LetNextStart();
  constexpr uint4 kZero = {0, 0, 0, 0};
  extern __shared__ __align__(128) unsigned char shared[];
  __shared__ float partial[2][kNormGemmWarps][kNormGemmRows][kNormGemmTile];
  __shared__ float chunk_sums[kNormGemmRows * kNormGemmMostChunks];
  uint4* const ring = reinterpret_cast<uint4*>(shared) + threadIdx.x;
  T* const rows =
      reinterpret_cast<T*>(shared + size_t{kNormGemmThreads} * 32 * kDepth);
  const int stride = NormGemmRow(a.in_features);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int g = lane / 4, t = lane % 4;
  const int split = a.split, teams = kNormGemmWarps / split;
  const int team = warp / split, member = warp - team * split;
  const int begin =
      static_cast<int>(int64_t{a.out_features} * blockIdx.x / gridDim.x);
  const int end =
      static_cast<int>(int64_t{a.out_features} * (blockIdx.x + 1) / gridDim.x);
  const int tiles = (end - begin + kNormGemmTile - 1) / kNormGemmTile;
  const int rounds = (tiles + teams - 1) / teams;
  const int stride_k = split * kNormGemmStep;
  const int steps = (a.in_features + stride_k - 1) / stride_k;  // of a round
  const int first_k = member * kNormGemmStep + t * 8;

  // W, kDepth steps ahead: each thread fetches what it will read itself, so
  // that nobody waits for others. Features beyond the last are the last: the
  // same bytes, no more traffic.
  const T* ahead = nullptr;
  int ahead_step = 0, ahead_tile = team;
  const auto go_ahead = [&] {
    const int f = min(begin + ahead_tile * kNormGemmTile + g, end - 1);
    ahead = static_cast<const T*>(a.weight) + int64_t{f} * a.in_features;
  };
  go_ahead();
  const uint32_t ring_address = SharedAddress(ring);
  const auto fetch_w = [&](int slot) {
    if (ahead_tile < tiles) {
      const int k = first_k + ahead_step * stride_k;
      const uint32_t to = ring_address + slot * (32 * kNormGemmThreads);
      CopyAsync16(to, ahead + k, k < a.in_features);
      CopyAsync16(to + 16 * kNormGemmThreads, ahead + k + 32,
                  k + 32 < a.in_features);
      if (++ahead_step == steps) {
        ahead_step = 0;
        ahead_tile += teams;
        go_ahead();
      }
    }
    CommitCopies();
  };
#pragma unroll 1
  for (int i = 0; i < kDepth; ++i) fetch_w(i);

  const int of_team = a.rows * kNormGemmTile;
  const int out_team = static_cast<int>(threadIdx.x) / of_team;
  const int out = static_cast<int>(threadIdx.x) - out_team * of_team;
  NormGemmEpilogue<T> epilogue(a, out / kNormGemmTile);
  const auto go_to = [&](int round) {
    const int feature = begin + (round * teams + out_team) * kNormGemmTile +
                        out % kNormGemmTile;
    epilogue.GoTo(feature, out_team < teams && feature < end);
  };
  go_to(0);
  epilogue.FetchState();
  NormRows<T, kLate> norm(
      a, rows, reinterpret_cast<float*>(rows + size_t{1} * a.rows * stride),
      chunk_sums);
  WaitForPrevious();
  norm.Load();
  epilogue.LoadState();
  norm.Run();

  int slot = 0;
  float scale = 1.0f;
  for (int round = 0; round < rounds; ++round) {
    float sums[2][4] = {};
    for (int step = 0; step < steps; ++step) {
      const int k = first_k + step * stride_k;
      const auto x_at = [&](int at) {
        return g < a.rows && at < a.in_features
                   ? *reinterpret_cast<const uint4*>(rows + g * stride + at)
                   : kZero;
      };
      const uint4 x0 = x_at(k), x1 = x_at(k + 32);
      WaitCopies<kDepth - 1>();
      const uint4 w0 = ring[slot * 2 * kNormGemmThreads];
      const uint4 w1 = ring[(slot * 2 + 1) * kNormGemmThreads];
      Mma<T>(sums[0], {x0.x, 0, x0.y, 0}, w0.x, w0.y);
      Mma<T>(sums[1], {x0.z, 0, x0.w, 0}, w0.z, w0.w);
      Mma<T>(sums[0], {x1.x, 0, x1.y, 0}, w1.x, w1.y);
      Mma<T>(sums[1], {x1.z, 0, x1.w, 0}, w1.z, w1.w);
      fetch_w(slot);
      slot = slot + 1 == kDepth ? 0 : slot + 1;
    }

    // Row g, features 2t and 2t + 1. Two buffers, so that one barrier a round
    // is enough.
    auto& buffer = partial[round % 2];
    if (g < a.rows)
      *reinterpret_cast<float2*>(&buffer[warp][g][2 * t]) = {
          sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]};
    __syncthreads();
    if (epilogue.valid()) {
      if (kLate && round == 0) scale = norm.Scale(out / kNormGemmTile);
      float sum = 0;
#pragma unroll 4
      for (int i = 0; i < split; ++i)
        sum += buffer[out_team * split + i][out / kNormGemmTile]
                     [out % kNormGemmTile];
      epilogue.Store(kLate ? sum * scale : sum);
    }
    if (round + 1 < rounds) {
      go_to(round + 1);
      epilogue.LoadState();
    }
  }
}

// How many warps share K, for the fewest steps of a warp.
inline int NormGemmSplit(int rows, int in_features, int out_features,
                         int blocks) {
  const int tiles = ((out_features + blocks - 1) / blocks + kNormGemmTile - 1) /
                    kNormGemmTile;
  int best = 0, best_cost = 0;
  for (int split = kNormGemmWarps; split >= 1; split /= 2) {
    const int teams = kNormGemmWarps / split;
    if (teams * rows * kNormGemmTile > kNormGemmThreads) break;
    const int rounds = (tiles + teams - 1) / teams;
    const int steps =
        (in_features + split * kNormGemmStep - 1) / (split * kNormGemmStep);
    const int cost = rounds * (steps + 1);
    if (best == 0 || cost < best_cost) {
      best = split;
      best_cost = cost;
    }
  }
  return best;
}

}  // namespace seqmark
