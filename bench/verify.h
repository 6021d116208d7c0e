// SPDX-License-Identifier: Apache-2.0
//
// --verify: a row's outputs against its reference, before it is timed.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "fixtures/row.h"

namespace seqmark {

struct Verified {
  double fraction = 0;  // of the outputs' elements, compared
  std::string label;    // how: "verified: whole", "verified: 4 parts, 0.2 %"
};

// Internal, with the worst output, where one is wrong. A row that cannot be
// verified is not an error: the label says why, and the fraction is 0.
absl::StatusOr<Verified> Verify(RowInstance& instance, uint64_t seed);

}  // namespace seqmark
