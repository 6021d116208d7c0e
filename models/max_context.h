// SPDX-License-Identifier: Apache-2.0
//
// The longest prompt that a memory holds, from plans alone.
#pragma once

#include "absl/status/statusor.h"
#include "models/model.h"

namespace seqmark {

struct LongestPrompt {
  int64_t seqlen = 0;
  bool is_cap = false;  // longer ones would fit, but are not asked for
};

// A model whose memory does not grow has no longest prompt: no more than this
// is asked for.
inline constexpr int64_t kLongestPrompt = 1 << 20;

// ResourceExhausted where not even one token fits in `limit` bytes.
absl::StatusOr<LongestPrompt> MaxContext(const ModelConfig& config,
                                         ModelShape shape,
                                         const ProviderChoice& choice,
                                         size_t limit, Device& device);

}  // namespace seqmark
