// SPDX-License-Identifier: Apache-2.0
//
// Mamba-2's step on NVIDIA GPUs: see ops/ssm_step/ssm_step_kernel.cuh.
#include "fixtures/op_fixture.h"
#include "ops/ssd_step/ssd_step.h"
#include "ops/ssm_step/ssm_step_kernel.cuh"

namespace seqmark {
namespace {

const bool registered = AddProvider<SsdStep>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const SsdStep::Problem& p, const SsdStep::Args& a, Device&) {
       return PlanSsmStep</*kRowDecay=*/false>(p.dtype, SsdStep::Step(p, a));
     }});

}  // namespace
}  // namespace seqmark
