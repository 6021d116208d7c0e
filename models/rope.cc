// SPDX-License-Identifier: Apache-2.0
#include "models/rope.h"

#include <cmath>
#include <numbers>

namespace seqmark {
namespace {

double Llama3(const RopeConfig& rope, double frequency) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double turns = rope.original_max_position / wavelength;
  if (turns < rope.low_freq_factor) return frequency / rope.factor;
  if (turns > rope.high_freq_factor) return frequency;
  const double s = (turns - rope.low_freq_factor) /
                   (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - s) * frequency / rope.factor + s * frequency;
}

}  // namespace

std::vector<float> InverseFrequencies(const RopeConfig& rope, int64_t seqlen) {
  if (rope.kind == RopeKind::kNone) return {};
  const auto& divisors = seqlen > rope.original_max_position
                             ? rope.long_factor
                             : rope.short_factor;
  std::vector<float> frequencies(rope.rotary_dim / 2);
  for (size_t j = 0; j < frequencies.size(); ++j) {
    double frequency = std::pow(rope.theta, -2.0 * j / rope.rotary_dim);
    if (rope.kind == RopeKind::kLlama3) frequency = Llama3(rope, frequency);
    if (rope.kind == RopeKind::kLongRope) frequency /= divisors[j];
    frequencies[j] = static_cast<float>(frequency);
  }
  return frequencies;
}

double LongRopeAttentionFactor(double scale, int64_t original_max_position) {
  if (scale <= 1) return 1;
  return std::sqrt(1 + std::log(scale) / std::log(original_max_position));
}

}  // namespace seqmark
