// SPDX-License-Identifier: Apache-2.0
#include "ops/rmsnorm/rmsnorm.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost RmsNorm::GetCost(const Problem& p) {
  const double groups = static_cast<double>(p.rows()) * p.groups;
  const double elements = groups * p.group_width();
  Cost cost;
  // square and sum; scale by 1/rms and weight
  cost.vector_flops = elements * 4 + groups * 2;
  cost.special_ops = groups * 2;  // sqrt and reciprocal
  if (p.residual) cost.vector_flops += elements;
  if (p.scale_parts > 0) {
    const auto rows = static_cast<double>(p.rows());
    cost.vector_flops += elements + rows * (p.scale_parts + 2.0);
    cost.special_ops += rows * 2;
  }
  if (p.gate != NormGate::kNone) {
    cost.vector_flops += elements * 2;  // 1 + e^-g; times silu
    cost.special_ops += elements * 2;   // e^-g; the division
  }
  return cost;
}

Tolerance RmsNorm::GetTolerance(const Problem& p) {
  // The output is rounded once to dtype; the sum of squares carries an f32
  // error of sqrt(group_width) roundings, halved by the square root; SiLU and
  // rsqrt add a few f32 roundings. A gate or residual that is first rounded to
  // dtype by the definition of residual_out is read unrounded, as here.
  const double f32 = Epsilon(DType::kF32);
  // A scale before it is a sum and a square root of the same kind, of squares
  // that are all positive.
  const double arithmetic =
      (std::sqrt(p.group_width()) / 2 + 16 + std::sqrt(p.scale_parts) / 2) *
      f32;
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 4 * arithmetic,
          .l2_error = 0.5 * Epsilon(p.dtype) + arithmetic};
}

std::vector<RmsNorm::Problem> RmsNorm::Sweep() {
  std::vector<Problem> problems;
  const auto add = [&](absl::string_view model, int64_t width, bool residual,
                       NormGate gate, absl::string_view role,
                       int64_t groups = 1) {
    for (const Extent& extent : kLongExtents) {
      Problem p;
      p.shape = absl::StrCat(model, role);
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      p.width = width;
      p.residual = residual;
      p.gate = gate;
      p.groups = groups;
      problems.push_back(p);
    }
  };
  for (const HiddenWidth& hidden : kHiddenWidths) {
    add(hidden.model, hidden.width, false, NormGate::kNone, "");
    add(hidden.model, hidden.width, true, NormGate::kNone, ".add");
  }
  for (const auto& layer : kMamba2Layers)
    add(layer.model, layer.d_inner(), false, NormGate::kBefore, ".gated",
        layer.groups);
  return problems;
}

namespace {

// The shape of a test problem, by its axes and options.
std::string CustomShape(const RmsNorm::Problem& p) {
  return absl::StrCat(
      "custom.width", p.width,
      p.scale_parts > 0 ? absl::StrCat("-scaled", p.scale_parts) : "",
      p.groups > 1 ? absl::StrCat("-groups", p.groups) : "",
      p.residual_f32 ? "-addf32"
      : p.residual   ? "-add"
                     : "",
      p.gate == NormGate::kBefore  ? "-gate-before"
      : p.gate == NormGate::kAfter ? "-gate-after"
                                   : "");
}

}  // namespace

std::vector<RmsNorm::Problem> RmsNorm::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t width,
                       int64_t groups, bool residual, bool residual_f32) {
    for (NormGate gate :
         {NormGate::kNone, NormGate::kBefore, NormGate::kAfter}) {
      Problem p;
      p.batch = batch;
      p.seqlen = seqlen;
      p.width = width;
      p.groups = groups;
      p.residual = residual;
      p.residual_f32 = residual_f32;
      p.gate = gate;
      p.shape = CustomShape(p);
      problems.push_back(p);
    }
  };
  for (const auto& [batch, seqlen, width] : {std::tuple{1, 1, 1},
                                             {1, 1, 896},
                                             {2, 3, 7},
                                             {1, 5, 1001},
                                             {3, 1, 2048},
                                             {1, 2, 12289},
                                             {1, 64, 4096}}) {
    add(batch, seqlen, width, 1, false, false);
    add(batch, seqlen, width, 1, true, false);
    if (seqlen < 64) add(batch, seqlen, width, 1, true, true);
  }
  // Groups of mamba2-8b, of a warp (many rows), of odd width, of one element.
  for (const auto& [batch, seqlen, width, groups] : {std::tuple{1, 1, 8192, 8},
                                                     {2, 3, 8192, 8},
                                                     {3, 301, 96, 2},
                                                     {2, 3, 21, 3},
                                                     {1, 2, 5, 5}}) {
    add(batch, seqlen, width, groups, false, false);
    add(batch, seqlen, width, groups, true, batch == 2);
  }
  // A block of rows, and one more or less; many sequences.
  for (const auto& [batch, seqlen] :
       {std::pair{1, 63}, {1, 64}, {1, 65}, {1, 1000}, {64, 3}})
    add(batch, seqlen, 24, 1, true, false);
  // More rows than a GPU holds at once, a few times at most.
  add(1, 57001, 8, 1, false, false);
  add(2, 6007, 8, 1, false, false);
  add(2, 6007, 8, 1, true, false);
  add(2, 6007, 16, 2, false, false);
  // Rows that are scaled first: of a warp's registers, a block's, of no whole
  // pack; fewer parts than lanes and more.
  for (const auto& [seqlen, width, parts, groups, gate] :
       {std::tuple{3, 768, 24, 1, NormGate::kNone},
        {130, 64, 1, 1, NormGate::kNone},
        {2, 2560, 80, 1, NormGate::kNone},
        {5, 1001, 33, 1, NormGate::kNone},
        {3, 24, 7, 3, NormGate::kNone},
        {2, 96, 48, 2, NormGate::kBefore},
        {2, 96, 5, 1, NormGate::kAfter},
        {1, 12289, 130, 1, NormGate::kNone}})
    for (int residual : {0, 1, 2}) {
      Problem p;
      p.batch = seqlen == 3 ? 2 : 1;
      p.seqlen = seqlen;
      p.width = width;
      p.groups = groups;
      p.gate = gate;
      p.residual = residual > 0;
      p.residual_f32 = residual > 1;
      p.scale_parts = parts;
      p.scale_width = 2 * parts + 1;
      p.shape = CustomShape(p);
      problems.push_back(p);
    }
  return problems;
}

namespace {
const bool registered = AddOperator<RmsNorm>();
}  // namespace

}  // namespace seqmark
