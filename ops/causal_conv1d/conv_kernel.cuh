// SPDX-License-Identifier: Apache-2.0
//
// Kernels of the causal convolution on a GPU: one pass over memory, no
// barriers. Memory limits it; the design keeps enough of it in flight.
// README.md has what was tried.
//
// A thread owns one pack of channels over a run of tokens, its weights and
// partial sums in f32 registers. When token t arrives it completes y[t] and is
// added into the sums of the next three outputs, so that no input is kept or
// unpacked twice. A run reads the W-1 tokens before it again.
//
// WalkKernel: packs of 16 bytes; neighbouring threads own neighbouring packs,
// then neighbouring runs, so that blocks are full at any number of channels.
// Loads run kAhead tokens in front, in registers: a multiprocessor that holds
// 512 threads has 48 KB in flight, against the 12 KB of reads that 4.3 TB/s of
// copying at 700 ns needs.
//
// RingKernel: the same, but loads run kRingAhead tokens in front by cp.async,
// in a ring in shared memory that each thread fills for itself, which leaves
// the registers to the filter.
//
// TileKernel: no loop. A thread asks for all of its few tokens at once, and
// blocks are small and end.
//
// Short runs keep all that is under way at a time close together in memory; the
// tokens that they read again are in L2. Long ones read less again, and end
// together.
//
// One token is the step of decoding, and latency is all there is: a small
// kernel, a thread for each 4 bytes of channels, all loads before any use. A
// thread reads its state before it writes it, so that both may be the same.
#pragma once

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/pack_cuda.h"
#include "ops/causal_conv1d/causal_conv1d.h"

namespace seqmark::conv {

inline constexpr int kTaps = CausalConv1d::kMaxWidth;
inline constexpr int kConvThreads = 128;
inline constexpr int kConvBlocks = 4;  // a multiprocessor
inline constexpr int kAhead = 6;       // tokens; 7 would spill at 128 registers
inline constexpr int kRingAhead = 12;  // tokens

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
  int packs;  // a token
  int run;    // tokens
  int runs;   // a sequence
  unsigned threads;
  Divisor columns;  // TileKernel's: tiles over a token's packs
  Divisor tiles;    // over a sequence
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

template <class T, int kPack>
__global__ void __launch_bounds__(kConvThreads, kConvBlocks)
    WalkKernel(const ConvArgs a) {
  const unsigned id = blockIdx.x * kConvThreads + threadIdx.x;
  if (id >= a.threads) return;
  const int channel = static_cast<int>(id % a.packs) * kPack;
  const unsigned rest = id / a.packs;
  const int first = static_cast<int>(rest % a.runs) * a.run;
  const int64_t batch = rest / a.runs;
  const int last = min(first + a.run, a.seqlen);  // exclusive

  const T* const x =
      static_cast<const T*>(a.x) + batch * a.x_batch_stride + channel;
  T* y =
      static_cast<T*>(a.y) + (batch * a.seqlen + first) * a.channels + channel;
  const int before = a.width - 1;
  const int state = static_cast<int>(batch) * before * a.channels + channel;
  // Inputs of this time and later are the final state; a token that an
  // earlier run owns is not stored again.
  const int final_from = a.final_state == nullptr ? a.seqlen
                         : first == 0             ? a.seqlen - before
                                      : max(a.seqlen - before, first);
  const auto store_state = [&](int t, Words<T, kPack> words) {
    if (t >= final_from)
      StoreWords<T, kPack>(static_cast<T*>(a.final_state) + state +
                               (t - (a.seqlen - before)) * a.channels,
                           words);
  };

  // The kTaps - 1 inputs before the run (those older than the width meet taps
  // of zero), then the first kAhead of it: all loads before any use.
  Words<T, kPack> halo[kTaps - 1] = {};
#pragma unroll
  for (int i = 0; i < kTaps - 1; ++i) {
    const int t = first + i - (kTaps - 1);
    if (t >= 0) {
      halo[i] = LoadWords<T, kPack>(x + t * a.x_token_stride);
    } else if (a.initial_state != nullptr && t >= -before) {
      halo[i] = LoadWords<T, kPack>(static_cast<const T*>(a.initial_state) +
                                    state + (before + t) * a.channels);
    }
  }
  Words<T, kPack> ring[kAhead] = {};
  const T* ahead = x + first * a.x_token_stride;
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (first + i < last) ring[i] = LoadWords<T, kPack>(ahead);
    Advance(ahead, a.x_token_stride);
  }
  const Filter<T, kPack> filter(a, channel);

  Sums<T, kPack> sums(filter);
#pragma unroll
  for (int j = 0; j < kTaps - 1; ++j) {
    sums.Add(filter, halo[j]);
    // Only what is before the first token: elsewhere final_from >= first.
    const int t = first + j - (kTaps - 1);
    if (t >= -before) store_state(t, halo[j]);
  }

  for (int begin = first; begin < last; begin += kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int t = begin + j;
      if (t >= last) return;
      const Words<T, kPack> words = ring[j];
      if (t + kAhead < last) ring[j] = LoadWords<T, kPack>(ahead);
      Advance(ahead, a.x_token_stride);
      StoreOutput(y, sums.Add(filter, words), a.silu);
      Advance(y, a.channels);
      store_state(t, words);
    }
  }
}

