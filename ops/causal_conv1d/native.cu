// SPDX-License-Identifier: Apache-2.0
//
// Causal convolution on a GPU: one pass over memory, no shared memory and no
// barriers. Memory limits it; the design keeps enough of it in flight.
//
// A thread owns one 16-byte pack of channels and walks a run of tokens, its
// weights and partial sums in f32 registers. When token t arrives it completes
// y[t] and is added into the sums of the next three outputs, so that no input
// is kept or unpacked twice. Loads run kAhead tokens in front: a multiprocessor
// that holds 512 threads has 48 KB in flight, against the 12 KB of reads that
// 4.3 TB/s of copying at 700 ns needs.
//
// Neighbouring threads own neighbouring packs, then neighbouring runs, so that
// blocks are full at any number of channels. A run reads the W-1 tokens before
// it again. Runs are as long as whole waves of threads allow, up to kLongestRun
// tokens: 3/128 of the reads twice; where runs are short the call fits in L2.
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
constexpr int kAhead = 6;  // tokens; 7 would spill at 128 registers
constexpr int kShortestRun = 4;
constexpr int kLongestRun = 128;

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
    Pack<T, kPack> pack;
    memcpy(&pack, &words, sizeof(pack));
#pragma unroll
    for (int i = 0; i < kPack; ++i) v[i] = ToFloat(pack.v[i]);
  }
  __device__ __forceinline__ Words<T, kPack> Rounded() const {
    Pack<T, kPack> pack;
#pragma unroll
    for (int i = 0; i < kPack; ++i) pack.v[i] = FromFloat<T>(v[i]);
    Words<T, kPack> words;
    memcpy(&words, &pack, sizeof(pack));
    return words;
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

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    CausalConv1dKernel(const ConvArgs a) {
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

  // sum[i][k]: what is known of the output k tokens on.
  float sum[kPack][kTaps - 1];
#pragma unroll
  for (int i = 0; i < kPack; ++i)
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k) sum[i][k] = filter.bias.v[i];
  // Adds one input; what it completes is the sum of its own output.
  const auto add = [&](int i, float value) {
    const float complete = fmaf(filter.tap[i][kTaps - 1], value, sum[i][0]);
#pragma unroll
    for (int k = 0; k < kTaps - 1; ++k)
      sum[i][k] = fmaf(filter.tap[i][kTaps - 2 - k], value,
                       k + 1 < kTaps - 1 ? sum[i][k + 1] : filter.bias.v[i]);
    return complete;
  };

#pragma unroll
  for (int j = 0; j < kTaps - 1; ++j) {
    const Floats<T, kPack> input(halo[j]);
#pragma unroll
    for (int i = 0; i < kPack; ++i) add(i, input.v[i]);
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
      Floats<T, kPack> value(words);
#pragma unroll
      for (int i = 0; i < kPack; ++i) value.v[i] = add(i, value.v[i]);
      if (a.silu) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) value.v[i] = SiluFast(value.v[i]);
      }
      StoreWords<T, kPack>(y, value.Rounded());
      Advance(y, a.channels);
      store_state(t, words);
    }
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

template <class T, int kPack>
absl::StatusOr<Launch> PlanPack(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a) {
  auto* const kernel = CausalConv1dKernel<T, kPack>;
  int device = 0, multiprocessors = 0, blocks = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, kernel, kThreads, 0));
  // As many runs of equal length as fill whole waves of resident threads.
  const auto divide_up = [](int64_t n, int64_t d) { return (n + d - 1) / d; };
  const int64_t resident =
      int64_t{multiprocessors} * std::max(blocks, 1) * kThreads;
  const int64_t packs = p.channels / kPack;
  const int64_t columns = p.batch * packs;
  const int64_t waves = divide_up(columns * p.seqlen, resident * kLongestRun);
  const int64_t fit = std::max<int64_t>(resident * waves / columns, 1);
  const int64_t run =
      std::clamp<int64_t>(divide_up(p.seqlen, fit), kShortestRun, kLongestRun);
  const int64_t runs = divide_up(p.seqlen, run);
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
  const auto grid = static_cast<unsigned>(divide_up(threads, kThreads));
  if constexpr (kPack * sizeof(T) <= 4)
    if (p.seqlen == 1)
      return [args, grid](Stream stream) {
        return LaunchDependent(StepKernel<T, kPack>, grid, kThreads, 0,
                               AsCudaStream(stream), "StepKernel", args);
      };
  return [args, grid, kernel](Stream stream) {
    kernel<<<grid, kThreads, 0, AsCudaStream(stream)>>>(args);
    return LaunchStatus("CausalConv1dKernel");
  };
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
