// SPDX-License-Identifier: Apache-2.0
//
// cuDNN's norms over the last axis, for LayerNorm and plain RMSNorm. In a
// file of its own because cudnn-frontend takes half a minute to compile.
#pragma once

#include "absl/status/statusor.h"
#include "fixtures/device.h"
#include "fixtures/tensor.h"

namespace seqmark {

struct CudnnNorm {
  Tensor x;       // (batch, seqlen, width)
  Tensor weight;  // (width)
  Tensor bias;    // (width) for LayerNorm; none for RMSNorm
  Tensor y;       // (batch, seqlen, width)
  float epsilon = 0;
};

absl::StatusOr<Launch> PlanCudnnNorm(const CudnnNorm& norm, Device& device);

}  // namespace seqmark
