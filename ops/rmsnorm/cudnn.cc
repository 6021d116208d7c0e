// SPDX-License-Identifier: Apache-2.0
//
// Plain RMSNorm by cuDNN, for comparison: the native kernel is the fast one.
#include "fixtures/op_fixture.h"
#include "ops/norm/cudnn_norm_cuda.h"
#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {
namespace {

const bool registered = AddProvider<RmsNorm>(
    {.name = "cudnn",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan =
         [](const RmsNorm::Problem& p, const RmsNorm::Args& a, Device& device) {
           return PlanCudnnNorm(
               {.x = a.x, .weight = a.weight, .y = a.y, .epsilon = p.epsilon},
               device);
         },
     // It has no residual, no gate, no groups and no scale.
     .supports =
         [](const RmsNorm::Problem& p) {
           return !p.residual && p.gate == NormGate::kNone && p.groups == 1 &&
                  p.scale_parts == 0;
         }});

}  // namespace
}  // namespace seqmark
