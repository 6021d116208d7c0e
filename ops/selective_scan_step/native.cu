// SPDX-License-Identifier: Apache-2.0
//
// Mamba's step on NVIDIA GPUs: see ops/ssm_step/ssm_step_kernel.cuh.
#include "fixtures/op_fixture.h"
#include "ops/selective_scan_step/selective_scan_step.h"
#include "ops/ssm_step/ssm_step_kernel.cuh"

namespace seqmark {
namespace {

const bool registered = AddProvider<SelectiveScanStep>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const SelectiveScanStep::Problem& p,
                const SelectiveScanStep::Args& a, Device&) {
       return PlanSsmStep</*kRowDecay=*/true>(p.dtype,
                                              SelectiveScanStep::Step(p, a));
     }});

}  // namespace
}  // namespace seqmark
