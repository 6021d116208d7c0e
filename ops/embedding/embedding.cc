// SPDX-License-Identifier: Apache-2.0
#include "ops/embedding/embedding.h"

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

absl::Status Embedding::Check(const Problem& p) {
  if (p.learned_positions &&
      (p.position < 0 || p.position + p.seqlen > p.max_position))
    return absl::InvalidArgumentError(absl::StrCat(
        "positions ", p.position, " to ", p.position + p.seqlen - 1,
        " are not all in the ", p.max_position, " learned ones"));
  return absl::OkStatus();
}

Cost Embedding::GetCost(const Problem& p) {
  const double elements = static_cast<double>(p.rows()) * p.width;
  return {.vector_flops = elements * (p.learned_positions ? 2 : 1)};
}

Tolerance Embedding::GetTolerance(const Problem& p) {
  // The output is rounded once to dtype. In f32 the product and the sum round
  // by half an epsilon each, of numbers up to six deviations of the output.
  const double f32 = Epsilon(DType::kF32);
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 6 * f32,
          .l2_error = 0.5 * Epsilon(p.dtype) + f32};
}

std::vector<Embedding::Problem> Embedding::Sweep() {
  std::vector<Problem> problems;
  const auto add_layer = [&](const auto& layer) {
    Problem p;
    p.shape = std::string(layer.model);
    p.vocab = layer.vocab;
    p.width = layer.hidden;
    const auto add = [&](const Extent& extent) {
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      problems.push_back(p);
    };
    for (const Extent& extent : kDecodeExtents) add(extent);
    for (const Extent& extent : kLongExtents) add(extent);
  };
  for (const auto& layer : kAttentionLayers) add_layer(layer);
  for (const auto& layer : kMambaLayers) add_layer(layer);
  for (const auto& layer : kMamba2Layers) add_layer(layer);
  return problems;
}

std::vector<Embedding::Problem> Embedding::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t vocab,
                       int64_t width, bool learned_positions) {
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.vocab = vocab;
    p.width = width;
    p.learned_positions = learned_positions;
    if (learned_positions) {
      p.scale = std::sqrt(static_cast<float>(width));
      p.position = 3;
      p.max_position = p.position + seqlen + vocab % 2;
    }
    p.shape = absl::StrCat("custom.vocab", vocab, "-width", width,
                           learned_positions ? "-positions" : "");
    problems.push_back(p);
  };
  for (bool learned_positions : {false, true}) {
    add(1, 1, 1, 1, learned_positions);
    add(2, 3, 7, 33, learned_positions);
    add(1, 5, 1001, 264, learned_positions);
    add(16, 1, 256000, 40, learned_positions);  // the largest vocabulary
    add(2, 700, 100, 1000, learned_positions);
  }
  add(1, 512, 50280, 768, false);  // mamba-130m
  return problems;
}

namespace {
const bool registered = AddOperator<Embedding>();
}  // namespace

}  // namespace seqmark
