// SPDX-License-Identifier: Apache-2.0
#include "ops/ssd_scan/ssd_scan.h"

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost SsdScan::GetCost(const Problem& p) {
  const double steps = static_cast<double>(p.batch) * p.seqlen * p.heads;
  const double elements = steps * p.head_dim;
  Cost cost;
  // decay * state + input * B: 3; the sum over states with C: 2
  cost.matrix_flops = elements * p.d_state * 5;
  // step * A; step * x
  cost.vector_flops = steps + elements;
  cost.special_ops = steps * 3;  // softplus: exp and log1p; the decay
  if (p.has_dt_bias) cost.vector_flops += steps;
  if (p.has_d) cost.vector_flops += elements * 2;
  if (p.has_z) {
    cost.vector_flops += elements * 2;  // 1 + e^-z; times silu
    cost.special_ops += elements * 2;   // e^-z; the division
  }
  return cost;
}

Tolerance SsdScan::GetTolerance(const Problem& p) {
  // Rounding to nearest errs by a relative epsilon / sqrt(12) on average. In a
  // sum of terms of random sign the errors add as the terms do, so a sum whose
  // terms carry k roundings errs by sqrt(k) times that, relative to its rms,
  // however long it is. A y has at most 4: one of the scaled (C B) or of the
  // state, one of the scaled x or B that the state was made of, y itself, and
  // y again before a gate.
  const double roundings = 4;
  const double sigma = Epsilon(p.dtype) * std::sqrt(roundings / 12);
  // f32 arithmetic beneath: a sum over d_state, one over the tokens of a
  // chunk, and decays whose exponents, sums of up to 256 steps, are off by a
  // few f32 roundings of the sum. Steps reach 0.1 with a bias, 2 without; A
  // reaches -16, but where a sum is that large its decay is nearly 0, and
  // relative errors matter only where exponents are small. A sum of 32 is the
  // largest whose decay (1e-14) is above f32's noise.
  const double f32 = Epsilon(DType::kF32) * (std::sqrt(p.d_state + 256.0) + 32);
  // The worst of n normal errors is sqrt(2 ln n) deviations out. The metric
  // divides by the whole tensor's rms, but an element's own scale is larger
  // in heads with large steps (their rms is up to 4 times the mean) and where
  // silu(z) is (up to 4 of a typical 0.6).
  const double outputs = static_cast<double>(p.batch) * p.heads * p.head_dim *
                         std::max<int64_t>(p.seqlen, p.d_state);
  const double spread = 4 * (p.has_z ? 6 : 1);
  const double worst = std::sqrt(2 * std::log(outputs + 2)) * spread;
  return {.max_error = 0.5 * Epsilon(p.dtype) + worst * (sigma + f32),
          .l2_error = sigma + f32};
}

std::vector<SsdScan::Problem> SsdScan::Sweep() {
  std::vector<Problem> problems;
  std::vector<Extent> extents(kLongExtents.begin(), kLongExtents.end());
  extents.push_back({8, 4096});
  extents.push_back({32, 2048});
  for (const Mamba2Layer& layer : kMamba2Layers)
    for (const Extent& extent : extents) {
      Problem p;
      p.shape = std::string(layer.model);
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      p.heads = layer.heads;
      p.head_dim = layer.head_dim;
      p.groups = layer.groups;
      p.d_state = layer.d_state;
      problems.push_back(p);
    }
  return problems;
}

