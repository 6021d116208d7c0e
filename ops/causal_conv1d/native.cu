// SPDX-License-Identifier: Apache-2.0
//
// Causal convolution on a GPU: one pass over memory, no barriers. Memory limits
// it; README.md has what was tried.
//
// A thread owns one 16-byte pack of channels and a short run of tokens, and
// neighbouring threads neighbouring packs, then neighbouring runs: all that is
// under way at a time lies close together, and the W-1 tokens that a run reads
// of the run before are in the caches. When a token has come it completes its
// own output and is added into the sums of the next three, so that no input is
// kept or unpacked twice.
//
// RingKernel, where there is enough for every multiprocessor: 9 to 16 tokens a
// thread, kAhead of them on their way by cp.async into a ring in shared memory
// that each thread fills for itself, which leaves the registers to the filter.
// BlockKernel, everywhere else (few tokens, packs below 16 bytes): all of a run
// of 2, 4 or 8 tokens is asked for at once, into registers.
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

namespace seqmark {
namespace {

constexpr int kTaps = CausalConv1d::kMaxWidth;
constexpr int kThreads = 128;
constexpr int kBlocksPerMultiprocessor = 4;
// Tokens of a run.
constexpr int kMostInBlock = 8;  // 9 spill at 128 registers
constexpr int kMostInRing = 16;
constexpr int kAhead = 12;

struct ConvArgs {
  const void* x;
  const void* weight;
  const void* bias;           // null without
  const void* initial_state;  // null without
  void* y;
  void* final_state;  // null without
  int64_t x_batch_stride;
  int64_t x_token_stride;
  int batch;
  int seqlen;
  int channels;
  int width;
  int packs;  // a token
  // Of RingKernel: tokens.
  int run;
  // Of BlockKernel: a block's packs are 1 << wide_bits; blocks a token, and
  // blocks a sequence.
  int wide_bits;
  unsigned wide_blocks, long_blocks;
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

// 16 bytes into shared memory, or zeros; one group each.
__device__ __forceinline__ void CopyAhead(uint4* to, const void* from,
                                          bool there) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
      "cp.async.commit_group;" ::"r"(
          static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(there ? 16 : 0)
      : "memory");
}

// For packs of 16 bytes and sequences longer than the state.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    RingKernel(const ConvArgs a) {
  constexpr int kPack = kPackSize<T>;
  constexpr int kHalo = kTaps - 1;
  __shared__ uint4 ring[kAhead][kThreads];
  const unsigned id = blockIdx.x * kThreads + threadIdx.x;
  const unsigned runs = (a.seqlen + a.run - 1) / a.run;
  const int channel = static_cast<int>(id % a.packs) * kPack;
  const unsigned rest = id / a.packs;
  const int first = static_cast<int>(rest % runs) * a.run;
  const int64_t batch = rest / runs;
  if (batch >= a.batch) return;
  const int last = min(first + a.run, a.seqlen);  // exclusive
  const int before = a.width - 1;
  const int64_t state = batch * before * a.channels + channel;

