// SPDX-License-Identifier: Apache-2.0
//
// The native plan on a GPU with its kernel chosen by the caller: a test need
// not be as large as the problems that the ring is for.
#pragma once

#include "absl/status/statusor.h"
#include "ops/causal_conv1d/causal_conv1d.h"

namespace seqmark {

enum class ConvKernel : uint8_t { kByWork, kWalk, kRing, kTile };

// Unimplemented where the kernel cannot take the problem, or its tensors. One
// token is the step's, whatever is asked for.
absl::StatusOr<Launch> PlanConv(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a, ConvKernel which);

}  // namespace seqmark
