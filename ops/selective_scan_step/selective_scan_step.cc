// SPDX-License-Identifier: Apache-2.0
#include "ops/selective_scan_step/selective_scan_step.h"

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost SelectiveScanStep::GetCost(const Problem& p) {
  return SelectiveScan::GetCost(Scan(p));
}

Tolerance SelectiveScanStep::GetTolerance(const Problem& p) {
  return SelectiveScan::GetTolerance(Scan(p));
}

std::vector<SelectiveScanStep::Problem> SelectiveScanStep::Sweep() {
  std::vector<Problem> problems;
  for (const MambaLayer& layer : kMambaLayers)
    for (int64_t batch : {1, 8, 32}) {
      Problem p;
      p.shape = std::string(layer.model);
      p.batch = batch;
      p.seqlen = 1024;  // of context; no other, for it changes nothing
      p.d_inner = layer.d_inner;
      p.d_state = layer.d_state;
      problems.push_back(p);
    }
  return problems;
}

std::vector<SelectiveScanStep::Problem> SelectiveScanStep::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t d_inner, int64_t d_state,
                       int options) {
    Problem p;
    p.batch = batch;
    p.d_inner = d_inner;
    p.d_state = d_state;
    p.has_z = options & 1;
    p.has_d = options & 2;
    p.has_dt_bias = options & 4;
    p.shape = absl::StrCat("custom.inner", d_inner, "-state", d_state,
                           p.has_z ? "-z" : "", p.has_d ? "-d" : "",
                           p.has_dt_bias ? "-bias" : "");
    problems.push_back(p);
  };
  constexpr int kAll = 7;
  for (int options = 0; options <= kAll; ++options) add(2, 37, 16, options);
  // Padded and odd states, from one to the most; a real layer, few and many.
  for (int64_t d_state : {1, 3, 8, 12, 31, 64, 100, 128, 200, 255, 256})
    add(1, 71, d_state, kAll);
  add(3, 1, 16, kAll);
  add(1, 1536, 16, kAll);
  add(64, 2048, 16, kAll);
  return problems;
}

namespace {
const bool registered = AddOperator<SelectiveScanStep>();
}  // namespace

}  // namespace seqmark
