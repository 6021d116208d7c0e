// SPDX-License-Identifier: Apache-2.0
#include "ops/ssd_step/ssd_step.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost SsdStep::GetCost(const Problem& p) {
  Cost cost = SsdScan::GetCost(Scan(p));
  // One token leaves no products of matrices.
  cost.vector_flops += cost.matrix_flops;
  cost.matrix_flops = 0;
  return cost;
}

Tolerance SsdStep::GetTolerance(const Problem& p) {
  // Nothing but y is rounded to dtype, once. A state has an f32 error of at
  // most about three epsilon of its terms: two ulp of the exponential, the
  // rounding of its argument (x e^-x of it counts), half an ulp of the multiply
  // and add; the step's softplus and SiLU a few more. The terms of y add up
  // with random signs, as their errors do, and the sum of d_state rounds by
  // the root of that many. Elements whose sum nearly cancels, heads with larger
  // states than the rest and gates may be off by several times the typical
  // error.
  const double arithmetic = (std::sqrt(p.d_state) + 19) * Epsilon(DType::kF32);
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 4 * arithmetic,
          .l2_error = 0.5 * Epsilon(p.dtype) + arithmetic};
}

std::vector<SsdStep::Problem> SsdStep::Sweep() {
  std::vector<Problem> problems;
  for (const Mamba2Layer& layer : kMamba2Layers)
    for (int64_t batch : {1, 8, 32}) {
      Problem p;
      p.shape = std::string(layer.model);
      p.batch = batch;
      p.seqlen = 1024;  // of context; no other, for it changes nothing
      p.heads = layer.heads;
      p.head_dim = layer.head_dim;
      p.groups = layer.groups;
      p.d_state = layer.d_state;
      problems.push_back(p);
    }
  return problems;
}

std::vector<SsdStep::Problem> SsdStep::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t heads, int64_t head_dim,
                       int64_t groups, int64_t d_state, int options) {
    Problem p;
    p.batch = batch;
    p.heads = heads;
    p.head_dim = head_dim;
    p.groups = groups;
    p.d_state = d_state;
    p.has_d = options & 1;
    p.has_dt_bias = options & 2;
    p.has_z = options & 4;
    p.shape = absl::StrCat("custom.h", heads, "-p", head_dim, "-g", groups,
                           "-n", d_state, p.has_d ? "-d" : "",
                           p.has_dt_bias ? "-bias" : "", p.has_z ? "-z" : "");
    problems.push_back(p);
  };
  constexpr int kAll = 7;
  for (int options = 0; options <= kAll; ++options)
    add(2, 6, 37, 2, 128, options);
  // Padded and odd states, from one to the most; one channel and many; a real
  // layer, few sequences and many.
  for (int64_t d_state : {1, 3, 8, 20, 31, 64, 100, 200, 255, 256})
    add(1, 3, 18, 3, d_state, kAll);
  add(3, 1, 1, 1, 16, kAll);
  add(1, 2, 130, 1, 64, kAll);
  add(1, 24, 64, 1, 128, kAll);
  add(16, 32, 64, 8, 128, kAll);
  return problems;
}

namespace {
const bool registered = AddOperator<SsdStep>();
}  // namespace

}  // namespace seqmark
