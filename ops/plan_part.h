// SPDX-License-Identifier: Apache-2.0
//
// For operators that are several others at once, and providers of them that do
// these one after the other.
#pragma once

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"

namespace seqmark {

// The launch of `device`'s first provider that does the problem.
template <Operator Op>
absl::StatusOr<Launch> PlanPart(const typename Op::Problem& problem,
                                const typename Op::Args& args, Device& device) {
  for (const Provider<Op>& provider : ProvidersOf<Op>())
    if (provider.device == device.kind() && provider.supports(problem))
      return provider.plan(problem, args, device);
  return absl::UnimplementedError(
      absl::StrCat("no provider of ", Op::kName, " on ", Name(device.kind())));
}

}  // namespace seqmark
