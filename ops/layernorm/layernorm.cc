// SPDX-License-Identifier: Apache-2.0
#include "ops/layernorm/layernorm.h"

#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost LayerNorm::GetCost(const Problem& p) {
  const double rows = static_cast<double>(p.rows());
  Cost cost;
  // sum; subtract the mean; square and sum; scale by 1/deviation and weight;
  // add the bias
  cost.vector_flops = rows * p.width * 7 + rows * 3;
  cost.special_ops = rows * 2;  // sqrt and reciprocal
  if (p.residual) cost.vector_flops += rows * p.width;
  return cost;
}

Tolerance LayerNorm::GetTolerance(const Problem& p) {
  // The output is rounded once to dtype. Both sums carry an f32 error of
  // sqrt(width) roundings: the mean's moves every element by that much of a
  // deviation, the variance's is halved by the square root. The rest is a few
  // f32 roundings.
  const double f32 = Epsilon(DType::kF32);
  const double arithmetic = (std::sqrt(p.width) * 1.5 + 16) * f32;
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 4 * arithmetic,
          .l2_error = 0.5 * Epsilon(p.dtype) + arithmetic};
}

std::vector<LayerNorm::Problem> LayerNorm::Sweep() {
  std::vector<Problem> problems;
  for (const HiddenWidth& hidden : kHiddenWidths)
    for (const Extent& extent : kLongExtents) {
      Problem p;
      p.shape = std::string(hidden.model);
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      p.width = hidden.width;
      problems.push_back(p);
    }
  return problems;
}

std::vector<LayerNorm::Problem> LayerNorm::TestProblems() {
  std::vector<Problem> problems;
  for (const auto& [batch, seqlen, width] : {std::tuple{1, 1, 1},
                                             {1, 1, 896},
                                             {2, 3, 7},
                                             {1, 5, 1001},
                                             {3, 1, 2048},
                                             {1, 2, 12289},
                                             {1, 1, 65536},
                                             {2, 1031, 48},
                                             {2, 6007, 8},
                                             {1, 57001, 8},
                                             {1, 63, 24},
                                             {1, 65, 24},
                                             {1, 1000, 24},
                                             {64, 3, 24},
                                             {1, 64, 4096}}) {
    for (const auto& [residual, f32] :
         {std::pair{false, false}, {true, false}, {true, true}}) {
      Problem p;
      p.shape = absl::StrCat("custom.width", width,
                             f32        ? "-addf32"
                             : residual ? "-add"
                                        : "");
      p.batch = batch;
      p.seqlen = seqlen;
      p.width = width;
      p.residual = residual;
      p.residual_f32 = f32;
      problems.push_back(p);
    }
  }
  return problems;
}

namespace {
const bool registered = AddOperator<LayerNorm>();
}  // namespace

}  // namespace seqmark
