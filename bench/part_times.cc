// SPDX-License-Identifier: Apache-2.0
#include "bench/part_times.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace seqmark {
namespace {

TimedPart Timed(const RowPart& part, double seconds) {
  return {part.name, part.op_class, seconds, part.flops, part.bytes};
}

}  // namespace

absl::StatusOr<std::vector<TimedPart>> TimeParts(
    const std::vector<RowPart>& parts, double call_seconds, double most_seconds,
    Device& device) {
  std::vector<TimedPart> timed;
  if (parts.empty()) return timed;
  std::vector<Launch> launches;
  launches.reserve(parts.size());
  for (const RowPart& part : parts) launches.push_back(part.launch);
  const int passes = 2 * call_seconds <= most_seconds ? 2 : 1;
  for (int pass = 0; pass < passes; ++pass) {
    const auto each = device.TimeEach(launches);
    if (!each.ok()) return each.status();
    for (size_t i = 0; i < parts.size(); ++i) {
      if (pass == 0) timed.push_back(Timed(parts[i], (*each)[i]));
      timed[i].seconds = std::min(timed[i].seconds, (*each)[i]);
    }
  }
  return timed;
}

FirstCallParts::FirstCallParts(std::vector<RowPart> parts)
    : shared_(std::make_shared<Shared>(Shared{std::move(parts), {}})) {}

Launch FirstCallParts::launch() const {
  return [shared = shared_](Stream stream) {
    const bool first = shared->timed.empty();
    auto start = std::chrono::steady_clock::now();
    for (const RowPart& part : shared->parts) {
      if (absl::Status s = part.launch(stream); !s.ok()) return s;
      if (!first) continue;
      const auto now = std::chrono::steady_clock::now();
      shared->timed.push_back(
          Timed(part, std::chrono::duration<double>(now - start).count()));
      start = now;
    }
    return absl::OkStatus();
  };
}

}  // namespace seqmark
