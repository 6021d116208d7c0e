// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm on NVIDIA GPUs, at the speed of memory: see
// ops/norm/norm_kernel.cuh.
#include "fixtures/op_fixture.h"
#include "ops/norm/plan_norm.cuh"
#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {
namespace {

// Residual and gate together occur in no model here: no kernels of their own.
template <bool kResidual>
absl::StatusOr<Launch> PlanGated(NormGate gate, DType dtype,
                                 const NormTensors& tensors) {
  switch (gate) {
    case NormGate::kNone:
      return PlanNorm<NormForm{.residual = kResidual}>(dtype, tensors);
    case NormGate::kBefore:
      return PlanNorm<NormForm{.residual = kResidual, .gate_before = true},
                      !kResidual>(dtype, tensors);
    case NormGate::kAfter:
      return PlanNorm<NormForm{.residual = kResidual, .gate_after = true},
                      !kResidual>(dtype, tensors);
  }
  return absl::InvalidArgumentError("no such gate");
}

absl::StatusOr<Launch> Plan(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                            Device&) {
  const NormTensors tensors = {.x = a.x.data,
                               .residual = a.residual.data,
                               .gate = a.gate.data,
                               .weight = a.weight.data,
                               .y = a.y.data,
                               .residual_out = a.residual_out.data,
                               .rows = p.rows(),
                               .width = static_cast<int>(p.width),
                               .epsilon = p.epsilon};
  return p.residual ? PlanGated<true>(p.gate, p.dtype, tensors)
                    : PlanGated<false>(p.gate, p.dtype, tensors);
}

const bool registered =
    AddProvider<RmsNorm>({.name = "native",
                          .device = DeviceKind::kCuda,
                          .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                          .plan = Plan});

}  // namespace
}  // namespace seqmark
