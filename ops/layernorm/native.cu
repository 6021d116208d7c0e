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
  const auto plan = [&]<NormForm kForm>() {
    return PlanNorm<kForm, NormKernels::kPlain>(p, a, {}, a.bias, 1);
  };
  if (!p.residual) return plan.operator()<NormForm{.centered = true}>();
  return !p.residual_f32
             ? plan.operator()<NormForm{.residual = true, .centered = true}>()
             : plan.operator()<NormForm{
                   .residual = true, .residual_f32 = true, .centered = true}>();
}

const bool registered =
    AddProvider<LayerNorm>({.name = "native",
                            .device = DeviceKind::kCuda,
                            .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                            .plan = Plan});

}  // namespace
}  // namespace seqmark
