// SPDX-License-Identifier: Apache-2.0
//
// Causal convolution on a GPU: one pass over memory, no barriers. Memory limits
// it; the design keeps enough of it in flight. README.md has what was tried.
//
// A thread owns one 16-byte pack of channels and walks a run of tokens, its
// weights and partial sums in f32 registers. When token t arrives it completes
// y[t] and is added into the sums of the next three outputs, so that no input
// is kept or unpacked twice. Neighbouring threads own neighbouring packs, then
// neighbouring runs, so that blocks are full at any number of channels. A run
// reads the W-1 tokens before it again.
//
// WalkKernel: loads run kAhead tokens in front, in registers: a multiprocessor
// that holds 512 threads has 48 KB in flight, against the 12 KB of reads that
// 4.3 TB/s of copying at 700 ns needs. Runs are as long as whole waves of
// threads allow, up to kLongestRun tokens: 3/128 of the reads twice; where runs
// are short the call fits in L2.
//
// RingKernel, for many waves: short runs, so that all that is under way at a
// time lies close together in memory; the tokens that a run reads again are in
// L2. Its loads run kRingAhead tokens in front by cp.async, in a ring in shared
// memory that each thread fills for itself, which leaves the registers to the
// filter. Short runs in a few waves would end too raggedly.
//
// One token is the step of decoding, and latency is all there is: a small
// kernel, a thread for each 4 bytes of channels, all loads before any use. A
// thread reads its state before it writes it, so that both may be the same.
#include <algorithm>

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/causal_conv1d/native_cuda.h"