  // A slot is asked for again as soon as its thread has read it.
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
  for (int i = 0; i < kAhead; ++i) {
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
    asm volatile("cp.async.wait_group %0;" ::"n"(kAhead - 1) : "memory");
    const uint4 words = ring[slot][threadIdx.x];
    ask(slot);
    slot = slot + 1 == kAhead ? 0 : slot + 1;
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

template <class T, int kPack, int kTokens>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    BlockKernel(const ConvArgs a) {
  const unsigned wide = blockIdx.x % a.wide_blocks;
  const unsigned rest = blockIdx.x / a.wide_blocks;
  const int64_t batch = rest / a.long_blocks;
  const int pack =
      (wide << a.wide_bits) + (threadIdx.x & ((1 << a.wide_bits) - 1));
  const int run = rest % a.long_blocks * (kThreads >> a.wide_bits) +
                  (threadIdx.x >> a.wide_bits);
  const int first = run * kTokens;
  if (pack >= a.packs || first >= a.seqlen) return;
  const int channel = pack * kPack;
  const int before = a.width - 1;
  const int64_t state = batch * before * a.channels + channel;

  // The kTaps - 1 inputs before the run (those older than the width meet taps
  // of zero), then the run: all loads before any use.
  constexpr int kHalo = kTaps - 1;
  Words<T, kPack> input[kHalo + kTokens] = {};
  const T* x = static_cast<const T*>(a.x) + batch * a.x_batch_stride +
               (first - kHalo) * a.x_token_stride + channel;
#pragma unroll
  for (int i = 0; i < kHalo + kTokens; ++i) {
    const int t = first - kHalo + i;
    if (t >= 0 && t < a.seqlen) {
      input[i] = LoadWords<T, kPack>(x);
    } else if (i < kHalo && a.initial_state != nullptr && t >= -before) {
      input[i] = LoadWords<T, kPack>(static_cast<const T*>(a.initial_state) +
                                     state + (before + t) * a.channels);
    }
    Advance(x, a.x_token_stride);
  }
  // The last W - 1 of initial state and x, by the run that they belong to; what
  // is before the first token belongs to the first run.
  if (a.final_state != nullptr && first + kTokens > a.seqlen - before) {
#pragma unroll
    for (int i = 0; i < kHalo + kTokens; ++i) {
      const int t = first - kHalo + i;
      const int s = t - (a.seqlen - before);
      if (s >= 0 && t < a.seqlen && (t >= first || first == 0))
        StoreWords<T, kPack>(
            static_cast<T*>(a.final_state) + state + s * a.channels, input[i]);
    }
  }
  const Filter<T, kPack> filter(a, channel);

  Sums<T, kPack> sums(filter);
  T* y =
      static_cast<T*>(a.y) + (batch * a.seqlen + first) * a.channels + channel;
#pragma unroll
  for (int i = 0; i < kHalo; ++i) sums.Add(filter, input[i]);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    const auto value = sums.Add(filter, input[kHalo + i]);
    if (first + i < a.seqlen) StoreOutput(y, value, a.silu);
    Advance(y, a.channels);
  }
}

// One token: seqlen 1, no runs.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads) StepKernel(const ConvArgs a) {
  LetNextStart();
  WaitForPrevious();
  const unsigned id = blockIdx.x * kThreads + threadIdx.x;
  const int64_t batch = id / a.packs;
  if (batch >= a.batch) return;
  const int channel = static_cast<int>(id % a.packs) * kPack;
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

template <class T, int kPack, int kTokens>
absl::StatusOr<Launch> PlanRuns(const CausalConv1d::Problem& p, ConvArgs args) {
  // A warp's width of packs, less where many of its lanes would have none.
  args.wide_bits = 5;
  while (DivideUp(args.packs, 1 << args.wide_bits) * 8 << args.wide_bits >
         int64_t{args.packs} * 9)
    --args.wide_bits;
  const int64_t wide = DivideUp(args.packs, 1 << args.wide_bits);
  const int64_t runs =
      DivideUp(p.seqlen, int64_t{kThreads >> args.wide_bits} * kTokens);
  if (wide * runs * p.batch > INT32_MAX)
    return absl::UnimplementedError(
        absl::StrCat("needs fewer than 2^31 blocks of ", kTokens, " tokens"));
  args.wide_blocks = static_cast<unsigned>(wide);
  args.long_blocks = static_cast<unsigned>(runs);
  return [args,
          grid = static_cast<unsigned>(wide * runs * p.batch)](Stream stream) {
    BlockKernel<T, kPack, kTokens>
        <<<grid, kThreads, 0, AsCudaStream(stream)>>>(args);
    return LaunchStatus("conv BlockKernel");
  };
}

template <class T, int kPack>
absl::StatusOr<Launch> PlanPack(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a) {
  if (p.seqlen > INT32_MAX / 2 || p.batch * p.width * p.channels > INT32_MAX)
    return absl::UnimplementedError(
        "needs seqlen < 2^30 and batch * width * channels < 2^31");
  const int64_t packs = p.channels / kPack;
  const ConvArgs args = {.x = a.x.data,
                         .weight = a.weight.data,
                         .bias = a.bias.data,
                         .initial_state = a.initial_state.data,
                         .y = a.y.data,
                         .final_state = a.final_state.data,
                         .x_batch_stride = a.x.strides[0],
                         .x_token_stride = a.x.strides[1],
                         .batch = static_cast<int>(p.batch),
                         .seqlen = static_cast<int>(p.seqlen),
                         .channels = static_cast<int>(p.channels),
                         .width = static_cast<int>(p.width),
                         .packs = static_cast<int>(packs),
                         .silu = p.silu};
  if constexpr (kPack * sizeof(T) <= 4)
    if (p.seqlen == 1)
      return [args, threads = p.batch * packs](Stream stream) {
        return LaunchDependent(StepKernel<T, kPack>,
                               DivideUp(threads, kThreads), kThreads, 0,
                               AsCudaStream(stream), "StepKernel", args);
      };
  // The shortest runs that all multiprocessors hold at once, up to a length.
  int device = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const int64_t tokens =
      DivideUp(p.batch * p.seqlen * packs,
               int64_t{multiprocessors} * kThreads * kBlocksPerMultiprocessor);
  if constexpr (kPack == kPackSize<T>)
    if (tokens > kMostInBlock && p.seqlen >= kMostInRing) {
      ConvArgs ring = args;
      ring.run = static_cast<int>(std::min<int64_t>(tokens, kMostInRing));
      const int64_t threads = p.batch * DivideUp(p.seqlen, ring.run) * packs;
      if (threads < INT32_MAX)
        return [ring, grid = static_cast<unsigned>(
                          DivideUp(threads, kThreads))](Stream stream) {
          RingKernel<T><<<grid, kThreads, 0, AsCudaStream(stream)>>>(ring);
          return LaunchStatus("conv RingKernel");
        };
    }
  if (tokens <= 2) return PlanRuns<T, kPack, 2>(p, args);
  if (tokens <= 4) return PlanRuns<T, kPack, 4>(p, args);
  return PlanRuns<T, kPack, kMostInBlock>(p, args);
}

absl::StatusOr<Launch> Plan(const CausalConv1d::Problem& p,
                            const CausalConv1d::Args& a, Device&) {
  if (p.width < CausalConv1d::kMinWidth || p.width > CausalConv1d::kMaxWidth)
    return absl::UnimplementedError(
        absl::StrCat("width ", p.width, " is not in 2..4"));
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    return DispatchPack<T>(a, p.channels, p.seqlen == 1, [&](auto pack) {
      auto planned = PlanPack<T, decltype(pack)::value>(p, a);
      if (planned.ok()) launch = *std::move(planned);
      return planned.status();
    });
  });
  if (!status.ok()) return status;
  return launch;
}

const bool registered = AddProvider<CausalConv1d>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
