// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): which
// frequencies a model rotates with. The pair (j, j + rotary_dim / 2) of a head
// turns by position * frequency[j]; elements past rotary_dim pass unchanged.
#pragma once

#include <cstdint>
#include <vector>

namespace seqmark {

enum class RopeKind : uint8_t { kNone, kDefault, kLlama3, kLongRope };

struct RopeConfig {
  RopeKind kind = RopeKind::kNone;
  double theta = 10000;    // base of the geometric series of wavelengths
  int64_t rotary_dim = 0;  // even; at most head_dim
  int64_t original_max_position = 0;  // context before it was extended
  // llama3: wavelengths past original / low_freq_factor are stretched by
  // `factor`, those below original / high_freq_factor are kept.
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  // longrope: one divisor a frequency, for prompts up to the original context
  // and for longer ones.
  std::vector<double> short_factor;
  std::vector<double> long_factor;
  // cos and sin are multiplied by it (longrope; 1 elsewhere).
  double attention_factor = 1;
};

// rotary_dim / 2 angles per position, in radians. `seqlen` is the length that
// the sequence reaches; only longrope looks at it. Empty where kind is kNone.
//
//   default   f[j] = theta^(-2j / rotary_dim)
//   longrope  f[j] / factor[j] (Ding et al. 2024, arXiv:2402.13753)
//   llama3    with w = 2 pi / f[j]:
//               f[j] / factor                     w > original / low
//               f[j]                              w < original / high
//               (1 - s) f[j] / factor + s f[j]    between,
//             s = (original / w - low) / (high - low)
//             (Llama 3.1, arXiv:2407.21783, as in its reference code)
std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t seqlen);

// longrope's factor on cos and sin where the config gives none:
// sqrt(1 + ln(scale) / ln(original)), scale = max_position / original.
double LongRopeAttentionFactor(double scale, int64_t original_max_position);

}  // namespace seqmark
