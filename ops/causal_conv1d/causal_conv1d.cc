// SPDX-License-Identifier: Apache-2.0
#include "ops/causal_conv1d/causal_conv1d.h"

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost CausalConv1d::GetCost(const Problem& p) {
  const double elements = static_cast<double>(p.batch) * p.seqlen * p.channels;
  Cost cost;
  cost.vector_flops = elements * 2 * p.width;
  if (p.silu) {
    cost.vector_flops += elements;    // 1 + e^-z
    cost.special_ops = elements * 2;  // e^-z; the division
  }
  return cost;
}

Tolerance CausalConv1d::GetTolerance(const Problem& p) {
  // The output is rounded once to dtype. Each of the width steps of the sum
  // rounds a partial sum by half an f32 epsilon, and partial sums stay below
  // 16 times the output's rms: products of two normals, of deviation
  // 1/sqrt(width), seldom exceed 10 deviations, and SiLU's rms is above 0.6 of
  // its argument's. SiLU's slope is at most 1.1; its exponential takes an
  // argument below 16 rounded to f32, and the approximate exponential and
  // division err by a few epsilon more: 24 in all.
  const double f32 = Epsilon(DType::kF32);
  const double sum = p.width * 0.5 * f32;
  const double activation = p.silu ? 24 * f32 : 0;
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 16 * sum + activation,
          .l2_error = 0.5 * Epsilon(p.dtype) + 2 * sum + activation};
}

std::vector<CausalConv1d::Problem> CausalConv1d::Sweep() {
  std::vector<Problem> problems;
  const auto add_layer = [&](absl::string_view model, int64_t channels,
                             int64_t width) {
    Problem p;
    p.shape = std::string(model);
    p.channels = channels;
    p.width = width;
    for (const Extent& extent : kLongExtents) {
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      problems.push_back(p);
    }
    p.batch = 8;
    p.seqlen = 4096;
    problems.push_back(p);
  };
  for (const auto& layer : kMambaLayers)
    add_layer(layer.model, layer.d_inner, layer.d_conv);
  for (const auto& layer : kMamba2Layers)
    add_layer(layer.model, layer.conv_channels(), layer.d_conv);
  return problems;
}

std::vector<CausalConv1d::Problem> CausalConv1d::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t channels,
                       int64_t width, unsigned options) {
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.channels = channels;
    p.width = width;
    p.bias = options & 1;
    p.silu = options & 2;
    p.initial_state = options & 4;
    p.final_state = options & 8;
    p.shape = absl::StrCat("custom.channels", channels, "-width", width,
                           p.bias ? "-bias" : "", p.silu ? "-silu" : "",
                           p.initial_state ? "-initial" : "",
                           p.final_state ? "-final" : "");
    problems.push_back(p);
  };
  // Sequences shorter than the state, channels of every pack width (4, 2 and 1
  // of 16 bits), blocks and runs that end early: every option of each
  // at width 4, and each both ways at the others.
  for (const auto& [batch, seqlen, channels] : {std::tuple{1, 1, 1},
                                                {2, 2, 8},
                                                {1, 3, 18},
                                                {3, 17, 129},
                                                {1, 33, 1032},
                                                {2, 61, 264}})
    for (int64_t width = kMinWidth; width <= kMaxWidth; ++width)
      for (unsigned options = 0; options < 16; ++options)
        if (width == kMaxWidth || options % 5 == 0)
          add(batch, seqlen, channels, width, options);
  // Runs of many tokens, wide packs and narrow.
  for (int64_t width = kMinWidth; width <= kMaxWidth; ++width) {
    add(2, 1003, 515, width, 15);
    add(1, 2050, 72, width, 11);
  }
  // A block of tokens, and one more or less; many sequences; many tokens.
  for (const int64_t seqlen : {63, 64, 65, 1000}) add(1, seqlen, 40, 4, 15);
  add(64, 5, 24, 4, 15);
  add(1, 57001, 8, 4, 15);
  add(1, 4096, 1792, 4, 11);  // mamba2-130m
  return problems;
}

namespace {
const bool registered = AddOperator<CausalConv1d>();
}  // namespace

}  // namespace seqmark
