// SPDX-License-Identifier: Apache-2.0
//
// Mamba's step on the CPU: see ops/ssm_step/ssm_step-inl.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/selective_scan_step/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "hwy/highway.h"
#include "ops/ssm_step/ssm_step-inl.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "ops/selective_scan_step/selective_scan_step.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

void SelectiveScanStepCall(DType dtype, const SsmStep& s,
                           const ThreadRows& scratch) {
  StepCall</*kRowDecay=*/true>(dtype, s, scratch);
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(SelectiveScanStepCall);
namespace {

absl::StatusOr<Launch> Plan(const SelectiveScanStep::Problem& p,
                            const SelectiveScanStep::Args& a, Device& device) {
  const SsmStep s = SelectiveScanStep::Step(p, a);
  auto scratch = ThreadRows::Allocate(StepScratch(s), device);
  if (!scratch.ok()) return scratch.status();
  return [dtype = p.dtype, s, scratch = *std::move(scratch)](Stream) {
    HWY_DYNAMIC_DISPATCH(SelectiveScanStepCall)(dtype, s, scratch);
    return absl::OkStatus();
  };
}

const bool registered = AddProvider<SelectiveScanStep>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
