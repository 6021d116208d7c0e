// SPDX-License-Identifier: Apache-2.0
//
// LayerNorm on NVIDIA GPUs, at the speed of memory: see
// ops/norm/norm_kernel.cuh.
#include "fixtures/op_fixture.h"
#include "ops/layernorm/layernorm.h"
#include "ops/norm/plan_norm.cuh"

namespace seqmark {
namespace {

absl::StatusOr<Launch> Plan(const LayerNorm::Problem& p,
                            const LayerNorm::Args& a, Device&) {
  constexpr NormForm kForm = {.centered = true};
  return PlanNorm<kForm>(p.dtype, {.x = a.x.data,
                                   .weight = a.weight.data,
                                   .bias = a.bias.data,
                                   .y = a.y.data,
                                   .rows = p.rows(),
                                   .width = static_cast<int>(p.width),
                                   .epsilon = p.epsilon});
}

const bool registered =
    AddProvider<LayerNorm>({.name = "native",
                            .device = DeviceKind::kCuda,
                            .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                            .plan = Plan});

}  // namespace
}  // namespace seqmark
