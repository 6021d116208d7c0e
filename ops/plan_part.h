// SPDX-License-Identifier: Apache-2.0
//
// For operators that are several others at once, and providers of them that do
// these one after the other.
#pragma once

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"

namespace seqmark {

// The launch of a provider of `device` that does the problem: the first that is
// linked, so meant for parts of which a device has one.
template <Operator Op>
absl::StatusOr<Launch> PlanPart(const typename Op::Problem& problem,
                                const typename Op::Args& args, Device& device) {
  for (const Provider<Op>& provider : ProvidersOf<Op>()) {
    const auto& dtypes = provider.dtypes;
    if (provider.device == device.kind() && provider.supports(problem) &&
        std::find(dtypes.begin(), dtypes.end(), problem.dtype) != dtypes.end())
      return provider.plan(problem, args, device);
  }
  return absl::UnimplementedError(
      absl::StrCat("no provider of ", Op::kName, " on ", Name(device.kind())));
}

}  // namespace seqmark
