// SPDX-License-Identifier: Apache-2.0
//
// The time of each of the calls that a row's launch is made of.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fixtures/device.h"
#include "fixtures/row.h"

namespace seqmark {

// One of the calls that a row is made of, timed.
struct TimedPart {
  std::string name;  // "<op>/<provider>"
  std::string op_class;
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
};

// In a pass of its own behind the samples: the least of two, of one where two
// would take more than `most_seconds`. `call_seconds`: about what a pass takes.
absl::StatusOr<std::vector<TimedPart>> TimeParts(
    const std::vector<RowPart>& parts, double call_seconds, double most_seconds,
    Device& device);

// On a CPU a call is over when it returns, so the clock can be read between
// two of them without changing either. A row of which one call is all there
// is time for has its parts' times from that very call.
class FirstCallParts {
 public:
  explicit FirstCallParts(std::vector<RowPart> parts);
  // Makes the calls in order; the first time it also looks at the clock.
  Launch launch() const;
  const std::vector<TimedPart>& timed() const { return shared_->timed; }

 private:
  struct Shared {
    std::vector<RowPart> parts;
    std::vector<TimedPart> timed;  // empty until a call was begun
  };
  std::shared_ptr<Shared> shared_;
};

}  // namespace seqmark
