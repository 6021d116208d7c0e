// SPDX-License-Identifier: Apache-2.0
//
// The CPU's: the three operators one after the other, where a call costs
// nothing. What the fused kernels of other devices are compared with.
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "ops/norm_gemm/norm_gemm.h"
#include "ops/plan_part.h"

namespace seqmark {
namespace {

absl::StatusOr<Launch> Plan(const NormGemm::Problem& p, const NormGemm::Args& a,
                            Device& device) {
  const size_t element = SizeOf(p.dtype);
  auto buffer =
      device.Allocate(p.batch * (p.in_features + p.conv_channels) * element,
                      MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto scratch = std::make_shared<Buffer>(*std::move(buffer));
  auto* const normed = static_cast<std::byte*>(scratch->data());
  const Tensor n(normed, p.dtype, {p.batch, 1, p.in_features});
  auto norm = PlanPart<RmsNorm>(NormGemm::Norm(p),
                                {.x = a.x,
                                 .residual = a.residual,
                                 .weight = a.norm_weight,
                                 .y = n,
                                 .residual_out = a.residual_out},
                                device);
  if (!norm.ok()) return norm.status();
  auto product = PlanPart<Gemm>(
      NormGemm::Product(p),
      {.x = n, .weight = a.weight, .bias = a.bias, .y = a.y}, device);
  if (!product.ok()) return product.status();
  std::vector<LaunchPart> parts = {*std::move(norm), *std::move(product)};
  if (p.conv_channels == 0) return LaunchSequence(std::move(parts), scratch);

  Tensor inputs = a.y;
  inputs.data = a.y.as<std::byte>() + p.conv_first * element;
  inputs.dims[2] = p.conv_channels;
  const Tensor outputs(normed + p.batch * p.in_features * element, p.dtype,
                       inputs.dims);
  auto convolution = PlanPart<CausalConv1d>(NormGemm::Convolution(p),
                                            {.x = inputs,
                                             .weight = a.conv_weight,
                                             .bias = a.conv_bias,
                                             .initial_state = a.conv_state,
                                             .y = outputs,
                                             .final_state = a.conv_state_out},
                                            device);
  if (!convolution.ok()) return convolution.status();
  convolution->launch = [convolve = std::move(convolution->launch), inputs,
                         outputs, row = p.conv_channels * element,
                         element](Stream stream) {
    absl::Status status = convolve(stream);
    for (int64_t b = 0; b < inputs.dims[0]; ++b)
      std::memcpy(inputs.as<std::byte>() + b * inputs.strides[0] * element,
                  outputs.as<std::byte>() + b * row, row);
    return status;
  };
  parts.push_back(*std::move(convolution));
  return LaunchSequence(std::move(parts), scratch);
}

const bool registered =
    AddProvider<NormGemm>({.name = "composed",
                           .device = DeviceKind::kCpu,
                           .dtypes = {DType::kBF16, DType::kF32},
                           .plan = Plan});

}  // namespace
}  // namespace seqmark
