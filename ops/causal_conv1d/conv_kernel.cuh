// SPDX-License-Identifier: Apache-2.0
//
// Kernels of the causal convolution on a GPU: one pass over memory, no
// barriers. Memory limits it; the design keeps enough of it in flight.
// README.md has what was tried.
//
// TileKernel: a thread owns one pack of channels over a run of 8 or 16 tokens,
// its weights and partial sums in f32 registers. It asks for all of its tokens
// before it uses any; there is no loop, and blocks are small and end. When
// token t arrives it completes y[t] and is added into the sums of the next
// three outputs, so that no input is kept or unpacked twice. A run reads the
// W-1 tokens before it again, from L1 where its neighbour in the block did.
//
// StepKernel: one token is the step of decoding, and latency is all there is: a
// thread for each 4 bytes of channels, all loads before any use. A thread reads
// its state before it writes it, so that both may be the same.
#pragma once

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/pack_cuda.h"
#include "ops/causal_conv1d/causal_conv1d.h"

namespace seqmark::conv {

inline constexpr int kTaps = CausalConv1d::kMaxWidth;
inline constexpr int kConvThreads = 128;

// Packs of 8 bytes, or of fewer and twice the tokens: 88 or 76 bytes a thread,
// in registers for 8 or 10 blocks a multiprocessor.
template <class T, int kPack>
inline constexpr int kRunTokens = sizeof(T) * kPack == 8 ? 8 : 16;
template <class T, int kPack>
inline constexpr int kRunBlocks = sizeof(T) * kPack == 8 ? 8 : 10;

// A tile: 32 packs x the runs of its block's warps.
template <class T, int kPack>
inline constexpr int kTileTokens = kConvThreads / 32 * kRunTokens<T, kPack>;

struct ConvArgs {
  const void* x;
  const void* weight;
  const void* bias;           // null without
  const void* initial_state;  // null without
  void* y;
  void* final_state;  // null without
  int64_t x_batch_stride;
  int64_t x_token_stride;
  int seqlen;
  int channels;
  int width;
  int packs;         // a token
  Divisor columns;   // tiles over a token's packs
  Divisor tiles;     // over a sequence
  unsigned threads;  // StepKernel's
  bool silu;
};

// Moves a pointer by one token. Opaque, or the unrolled loop keeps a register
// pair for each of its tokens' addresses.
template <class T>
__device__ __forceinline__ void Advance(T*& pointer, int64_t elements) {
  pointer += elements;
  asm("" : "+l"(pointer));
}

template <class T, int kPack>
__device__ __forceinline__ Words<T, kPack> LoadWords(const T* from) {
  __builtin_assume(__isGlobal(from));  // Advance hides where it came from
  return *reinterpret_cast<const Words<T, kPack>*>(from);
}
template <class T, int kPack>
__device__ __forceinline__ void StoreWords(T* to, Words<T, kPack> words) {
  __builtin_assume(__isGlobal(to));
  *reinterpret_cast<Words<T, kPack>*>(to) = words;
}

// The same elements in f32.
template <class T, int kPack>
struct Floats {
  float v[kPack];

  Floats() = default;
  __device__ __forceinline__ explicit Floats(Words<T, kPack> words) {
    Unpack<T, kPack>(words, v);
  }
  __device__ __forceinline__ Words<T, kPack> Rounded() const {
    return RoundPack<T, kPack>(v);
  }
};

// weight (channels, width) and bias (channels) of kPack channels in f32, the
// newest tap last; taps the width does not have are zero.
template <class T, int kPack>
struct Filter {
  float tap[kPack][kTaps];
  Floats<T, kPack> bias;

  __device__ __forceinline__ Filter(const ConvArgs& a, int channel) {
    if (a.width == kTaps) {
      Load<kTaps>(a, channel);
    } else if (a.width == 3) {
      Load<3>(a, channel);
    } else {
      Load<2>(a, channel);
    }
    Words<T, kPack> words = {};
    if (a.bias != nullptr)
      words = LoadWords<T, kPack>(static_cast<const T*>(a.bias) + channel);
    bias = Floats<T, kPack>(words);
  }

 private:
  template <int kWidth>
  __device__ __forceinline__ void Load(const ConvArgs& a, int channel) {
    const T* const from = static_cast<const T*>(a.weight) + channel * kWidth;
    constexpr int kMissing = kTaps - kWidth;
#pragma unroll
    for (int i = 0; i < kPack; ++i)
#pragma unroll
      for (int k = 0; k < kMissing; ++k) tap[i][k] = 0.0f;
#pragma unroll
    for (int part = 0; part < kWidth; ++part) {
      const Floats<T, kPack> taps(LoadWords<T, kPack>(from + part * kPack));
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const int at = part * kPack + j;
        tap[at / kWidth][kMissing + at % kWidth] = taps.v[j];
      }
    }
  }
};

// What is known of the outputs of the next kTaps - 1 tokens.
template <class T, int kPack>
struct Sums {
  float v[kPack][kTaps - 1];

  __device__ __forceinline__ explicit Sums(const Filter<T, kPack>& filter) {
#pragma unroll
    for (int i = 0; i < kPack; ++i)
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k) v[i][k] = filter.bias.v[i];
  }
  // Takes one token's input and returns its output, before the activation.
  __device__ __forceinline__ Floats<T, kPack> Add(
      const Filter<T, kPack>& filter, Words<T, kPack> input) {
    Floats<T, kPack> value(input);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const float in = value.v[i];
      value.v[i] = fmaf(filter.tap[i][kTaps - 1], in, v[i][0]);
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k)
        v[i][k] = fmaf(filter.tap[i][kTaps - 2 - k], in,
                       k + 1 < kTaps - 1 ? v[i][k + 1] : filter.bias.v[i]);
    }
    return value;
  }
};

