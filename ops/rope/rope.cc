// SPDX-License-Identifier: Apache-2.0
#include "ops/rope/rope.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

absl::Status Rope::Check(const Problem& p) {
  if (p.rotary_dim % 2 != 0 || p.rotary_dim < 0 || p.rotary_dim > p.head_dim)
    return absl::InvalidArgumentError(
        absl::StrCat("rotary_dim ", p.rotary_dim,
                     " is not an even number up to head_dim, ", p.head_dim));
  return absl::OkStatus();
}

Cost Rope::GetCost(const Problem& p) {
  const double angles = static_cast<double>(p.seqlen) * p.rotary_dim / 2;
  Cost cost;
  // the angle, and its sine and cosine times the factor; then for each head
  // that is rotated two products and a sum for each of a pair
  cost.vector_flops = angles * (3 + 6.0 * p.batch * (p.heads + p.kv_heads));
  cost.special_ops = angles * 2;
  return cost;
}

Tolerance Rope::GetTolerance(const Problem& p) {
  // The output is rounded once to dtype. In f32, the angle of at most pi is
  // off by pi/2 epsilon, its sine and cosine by one more (two units in the
  // last place of what is below 1), and the factor, the products and the sum
  // round by half an epsilon each: below 5 epsilon of factor * (|x1| + |x2|).
  // For normal elements that is at most 12 deviations and 2 in rms; factor is
  // at most the output's deviation, or the copied elements' 1 is.
  const double arithmetic =
      5 * std::max(1.0, std::fabs(double{p.factor})) * Epsilon(DType::kF32);
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 12 * arithmetic,
          .l2_error = 0.5 * Epsilon(p.dtype) + 2 * arithmetic};
}

std::vector<Rope::Problem> Rope::Sweep() {
  std::vector<Problem> problems;
  for (const auto& layer : kAttentionLayers) {
    Problem p;
    p.shape = std::string(layer.model);
    p.heads = layer.heads;
    p.kv_heads = layer.kv_heads;
    p.head_dim = p.rotary_dim = layer.head_dim;
    const auto add = [&](const Extent& extent, int64_t position) {
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      p.position = position;
      problems.push_back(p);
    };
    for (const Extent& extent : kDecodeExtents) add(extent, 4096);
    for (const Extent& extent : kLongExtents) add(extent, 0);
  }
  return problems;
}

std::vector<Rope::Problem> Rope::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t heads,
                       int64_t kv_heads, int64_t head_dim, int64_t rotary_dim,
                       int64_t position, float factor, bool has_v) {
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = heads;
    p.kv_heads = kv_heads;
    p.head_dim = head_dim;
    p.rotary_dim = rotary_dim;
    p.position = position;
    p.factor = factor;
    p.has_v = has_v;
    p.shape = absl::StrCat("custom.heads", heads, "-kv", kv_heads, "-dim",
                           head_dim, "-rotary", rotary_dim, "-from", position,
                           factor != 1 ? "-factor" : "", has_v ? "-v" : "");
    problems.push_back(p);
  };
  constexpr int64_t kFar = (int64_t{1} << 20) - 20;
  // 16-byte packs and single elements; all, a part or nothing of the head is
  // rotated; an odd number of packs to copy; heads in one group and in many.
  for (const auto& [heads, kv_heads, head_dim, rotary_dim] :
       {std::tuple{1, 1, 2, 2},
        {1, 1, 1, 0},
        {3, 1, 7, 4},
        {4, 2, 64, 64},
        {5, 5, 80, 32},
        {2, 1, 72, 32},
        {7, 1, 96, 96},
        {3, 3, 24, 0},
        {6, 2, 50, 50}})
    for (const auto& [batch, seqlen, position] :
         {std::tuple{1, 1, int64_t{0}}, {2, 3, int64_t{1000}}, {3, 17, kFar}})
      for (bool option : {false, true})
        add(batch, seqlen, heads, kv_heads, head_dim, rotary_dim, position,
            option ? 1.19f : 1.0f, option || rotary_dim == 0);
  add(1, 1, 32, 8, 64, 64, 131071, 1, true);    // llama-3.2-1b, a token
  add(1, 512, 12, 2, 128, 128, 3000, 1, true);  // qwen2.5-1.5b, a chunk
  add(2, 9, 25, 0, 64, 64, 1152, 1, false);     // queries alone
  add(2, 5, 1, 0, 1600, 0, 0, 1, false);        // a copy
  // Enough for many heads a thread on a GPU, and no whole number of groups.
  add(2, 901, 15, 3, 72, 48, 77, 1.19f, true);
  return problems;
}

namespace {
const bool registered = AddOperator<Rope>();
}  // namespace

}  // namespace seqmark