std::vector<SsdScan::Problem> SsdScan::TestProblems() {
  struct Options {
    bool d, dt_bias, z, initial_state;
    float dt_min = 0;
  };
  constexpr Options kPlain = {true, true, false, false};
  constexpr Options kAll = {true, true, true, true};
  constexpr Options kNone = {false, false, false, false};
  constexpr Options kD = {true, false, false, false};
  constexpr Options kBias = {false, true, false, false};
  constexpr Options kZ = {false, false, true, false};
  constexpr Options kInitial = {false, false, false, true};
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t heads,
                       int64_t head_dim, int64_t groups, int64_t d_state,
                       const Options& o) {
    Problem p;
    p.shape = absl::StrCat(
        "custom.h", heads, "-p", head_dim, "-g", groups, "-n", d_state,
        o.d ? "-d" : "", o.dt_bias ? "-bias" : "", o.z ? "-z" : "",
        o.initial_state ? "-init" : "", o.dt_min > 0 ? "-min" : "");
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = heads;
    p.head_dim = head_dim;
    p.groups = groups;
    p.d_state = d_state;
    p.has_d = o.d;
    p.has_dt_bias = o.dt_bias;
    p.has_z = o.z;
    p.has_initial_state = o.initial_state;
    p.dt_min = o.dt_min;
    problems.push_back(p);
  };
  // One token; less than a chunk; odd lengths over several chunks; a head
  // count that fills no tile; padded states.
  add(1, 1, 1, 64, 1, 16, kPlain);
  add(2, 1, 3, 64, 3, 128, kAll);
  add(1, 7, 2, 64, 2, 64, kNone);
  add(2, 63, 5, 64, 1, 16, kAll);
  add(1, 64, 4, 64, 2, 24, kPlain);
  add(1, 65, 3, 32, 1, 40, kAll);
  add(1, 129, 6, 64, 2, 128, kNone);
  add(1, 257, 3, 128, 1, 64, {false, true, true, false});
  add(2, 333, 3, 64, 1, 128, {true, false, false, true});
  add(1, 191, 2, 128, 1, 128, kAll);
  add(1, 130, 2, 64, 1, 256, kAll);
  add(1, 100, 3, 128, 3, 256, {false, true, false, true});
  add(2, 301, 8, 64, 8, 64, kPlain);
  // More chunks than CTAs fit on a GPU at once: several in a segment.
  add(4, 641, 16, 64, 2, 16, kAll);
  // So many heads that segments are few, and what they add is made in pieces.
  add(1, 1100, 128, 64, 8, 16, kAll);
  // So many heads a group and so many tokens that its C B^T is made once for
  // them all, on 132 multiprocessors.
  add(1, 970, 94, 64, 2, 16, kAll);
  add(1, 580, 24, 128, 1, 72, kPlain);
  add(2, 1000, 47, 64, 1, 16, kNone);
  // Every option alone, in tiles and where no tile fits; all groups, head_dims
  // and d_states of models with each other.
  add(1, 1000, 2, 64, 1, 16, kD);
  add(64, 65, 1, 64, 1, 16, kBias);
  add(1, 65, 8, 128, 8, 16, kZ);
  add(1, 63, 4, 128, 2, 32, kInitial);
  add(1, 63, 2, 32, 2, 256, kD);
  add(1, 40, 8, 32, 8, 64, kBias);
  add(1, 33, 2, 32, 1, 16, kZ);
  add(1, 20, 2, 32, 1, 128, kInitial);
  // Many segments, the last chunk not full, and their states passed on.
  add(1, 57001, 1, 64, 1, 8, kAll);
  add(1, 8200, 1, 128, 1, 24, kAll);
  // Steps held up by a minimum: the inputs' are 0.001 to 0.1.
  add(1, 77, 3, 64, 1, 32, {true, true, false, true, 0.02f});
  // Shapes no matrix tile fits: of tiny models, and an odd d_state.
  add(2, 70, 4, 8, 2, 16, kAll);
  add(1, 37, 3, 12, 1, 8, kPlain);
  add(1, 50, 2, 16, 1, 20, kAll);
  add(1, 33, 2, 64, 1, 7, kPlain);
  // A real layer.
  add(1, 192, 24, 64, 1, 128, kPlain);
  return problems;
}

namespace {
const bool registered = AddOperator<SsdScan>();
}  // namespace

}  // namespace seqmark
