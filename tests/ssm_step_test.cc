// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of the steps: views into wider projections, and a state
// that is updated in place.
#include "ops/selective_scan_step/selective_scan_step.h"
#include "ops/ssd_step/ssd_step.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

template <class Op>
void ExpectViewsAndAliasesChangeNothing(const typename Op::Problem& problem) {
  ForEachProvider<Op>([&](const auto& provider, Device& device) {
    OpCall<Op> plain(problem, device);
    plain.Run(provider);
    // Rows that keep 16-byte and only element alignment.
    for (const auto& [extra, offset] : {std::pair{32, 16}, {7, 3}}) {
      SCOPED_TRACE(absl::StrCat(extra, " wider, from ", offset));
      OpCall<Op> views(problem, device);
      auto& a = views.args;
      for (Tensor* t : {&a.x, &a.dt, &a.B, &a.C, &a.z, &a.y})
        views.Widen(*t, 1, t->size() / problem.batch + extra, offset);
      views.Run(provider);
      ExpectSameOutputs(views, plain);
    }
    OpCall<Op> in_place(problem, device);
    in_place.args.state_out = in_place.args.state;
    in_place.Run(provider);
    ExpectSameOutputs(in_place, plain);
  });
}

TEST(SelectiveScanStep, ReadsStridesAndUpdatesInPlace) {
  for (const auto& [batch, d_inner, d_state] :
       {std::tuple{1, 64, 16}, {3, 77, 16}, {2, 5, 7}, {40, 1536, 16}}) {
    SCOPED_TRACE(absl::StrCat(batch, " ", d_inner, " ", d_state));
    SelectiveScanStep::Problem p;
    p.batch = batch;
    p.d_inner = d_inner;
    p.d_state = d_state;
    ExpectViewsAndAliasesChangeNothing<SelectiveScanStep>(p);
  }
}

TEST(SsdStep, ReadsStridesAndUpdatesInPlace) {
  for (const auto& [batch, heads, head_dim, d_state] :
       {std::tuple{1, 4, 64, 128},
        {3, 6, 7, 64},
        {2, 2, 5, 31},
        {16, 24, 64, 128}}) {
    SCOPED_TRACE(absl::StrCat(batch, " ", heads, " ", head_dim, " ", d_state));
    SsdStep::Problem p;
    p.batch = batch;
    p.heads = heads;
    p.head_dim = head_dim;
    p.groups = 2;
    p.d_state = d_state;
    p.has_z = true;
    ExpectViewsAndAliasesChangeNothing<SsdStep>(p);
  }
}

}  // namespace
}  // namespace seqmark
