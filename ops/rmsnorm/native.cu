// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm on NVIDIA GPUs, at the speed of memory: see
// ops/norm/norm_kernel.cuh.
#include "fixtures/op_fixture.h"
#include "ops/norm/plan_norm.cuh"
#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {
namespace {

// Gates are slices of a wider projection, a residual is not. Both together
// occur in no model here: no kernels of their own.
template <NormForm kForm>
absl::StatusOr<Launch> PlanGated(const RmsNorm::Problem& p,
                                 const RmsNorm::Args& a) {
  constexpr NormKernels kPlain =
      kForm.residual ? NormKernels::kPlain : NormKernels::kPlainAndStrided;
  constexpr NormKernels kGated =
      kForm.residual ? NormKernels::kNone : NormKernels::kPlainAndStrided;
  constexpr NormForm kBefore = With(kForm, &NormForm::gate_before, true);
  constexpr NormForm kAfter = With(kForm, &NormForm::gate_after, true);
  switch (p.gate) {
    case NormGate::kNone:
      return PlanNorm<kForm, kPlain>(p, a, a.gate, {}, p.groups);
    case NormGate::kBefore:
      return PlanNorm<kBefore, kGated>(p, a, a.gate, {}, p.groups);
    case NormGate::kAfter:
      return PlanNorm<kAfter, kGated>(p, a, a.gate, {}, p.groups);
  }
  return absl::InvalidArgumentError("no such gate");
}

// A row that is scaled first is what a model adds to its residual stream: that
// has a kernel of its own.
template <NormForm kForm>
absl::StatusOr<Launch> PlanScaled(const RmsNorm::Problem& p,
                                  const RmsNorm::Args& a) {
  constexpr NormForm kScaled = With(kForm, &NormForm::scaled, true);
  constexpr NormForm kBefore = With(kScaled, &NormForm::gate_before, true);
  constexpr NormForm kAfter = With(kScaled, &NormForm::gate_after, true);
  constexpr NormKernels kPlain =
      kForm.residual ? NormKernels::kPlain : NormKernels::kNone;
  const NormScale scale = {a.squares, p.scale_width, p.scale_epsilon};
  switch (p.gate) {
    case NormGate::kNone:
      return PlanNorm<kScaled, kPlain>(p, a, a.gate, {}, p.groups, scale);
    case NormGate::kBefore:
      return PlanNorm<kBefore, NormKernels::kNone>(p, a, a.gate, {}, p.groups,
                                                   scale);
    case NormGate::kAfter:
      return PlanNorm<kAfter, NormKernels::kNone>(p, a, a.gate, {}, p.groups,
                                                  scale);
  }
  return absl::InvalidArgumentError("no such gate");
}

template <NormForm kForm>
absl::StatusOr<Launch> PlanForm(const RmsNorm::Problem& p,
                                const RmsNorm::Args& a) {
  return p.scale_parts > 0 ? PlanScaled<kForm>(p, a) : PlanGated<kForm>(p, a);
}

absl::StatusOr<Launch> Plan(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                            Device&) {
  if (!p.residual) return PlanForm<NormForm{}>(p, a);
  return !p.residual_f32
             ? PlanForm<NormForm{.residual = true}>(p, a)
             : PlanForm<NormForm{.residual = true, .residual_f32 = true}>(p, a);
}

const bool registered =
    AddProvider<RmsNorm>({.name = "native",
                          .device = DeviceKind::kCuda,
                          .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                          .plan = Plan});

}  // namespace
}  // namespace seqmark