template <class T, int kPack>
__device__ __forceinline__ void StoreOutput(T* y, Floats<T, kPack> value,
                                            bool silu) {
  if (silu) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) value.v[i] = SiluFast(value.v[i]);
  }
  StoreWords<T, kPack>(y, value.Rounded());
}

// Blocks go over the channels first, then over time.
template <class T, int kPack>
__global__ void __launch_bounds__(kConvThreads, kRunBlocks<T, kPack>)
    TileKernel(const ConvArgs a) {
  constexpr int kHalo = kTaps - 1;
  constexpr int kTokens = kRunTokens<T, kPack>;
  const unsigned of_column = a.columns.Quotient(blockIdx.x);
  const unsigned column = blockIdx.x - of_column * a.columns.divisor();
  const unsigned batch = a.tiles.Quotient(of_column);
  const unsigned tile = of_column - batch * a.tiles.divisor();
  const unsigned pack = column * 32 + threadIdx.x % 32;
  const int first = static_cast<int>(tile * kTileTokens<T, kPack> +
                                     threadIdx.x / 32 * kTokens);
  if (pack >= static_cast<unsigned>(a.packs) || first >= a.seqlen) return;
  const int channel = static_cast<int>(pack) * kPack;
  const int there = a.seqlen - first;  // tokens; beyond kTokens: others'
  const int before = a.width - 1;
  const int state = static_cast<int>(batch) * before * a.channels + channel;

  const T* x = static_cast<const T*>(a.x) + batch * a.x_batch_stride +
               (first - kHalo) * a.x_token_stride + channel;
  Words<T, kPack> input[kHalo + kTokens];
#pragma unroll
  for (int i = 0; i < kHalo + kTokens; ++i) {
    input[i] = {};
    if (i < kHalo ? first > 0 : i - kHalo < there)
      input[i] = LoadWords<T, kPack>(x);
    Advance(x, a.x_token_stride);
  }
  // Inputs older than the width meet taps of zero.
  if (first == 0 && a.initial_state != nullptr) {
#pragma unroll
    for (int i = 0; i < kHalo; ++i)
      if (i >= kHalo - before)
        input[i] =
            LoadWords<T, kPack>(static_cast<const T*>(a.initial_state) + state +
                                (before + i - kHalo) * a.channels);
  }
  const Filter<T, kPack> filter(a, channel);
  if (a.final_state != nullptr && there < kTokens + before) {
    T* const to = static_cast<T*>(a.final_state) + state;
#pragma unroll
    for (int i = -kHalo; i < kTokens; ++i)  // another run stores its own
      if (i < there && i >= there - before && (i >= 0 || first == 0))
        StoreWords<T, kPack>(to + (i - there + before) * a.channels,
                             input[kHalo + i]);
  }
  Sums<T, kPack> sums(filter);
#pragma unroll
  for (int i = 0; i < kHalo; ++i) sums.Add(filter, input[i]);
  T* y = static_cast<T*>(a.y) +
         (int64_t{batch} * a.seqlen + first) * a.channels + channel;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    if (i >= there) return;
    StoreOutput(y, sums.Add(filter, input[kHalo + i]), a.silu);
    Advance(y, a.channels);
  }
}

// One token.
template <class T, int kPack>
__global__ void __launch_bounds__(kConvThreads) StepKernel(const ConvArgs a) {
  LetNextStart();
  WaitForPrevious();
  const unsigned id = blockIdx.x * kConvThreads + threadIdx.x;
  if (id >= a.threads) return;
  const int channel = static_cast<int>(id % a.packs) * kPack;
  const int64_t batch = id / a.packs;
  const int before = a.width - 1;
  const int64_t state = batch * before * a.channels + channel;
  Words<T, kPack> input[kTaps] = {};
  input[kTaps - 1] = LoadWords<T, kPack>(static_cast<const T*>(a.x) +
                                         batch * a.x_batch_stride + channel);
#pragma unroll
  for (int i = 0; i < kTaps - 1; ++i)  // those before the width stay zero
    if (const int s = i + a.width - kTaps; a.initial_state != nullptr && s >= 0)
      input[i] = LoadWords<T, kPack>(static_cast<const T*>(a.initial_state) +
                                     state + s * a.channels);
  const Filter<T, kPack> filter(a, channel);
  Floats<T, kPack> sum = filter.bias;
#pragma unroll
  for (int k = 0; k < kTaps; ++k) {
    const Floats<T, kPack> value(input[k]);
#pragma unroll
    for (int i = 0; i < kPack; ++i)
      sum.v[i] = fmaf(filter.tap[i][k], value.v[i], sum.v[i]);
  }
  if (a.silu) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) sum.v[i] = SiluFast(sum.v[i]);
  }
  StoreWords<T, kPack>(static_cast<T*>(a.y) + batch * a.channels + channel,
                       sum.Rounded());
  if (a.final_state == nullptr) return;
#pragma unroll
  for (int i = 1; i < kTaps; ++i)
    if (const int s = i - 1 + a.width - kTaps; s >= 0)
      StoreWords<T, kPack>(
          static_cast<T*>(a.final_state) + state + s * a.channels, input[i]);
}

}  // namespace seqmark::conv
