// SPDX-License-Identifier: Apache-2.0
//
// Norm, product and convolution of a decode step in one launch on NVIDIA GPUs:
// see ops/norm_gemm/norm_gemm_kernel.cuh.
#include "fixtures/op_fixture.h"
#include "ops/norm_gemm/norm_gemm.h"
#include "ops/norm_gemm/norm_gemm_kernel.cuh"

namespace seqmark {
namespace {

bool Supports(const NormGemm::Problem& p) {
  const int64_t width = p.in_features / p.groups;
  const int64_t chunks =
      p.groups * ((width + kNormGemmChunk - 1) / kNormGemmChunk);
  return p.batch <= kNormGemmRows && width % 8 == 0 &&
         chunks <= kNormGemmMostChunks &&
         p.conv_width >= CausalConv1d::kMinWidth &&
         p.conv_width <= CausalConv1d::kMaxWidth;
}

// Every tensor that is read or written 16 bytes at a time.
absl::Status CheckAlignment(const NormGemm::Args& a) {
  for (const Tensor* t :
       {&a.x, &a.residual, &a.norm_weight, &a.weight, &a.residual_out}) {
    if (!*t) continue;
    const bool rows = t->dims.size() == 3 && t->dims[0] > 1;
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0 ||
        (rows && t->strides[0] % 8 != 0))
      return absl::UnimplementedError(
          "needs rows of x, residual and W on 16-byte boundaries");
  }
  if (reinterpret_cast<uintptr_t>(a.conv_weight.data) % 8 != 0)
    return absl::UnimplementedError(
        "needs the convolution's weights on an 8-byte boundary");
  return absl::OkStatus();
}

struct Machine {
  int multiprocessors = 0;
  int shared_bytes = 0;  // most of a block
};

template <class T, bool kLate, int kDepth>
absl::StatusOr<Launch> PlanDepth(const NormGemmTensors& t, int blocks,
                                 const Machine& machine) {
  auto* const kernel = NormGemmKernel<T, kLate, kDepth>;
  cudaFuncAttributes attributes;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncGetAttributes(&attributes, kernel));
  const size_t bytes =
      NormGemmSharedBytes(t.rows, t.in_features, kDepth, kLate);
  const int most =
      machine.shared_bytes - static_cast<int>(attributes.sharedSizeBytes);
  if (bytes > static_cast<size_t>(most)) return Launch();
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  // The same split of L1 for all kernels of a chain: another would have to wait
  // until a multiprocessor is empty.
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
      cudaSharedmemCarveoutMaxShared));
  return [=](Stream stream) {
    return LaunchDependent(kernel, dim3(blocks), dim3(kNormGemmThreads), bytes,
                           AsCudaStream(stream), "NormGemmKernel", t);
  };
}

// The deepest ring that pays and fits: a launch that streams W for long hides
// more of it behind the kernel before it.
template <class T, bool kLate>
absl::StatusOr<Launch> PlanLate(const NormGemmTensors& t, int blocks,
                                const Machine& machine) {
  constexpr int64_t kLong = 24 << 20;  // bytes of W
  absl::StatusOr<Launch> launch = Launch();
  if (int64_t{2} * t.in_features * t.out_features > kLong)
    launch = PlanDepth<T, kLate, 8>(t, blocks, machine);
  if (launch.ok() && !*launch)
    launch = PlanDepth<T, kLate, 5>(t, blocks, machine);
  if (launch.ok() && !*launch)
    launch = PlanDepth<T, kLate, 3>(t, blocks, machine);
  if (launch.ok() && !*launch)
    return absl::UnimplementedError(
        "the rows of x do not fit into shared memory");
  return launch;
}

absl::StatusOr<Launch> Plan(const NormGemm::Problem& p, const NormGemm::Args& a,
                            Device&) {
  if (!Supports(p) || p.in_features > INT32_MAX || p.out_features > INT32_MAX)
    return absl::UnimplementedError(
        "takes up to 8 rows of at most 16,384 features, each group a multiple "
        "of 8, and a convolution of width 2 to 4");
  if (absl::Status s = CheckAlignment(a); !s.ok()) return s;
  int device = 0;
  Machine machine;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &machine.multiprocessors, cudaDevAttrMultiProcessorCount, device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &machine.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  NormGemmTensors t;
  t.x = a.x.data;
  t.residual = a.residual.data;
  t.residual_out = a.residual_out.data;
  t.norm_weight = a.norm_weight.data;
  t.weight = a.weight.data;
  t.bias = a.bias.data;
  t.y = a.y.data;
  t.conv_weight = a.conv_weight.data;
  t.conv_bias = a.conv_bias.data;
  t.conv_state = a.conv_state.data;
  t.conv_state_out = a.conv_state_out.data;
  t.x_stride = a.x.strides[0];
  t.y_stride = a.y.strides[0];
  if (p.residual) {
    t.residual_stride = a.residual.strides[0];
    t.residual_out_stride = a.residual_out.strides[0];
  }
  t.rows = static_cast<int>(p.batch);
  t.in_features = static_cast<int>(p.in_features);
  t.out_features = static_cast<int>(p.out_features);
  t.groups = static_cast<int>(p.groups);
  t.epsilon = p.epsilon;
  t.per_element =
      static_cast<float>(static_cast<double>(p.groups) / p.in_features);
  t.residual_f32 = p.residual_f32;
  t.first_channel = static_cast<int>(p.conv_first);
  t.channels = static_cast<int>(p.conv_channels);
  t.conv_width = static_cast<int>(p.conv_width);
  const int blocks =
      std::min(machine.multiprocessors,
               (t.out_features + kNormGemmTile - 1) / kNormGemmTile);
  t.split = NormGemmSplit(t.rows, t.in_features, t.out_features, blocks);
  if (p.dtype == DType::kF16)
    return PlanLate<__half, false>(t, blocks, machine);
  return p.groups > 1 ? PlanLate<__nv_bfloat16, false>(t, blocks, machine)
                      : PlanLate<__nv_bfloat16, true>(t, blocks, machine);
}

const bool registered =
    AddProvider<NormGemm>({.name = "native",
                           .device = DeviceKind::kCuda,
                           .dtypes = {DType::kBF16, DType::kF16},
                           .plan = Plan,
                           .overlaps = true,
                           .supports = Supports});

}  // namespace
}  // namespace seqmark
