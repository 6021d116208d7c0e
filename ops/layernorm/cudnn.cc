// SPDX-License-Identifier: Apache-2.0
//
// LayerNorm by cuDNN, for comparison: the native kernel is the fast one.
#include "fixtures/op_fixture.h"
#include "ops/layernorm/layernorm.h"
#include "ops/norm/cudnn_norm_cuda.h"

namespace seqmark {
namespace {

const bool registered = AddProvider<LayerNorm>(
    {.name = "cudnn",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan =
         [](const LayerNorm::Problem& p, const LayerNorm::Args& a,
            Device& device) {
           return PlanCudnnNorm({.x = a.x,
                                 .weight = a.weight,
                                 .bias = a.bias,
                                 .y = a.y,
                                 .epsilon = p.epsilon},
                                device);
         },
     // It has no residual.
     .supports = [](const LayerNorm::Problem& p) { return !p.residual; }});

}  // namespace
}  // namespace seqmark
