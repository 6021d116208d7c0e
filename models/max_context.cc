// SPDX-License-Identifier: Apache-2.0
#include "models/max_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace seqmark {

absl::StatusOr<LongestPrompt> MaxContext(const ModelConfig& config,
                                         ModelShape shape,
                                         const ProviderChoice& choice,
                                         size_t limit, Device& device) {
  const auto needed = [&](int64_t seqlen) -> absl::StatusOr<size_t> {
    shape.prompt = shape.capacity = seqlen;
    const auto memory = Model::Measure(config, shape, choice, device);
    if (!memory.ok()) return memory.status();
    return memory->total();
  };
  int64_t cap = kLongestPrompt;
  if (config.learned_positions) cap = std::min(cap, config.max_position);
  const auto least = needed(1);
  if (!least.ok()) return least.status();
  if (*least > limit)
    return absl::ResourceExhaustedError(
        absl::StrCat(config.name, " needs ", *least,
                     " bytes for one token; the limit is ", limit));
  const auto most = needed(cap);
  if (!most.ok()) return most.status();
  if (*most <= limit) return LongestPrompt{cap, true};
  int64_t fits = 1, too_long = cap;
  while (too_long - fits > 1) {
    const int64_t middle = fits + (too_long - fits) / 2;
    const auto bytes = needed(middle);
    if (!bytes.ok()) return bytes.status();
    (*bytes <= limit ? fits : too_long) = middle;
  }
  return LongestPrompt{fits, false};
}

}  // namespace seqmark
