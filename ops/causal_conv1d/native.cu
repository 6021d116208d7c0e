// SPDX-License-Identifier: Apache-2.0
//
// Causal convolution on a GPU: which kernel of conv_kernel.cuh, and in which
// runs.
#include <algorithm>

#include "fixtures/op_fixture.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/causal_conv1d/conv_kernel.cuh"
#include "ops/causal_conv1d/native_cuda.h"

namespace seqmark {
namespace {

using namespace conv;

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

constexpr int kShortestRun = 4;  // tokens
constexpr int kShortRun = 16;
constexpr int kLongestRun = 128;

// A kernel, and whether its runs are short; else they are as long as whole
// waves allow.
struct Way {
  ConvKernel kernel;
  bool short_runs;
};

// `share`: tokens for each of the threads that run at once. README.md has what
// was measured.
Way ByWork(int64_t share) {
  if (share < 36) return {ConvKernel::kWalk, false};
  if (share < 64) return {ConvKernel::kRing, false};  // one wave
  if (share < 176) return {ConvKernel::kWalk, true};
  return {ConvKernel::kRing, true};
}

// Tokens of a run, so that all of a sequence's are as equal as they can be;
// `resident` threads run at once.
int64_t Run(const CausalConv1d::Problem& p, bool short_runs, int64_t columns,
            int64_t resident) {
  if (short_runs) return DivideUp(p.seqlen, DivideUp(p.seqlen, kShortRun));
  const int64_t waves = DivideUp(columns * p.seqlen, resident * kLongestRun);
  const int64_t fit = std::max<int64_t>(resident * waves / columns, 1);
  return std::clamp<int64_t>(DivideUp(p.seqlen, fit), kShortestRun,
                             kLongestRun);
}

// Packs of 8 bytes of T where those of `a` are 16.
template <class T>
Launch PlanTile(ConvArgs args, int64_t batch) {
  constexpr int kPack = 8 / sizeof(T);
  constexpr int kTokens = 8;
  args.packs = args.channels / kPack;
  const int64_t columns = DivideUp(args.packs, 32);
  const int64_t tiles = DivideUp(args.seqlen, kTokens * (kConvThreads / 32));
  args.columns = Divisor(static_cast<uint32_t>(columns));
  args.tiles = Divisor(static_cast<uint32_t>(tiles));
  return [args, grid = static_cast<unsigned>(batch * columns * tiles)](
             Stream stream) {
    TileKernel<T, kPack, kTokens, 8>
        <<<grid, kConvThreads, 0, AsCudaStream(stream)>>>(args);
    return LaunchStatus("causal_conv1d TileKernel");
  };
}

template <class T, int kPack>
absl::StatusOr<Launch> PlanPack(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a, ConvKernel which) {
  constexpr bool kWhole = kPack == kPackSize<T>;
  const int64_t packs = p.channels / kPack;
  const int64_t columns = p.batch * packs;
  int device = 0, multiprocessors = 0, blocks = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  Way way = {which, which == ConvKernel::kRing};
  if (which == ConvKernel::kByWork)
    way = kWhole && p.seqlen >= kShortRun
              ? ByWork(columns * p.seqlen /
                       (int64_t{multiprocessors} * kConvBlocks * kConvThreads))
              : Way{ConvKernel::kWalk, false};
  if (way.kernel != ConvKernel::kWalk && (!kWhole || p.seqlen < p.width - 1))
    return absl::UnimplementedError(
        "needs packs of 16 bytes and width - 1 tokens");
  void (*kernel)(ConvArgs) = WalkKernel<T, kPack>;
  if constexpr (kWhole)
    if (way.kernel == ConvKernel::kRing) kernel = RingKernel<T>;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, kernel, kConvThreads, 0));
  const int64_t run =
      Run(p, way.short_runs, columns,
          int64_t{multiprocessors} * std::max(blocks, 1) * kConvThreads);
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
  const auto grid = static_cast<unsigned>(DivideUp(threads, kConvThreads));
  if constexpr (kPack * sizeof(T) <= 4)
    if (p.seqlen == 1)
      return [args, grid](Stream stream) {
        return LaunchDependent(StepKernel<T, kPack>, grid, kConvThreads, 0,
                               AsCudaStream(stream), "StepKernel", args);
      };
  if constexpr (kWhole)
    if (way.kernel == ConvKernel::kTile) return PlanTile<T>(args, p.batch);
  return [args, grid, kernel](Stream stream) {
    kernel<<<grid, kConvThreads, 0, AsCudaStream(stream)>>>(args);
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
