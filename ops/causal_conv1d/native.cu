// SPDX-License-Identifier: Apache-2.0
//
// Causal convolution on a GPU: which packs the kernels of conv_kernel.cuh take.
#include "fixtures/op_fixture.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/causal_conv1d/conv_kernel.cuh"
#include "ops/causal_conv1d/native_cuda.h"

namespace seqmark {
namespace {

using namespace conv;

// Whether packs of so many bytes divide the channels, the strides of x and
// every address.
bool Fits(const CausalConv1d::Problem& p, const CausalConv1d::Args& a,
          int64_t pack_bytes) {
  const int64_t element = SizeOf(p.dtype);
  bool fits = true;
  for (int64_t elements : {p.channels, a.x.strides[0], a.x.strides[1]})
    fits &= elements * element % pack_bytes == 0;
  for (const Tensor* t :
       {&a.x, &a.weight, &a.bias, &a.initial_state, &a.y, &a.final_state})
    fits &= reinterpret_cast<uintptr_t>(t->data) % pack_bytes == 0;
  return fits;
}

// Bytes of x a multiprocessor up to which packs of 4 bytes are ahead of 8: six
// waves of blocks, or seven. README.md has what was measured.
constexpr int64_t kNarrowBytes = 512 * 1024;

int64_t DivideUp(int64_t n, int64_t d) { return (n + d - 1) / d; }

template <class T, int kPack>
absl::StatusOr<Launch> PlanPack(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a) {
  const int64_t packs = p.channels / kPack;
  const int64_t columns = DivideUp(packs, 32);
  const int64_t tiles = DivideUp(p.seqlen, kTileTokens<T, kPack>);
  const int64_t blocks = p.batch * columns * tiles;
  if (p.seqlen > INT32_MAX / 2 || blocks > INT32_MAX ||
      p.batch * p.width * p.channels > INT32_MAX)
    return absl::UnimplementedError(
        absl::StrCat("needs seqlen < 2^30, batch * width * channels and ",
                     blocks, " blocks < 2^31"));
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
                         .columns = Divisor(static_cast<uint32_t>(columns)),
                         .tiles = Divisor(static_cast<uint32_t>(tiles)),
                         .threads = static_cast<unsigned>(p.batch * packs),
                         .silu = p.silu};
  if constexpr (sizeof(T) * kPack <= 4)
    if (p.seqlen == 1)
      return [args, grid = static_cast<unsigned>(
                        DivideUp(args.threads, kConvThreads))](Stream stream) {
        return LaunchDependent(StepKernel<T, kPack>, grid, kConvThreads, 0,
                               AsCudaStream(stream), "StepKernel", args);
      };
  return [args, grid = static_cast<unsigned>(blocks)](Stream stream) {
    TileKernel<T, kPack><<<grid, kConvThreads, 0, AsCudaStream(stream)>>>(args);
    return LaunchStatus("causal_conv1d TileKernel");
  };
}

absl::StatusOr<Launch> Plan(const CausalConv1d::Problem& p,
                            const CausalConv1d::Args& a, Device&) {
  int device = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const int64_t element = SizeOf(p.dtype);
  const int64_t bytes = p.batch * p.seqlen * p.channels * element;
  if (bytes > multiprocessors * kNarrowBytes && Fits(p, a, 8))
    return PlanConv(p, a, 8);
  return PlanConv(p, a, Fits(p, a, 4) ? 4 : element);
}

const bool registered = AddProvider<CausalConv1d>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace

absl::StatusOr<Launch> PlanConv(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a,
                                int64_t pack_bytes) {
  if (p.width < CausalConv1d::kMinWidth || p.width > CausalConv1d::kMaxWidth)
    return absl::UnimplementedError(
        absl::StrCat("width ", p.width, " is not in 2..4"));
  if (!Fits(p, a, pack_bytes))
    return absl::UnimplementedError(
        absl::StrCat("needs rows that begin at whole ", pack_bytes, " bytes"));
  Launch launch;
  const absl::Status status =
      DispatchCudaDType(p.dtype, [&](auto tag) -> absl::Status {
        using T = decltype(tag);
        constexpr int kElement = sizeof(T);
        const auto plan = pack_bytes == 8   ? PlanPack<T, 8 / kElement>
                          : pack_bytes == 4 ? PlanPack<T, 4 / kElement>
                                            : PlanPack<T, 1>;
        auto planned = plan(p, a);
        if (planned.ok()) launch = *std::move(planned);
        return planned.status();
      });
  if (!status.ok()) return status;
  return launch;
}

}  // namespace seqmark