// 16 bytes into shared memory, or zeros; one group each, empty ones too.
__device__ __forceinline__ void CopyAhead(uint4* to, const void* from,
                                          bool there) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
      "cp.async.commit_group;" ::"r"(
          static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(there ? 16 : 0)
      : "memory");
}

// Packs of 16 bytes; a sequence is at least as long as its state.
template <class T>
__global__ void __launch_bounds__(kConvThreads, kConvBlocks)
    RingKernel(const ConvArgs a) {
  constexpr int kPack = kPackSize<T>;
  constexpr int kHalo = kTaps - 1;
  __shared__ uint4 ring[kRingAhead][kConvThreads];
  const unsigned id = blockIdx.x * kConvThreads + threadIdx.x;
  if (id >= a.threads) return;
  const int channel = static_cast<int>(id % a.packs) * kPack;
  const unsigned rest = id / a.packs;
  const int first = static_cast<int>(rest % a.runs) * a.run;
  const int64_t batch = rest / a.runs;
  const int last = min(first + a.run, a.seqlen);  // exclusive
  const int before = a.width - 1;
  const int64_t state = batch * before * a.channels + channel;

  // A group of copies for every token, in their order, so that the oldest of
  // kRingAhead has come when at most kRingAhead - 1 have not. Its slot is asked
  // for again as soon as its thread, and no other, has read it.
  const T* x = static_cast<const T*>(a.x) + batch * a.x_batch_stride +
               (first - kHalo) * a.x_token_stride + channel;
  int ahead = first - kHalo;  // the token at x
  const auto ask = [&](int slot) {
    const bool there = ahead >= 0 && ahead < last;
    CopyAhead(&ring[slot][threadIdx.x], there ? x : a.x, there);
    Advance(x, a.x_token_stride);
    ++ahead;
  };
#pragma unroll
  for (int i = 0; i < kRingAhead; ++i) {
    // Inputs older than the width meet taps of zero.
    if (i < kHalo && ahead < 0 && ahead >= -before &&
        a.initial_state != nullptr) {
      CopyAhead(&ring[i][threadIdx.x],
                static_cast<const T*>(a.initial_state) + state +
                    (before + ahead) * a.channels,
                true);
      Advance(x, a.x_token_stride);
      ++ahead;
    } else {
      ask(i);
    }
  }
  const Filter<T, kPack> filter(a, channel);
  Sums<T, kPack> sums(filter);
  int slot = 0;
  const auto take = [&] {
    asm volatile("cp.async.wait_group %0;" ::"n"(kRingAhead - 1) : "memory");
    const uint4 words = ring[slot][threadIdx.x];
    ask(slot);
    slot = slot + 1 == kRingAhead ? 0 : slot + 1;
    return words;
  };
#pragma unroll
  for (int i = 0; i < kHalo; ++i) sums.Add(filter, take());
  const int final_from =
      a.final_state == nullptr ? a.seqlen : a.seqlen - before;
  T* y =
      static_cast<T*>(a.y) + (batch * a.seqlen + first) * a.channels + channel;
  for (int t = first; t < last; ++t) {
    const uint4 words = take();
    StoreOutput(y, sums.Add(filter, words), a.silu);
    Advance(y, a.channels);
    if (t >= final_from)
      StoreWords<T, kPack>(static_cast<T*>(a.final_state) + state +
                               (t - final_from) * a.channels,
                           words);
  }
}

// A block is a tile of 32 packs x its warps' runs of kTokens tokens, and ends
// with it: blocks go over the channels first, then over time. All of a thread's
// tokens are asked for before any is used, and those that two runs of a tile
// read come from L1 once. Packs of 8 bytes leave registers for twice the
// threads. A sequence is at least as long as its state.
template <class T, int kPack, int kTokens, int kBlocks>
__global__ void __launch_bounds__(kConvThreads, kBlocks)
    TileKernel(const ConvArgs a) {
  constexpr int kHalo = kTaps - 1;
  static_assert(kTokens >= kHalo);
  const unsigned of_column = a.columns.Quotient(blockIdx.x);
  const unsigned column = blockIdx.x - of_column * a.columns.divisor();
  const unsigned batch = a.tiles.Quotient(of_column);
  const unsigned tile = of_column - batch * a.tiles.divisor();
  const unsigned pack = column * 32 + threadIdx.x % 32;
  const int first = static_cast<int>(
      (tile * (kConvThreads / 32) + threadIdx.x / 32) * kTokens);
  if (pack >= static_cast<unsigned>(a.packs) || first >= a.seqlen) return;
  const int channel = static_cast<int>(pack) * kPack;
  const int there = a.seqlen - first;  // tokens; beyond kTokens: others'
  const int before = a.width - 1;
  const int64_t state = int64_t{batch} * before * a.channels + channel;

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
    for (int i = 0; i < kTokens; ++i)
      if (i < there && i >= there - before)
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

// One token: seqlen 1, no runs.
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
