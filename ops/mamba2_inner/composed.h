// SPDX-License-Identifier: Apache-2.0
//
// The operators one after the other: what the providers `composed` of the CPU
// and of CUDA share. What fused kernels are compared with.
#pragma once

#include <functional>

#include "fixtures/device.h"
#include "ops/mamba2_inner/mamba2_inner.h"

namespace seqmark {

// Gate, squares and weights of a norm, in place in y.
using PlanGate = absl::StatusOr<Launch> (*)(const Mamba2Inner::Problem& p,
                                            const Mamba2Inner::Args& a,
                                            Device& device);

absl::StatusOr<Launch> PlanComposed(const Mamba2Inner::Problem& p,
                                    const Mamba2Inner::Args& a, Device& device,
                                    PlanGate plan_gate);

// A norm's y may be more than f16 holds.
inline bool HoldsItsOutput(const Mamba2Inner::Problem& p) {
  return !p.norm || p.dtype != DType::kF16;
}

}  // namespace seqmark
