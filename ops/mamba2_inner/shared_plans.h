// SPDX-License-Identifier: Apache-2.0
//
// What the providers share: the convolution before whatever scans, and the
// operators one after the other, which is `composed` on the CPU and on CUDA and
// what fused kernels are compared with.
#pragma once

#include <functional>

#include "fixtures/device.h"
#include "ops/mamba2_inner/mamba2_inner.h"
#include "ops/plan_part.h"

namespace seqmark {

// The convolution, then what `plan_scan` plans of its output (batch, seqlen,
// channels), which is workspace, then `last` if it has a launch.
absl::StatusOr<Launch> PlanConvolved(
    const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a, Device& device,
    const std::function<absl::StatusOr<LaunchPart>(const Tensor& convolved)>&
        plan_scan,
    LaunchPart last = {});

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
