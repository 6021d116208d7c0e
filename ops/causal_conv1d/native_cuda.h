// SPDX-License-Identifier: Apache-2.0
//
// The native plan on a GPU in packs that the caller chooses: a test need not be
// as large as the problems that wide ones are for.
#pragma once

#include "absl/status/statusor.h"
#include "ops/causal_conv1d/causal_conv1d.h"

namespace seqmark {

// Packs of 8 or 4 bytes, or of one element. Unimplemented where rows do not
// begin at whole packs. One token in packs of up to 4 bytes is the step's.
absl::StatusOr<Launch> PlanConv(const CausalConv1d::Problem& p,
                                const CausalConv1d::Args& a,
                                int64_t pack_bytes);

}  // namespace seqmark
