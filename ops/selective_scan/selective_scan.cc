// SPDX-License-Identifier: Apache-2.0
#include "ops/selective_scan/selective_scan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost SelectiveScan::GetCost(const Problem& p) {
  const double elements = p.tokens() * p.d_inner;
  Cost cost;
  // A state: dt' A, decay h, input B, their sum, C h, its sum. An element:
  // the input dt' x; then what the options add.
  cost.vector_flops = elements * (6.0 * p.d_state + 1);
  cost.special_ops = elements * (p.d_state + 2.0);  // softplus: exp and log1p
  if (p.has_dt_bias) cost.vector_flops += elements;
  if (p.has_d) cost.vector_flops += elements;  // its sum starts from D x
  if (p.has_z) {
    cost.vector_flops += elements * 2;  // 1 + e^-z; times silu
    cost.special_ops += elements * 2;   // e^-z; the division
  }
  return cost;
}

Tolerance SelectiveScan::GetTolerance(const Problem& p) {
  // One step gives a state an f32 error of at most about three epsilon of its
  // value: two ulp of the exponential, the rounding of its argument (small
  // where the decay is near one), half an ulp of the multiply-add. Errors are
  // forgotten as states are: the sum is that of `memory` = 1 / (1 - decay)
  // steps, with the slowest decay that inputs have (dt' = 0.001, A = -0.9), or
  // of all steps if they are fewer. The states of a channel add up in y with
  // random signs, as their errors do: only the sum's own rounding is added.
  // Elements whose sum nearly cancels, and channels with larger states than
  // the rest, may be off by several times the typical error.
  const double memory = std::min<double>(p.seqlen, -1 / std::expm1(-0.0009));
  const double arithmetic =
      (3 * memory + std::sqrt(p.d_state) + 16) * Epsilon(DType::kF32);
  return {.max_error = 0.5 * Epsilon(p.dtype) * 1.01 + 4 * arithmetic,
          .l2_error = 0.5 * Epsilon(p.dtype) + arithmetic};
}

std::vector<SelectiveScan::Problem> SelectiveScan::Sweep() {
  std::vector<Problem> problems;
  std::vector<Extent> extents(kLongExtents.begin(), kLongExtents.end());
  extents.push_back({8, 4096});
  extents.push_back({64, 2048});
  for (const MambaLayer& layer : kMambaLayers)
    for (const Extent& extent : extents) {
      Problem p;
      p.shape = std::string(layer.model);
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      p.d_inner = layer.d_inner;
      p.d_state = layer.d_state;
      problems.push_back(p);
    }
  return problems;
}

std::vector<SelectiveScan::Problem> SelectiveScan::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t d_inner,
                       int64_t d_state, int options) {
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.d_inner = d_inner;
    p.d_state = d_state;
    p.has_z = options & 1;
    p.has_d = options & 2;
    p.has_dt_bias = options & 4;
    p.has_initial_state = options & 8;
    p.shape = absl::StrCat("custom.inner", d_inner, "-state", d_state,
                           p.has_z ? "-z" : "", p.has_d ? "-d" : "",
                           p.has_dt_bias ? "-bias" : "",
                           p.has_initial_state ? "-initial" : "");
    problems.push_back(p);
  };
  constexpr int kSweepOptions = 7, kAll = 15;
  for (int options = 0; options <= kAll; ++options) {
    add(2, 37, 34, 16, options);
    add(1, 41, 7, 20, options);
  }
  add(1, 1, 1, 8, kAll);
  add(1, 1, 1536, 16, kAll);
  add(2, 3, 5, 16, kSweepOptions);
  add(1, 129, 66, 8, kAll);
  add(3, 70, 9, 256, kAll);
  add(1, 67, 36, 64, kSweepOptions);
  add(1, 33, 130, 100, kAll);
  add(1, 65, 34, 128, kAll);
  // Long and narrow: split in time by providers that fill the machine so.
  add(1, 4099, 24, 16, kAll);
  add(2, 2050, 6, 16, kSweepOptions);
  add(1, 1500, 3, 40, kAll);
  add(1, 130, 1536, 16, kSweepOptions);
  // Whole tiles of 16 steps and 32 channels, and one step more or less; several
  // blocks of time; several passes over the states.
  for (const int64_t seqlen : {1, 63, 64, 65, 1000})
    add(1, seqlen, 96, 16, kAll);
  add(1, 4160, 32, 16, kSweepOptions);
  add(2, 520, 64, 32, kAll);
  add(1, 20003, 8, 16, kAll);
  add(1, 57001, 5, 16, kAll);
  // Enough channels that time need not be split.
  add(64, 9, 512, 16, kAll);
  add(64, 37, 512, 4, kAll);
  add(66, 34, 502, 3, kSweepOptions);
  return problems;
}

namespace {
const bool registered = AddOperator<SelectiveScan>();
}  // namespace

}  // namespace seqmark