namespace seqmark {
namespace {

constexpr int kTaps = CausalConv1d::kMaxWidth;
constexpr int kThreads = 128;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kAhead = 6;  // tokens; 7 would spill at 128 registers
constexpr int kShortestRun = 4;
constexpr int kLongestRun = 128;
constexpr int kRingAhead = 12;  // tokens
constexpr int kRingRun = 16;
constexpr int kRingWaves = 10;  // fewer are WalkKernel's

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
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    WalkKernel(const ConvArgs a) {
  const unsigned id = blockIdx.x * kThreads + threadIdx.x;
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
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    RingKernel(const ConvArgs a) {
  constexpr int kPack = kPackSize<T>;
  constexpr int kHalo = kTaps - 1;
  __shared__ uint4 ring[kRingAhead][kThreads];
  const unsigned id = blockIdx.x * kThreads + threadIdx.x;
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

// One token: seqlen 1, no runs.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads) StepKernel(const ConvArgs a) {
  LetNextStart();
  WaitForPrevious();
  const unsigned id = blockIdx.x * kThreads + threadIdx.x;
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

// The widest of kPackSize (but for one token), 4 bytes and one element that
// divides the channels, the strides of x and every address.
template <class T, class Body>
absl::Status DispatchPack(const CausalConv1d::Args& a, int64_t channels,
                          bool one_token, Body&& body) {
  const auto fits = [&](int pack) {
    bool aligned = channels % pack == 0 && a.x.strides[0] % pack == 0 &&
                   a.x.strides[1] % pack == 0;
    for (const Tensor* t :
         {&a.x, &a.weight, &a.bias, &a.initial_state, &a.y, &a.final_state})
      aligned &= reinterpret_cast<uintptr_t>(t->data) % (pack * sizeof(T)) == 0;
    return aligned;
  };
  constexpr int kNarrow = 4 / sizeof(T);
  if (!one_token && fits(kPackSize<T>))
    return body(std::integral_constant<int, kPackSize<T>>());
  if constexpr (kNarrow > 1)
    if (fits(kNarrow)) return body(std::integral_constant<int, kNarrow>());
  return body(std::integral_constant<int, 1>());
}

int64_t DivideUp(int64_t n, int64_t d) { return (n + d - 1) / d; }

// Tokens of a run, so that all of a sequence's runs are as equal as they can
// be: RingKernel's, and WalkKernel's, of which `resident` threads run at once.
int64_t RingRun(const CausalConv1d::Problem& p) {
  return DivideUp(p.seqlen, DivideUp(p.seqlen, kRingRun));
}
int64_t WalkRun(const CausalConv1d::Problem& p, int64_t columns,
                int64_t resident) {
  // As many runs of equal length as fill whole waves of resident threads.
  const int64_t waves = DivideUp(columns * p.seqlen, resident * kLongestRun);
  const int64_t fit = std::max<int64_t>(resident * waves / columns, 1);
  return std::clamp<int64_t>(DivideUp(p.seqlen, fit), kShortestRun,
                             kLongestRun);
}

template <class T, int kPack>
absl::StatusOr<Launch> PlanPack(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a, ConvKernel which) {
  constexpr bool kHasRing = kPack == kPackSize<T>;
  const int64_t packs = p.channels / kPack;
  const int64_t columns = p.batch * packs;
  int device = 0, multiprocessors = 0, blocks = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const int64_t of_wave = int64_t{multiprocessors} * kBlocksPerMultiprocessor *
                          kThreads * kRingRun;  // of RingKernel: packs
  if (which == ConvKernel::kByWork)
    which = kHasRing && p.seqlen >= kRingRun &&
                    columns * p.seqlen >= kRingWaves * of_wave
                ? ConvKernel::kRing
                : ConvKernel::kWalk;
  const bool ring = which == ConvKernel::kRing;
  if (ring && (!kHasRing || p.seqlen < p.width - 1))
    return absl::UnimplementedError(
        "the ring needs packs of 16 bytes and width - 1 tokens");
  void (*kernel)(ConvArgs) = WalkKernel<T, kPack>;
  if constexpr (kHasRing)
    if (ring) kernel = RingKernel<T>;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, kernel, kThreads, 0));
  const int64_t resident =
      int64_t{multiprocessors} * std::max(blocks, 1) * kThreads;
  const int64_t run = ring ? RingRun(p) : WalkRun(p, columns, resident);
  const int64_t runs = DivideUp(p.seqlen, run);
  const int64_t threads = columns * runs;
  if (p.seqlen > INT32_MAX / 2 || threads > INT32_MAX ||
      p.batch * p.width * p.channels > INT32_MAX)
    return absl::UnimplementedError(
        "needs seqlen < 2^30 and batch * width * channels < 2^31");
  const ConvArgs args = {.x = a.x.data,
                         .weight = a.weight.data,
                         .bias = a.bias.data,
                         .initial_state = a.initial_state.data,
                         .y = a.y.data,
                         .final_state = a.final_state.data,
                         .x_batch_stride = a.x.strides[0],
                         .x_token_stride = a.x.strides[1],
                         .seqlen = static_cast<int>(p.seqlen),
                         .channels = static_cast<int>(p.channels),
                         .width = static_cast<int>(p.width),
                         .packs = static_cast<int>(packs),
                         .run = static_cast<int>(run),
                         .runs = static_cast<int>(runs),
                         .threads = static_cast<unsigned>(threads),
                         .silu = p.silu};
  const auto grid = static_cast<unsigned>(DivideUp(threads, kThreads));
  if constexpr (kPack * sizeof(T) <= 4)
    if (p.seqlen == 1)
      return [args, grid](Stream stream) {
        return LaunchDependent(StepKernel<T, kPack>, grid, kThreads, 0,
                               AsCudaStream(stream), "StepKernel", args);
      };
  return [args, grid, kernel](Stream stream) {
    kernel<<<grid, kThreads, 0, AsCudaStream(stream)>>>(args);
    return LaunchStatus("causal_conv1d");
  };
}

absl::StatusOr<Launch> Plan(const CausalConv1d::Problem& p,
                            const CausalConv1d::Args& a, Device&) {
  return PlanConv(p, a, ConvKernel::kByWork);
}

const bool registered = AddProvider<CausalConv1d>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace

absl::StatusOr<Launch> PlanConv(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a, ConvKernel which) {
  if (p.width < CausalConv1d::kMinWidth || p.width > CausalConv1d::kMaxWidth)
    return absl::UnimplementedError(
        absl::StrCat("width ", p.width, " is not in 2..4"));
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    return DispatchPack<T>(a, p.channels, p.seqlen == 1, [&](auto pack) {
      auto planned = PlanPack<T, decltype(pack)::value>(p, a, which);
      if (planned.ok()) launch = *std::move(planned);
      return planned.status();
    });
  });
  if (!status.ok()) return status;
  return launch;
}

}  // namespace seqmark
