// SPDX-License-Identifier: Apache-2.0
//
// That the rows' small problems of the state space operators, and of the
// convolution and the norms around them, are of every length, width and option
// that these are claimed to be right at.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/layernorm/layernorm.h"
#include "ops/mamba2_inner/mamba2_inner.h"
#include "ops/rmsnorm/rmsnorm.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/ssd_scan/ssd_scan.h"

namespace seqmark {
namespace {

using testing::IsSupersetOf;
using testing::UnorderedElementsAre;

const std::vector<int64_t> kLengths = {1, 63, 64, 65, 1000, 57001};
const std::vector<int64_t> kBatches = {1, 64};
const std::vector<int64_t> kStateSizes = {16, 64, 128, 256};
const std::vector<int64_t> kGroups = {1, 2, 8};
const std::vector<int64_t> kHeadDims = {32, 64, 128};

// What `axis`, a member or a function of a problem, is among Op's problems.
template <class Op, class Axis>
auto Values(Axis axis) {
  using Problem = typename Op::Problem;
  std::set<std::decay_t<std::invoke_result_t<Axis, const Problem&>>> values;
  for (const Problem& p : Op::TestProblems())
    values.insert(std::invoke(axis, p));
  return values;
}

template <class Op>
void ExpectExtents() {
  EXPECT_THAT(Values<Op>(&Op::Problem::seqlen), IsSupersetOf(kLengths));
  EXPECT_THAT(Values<Op>(&Op::Problem::batch), IsSupersetOf(kBatches));
}

// Each option alone, all of them, and none.
template <class Op>
void ExpectOptions(const std::vector<bool Op::Problem::*>& options) {
  using Chosen = std::vector<bool>;
  const auto chosen = Values<Op>([&](const typename Op::Problem& p) {
    Chosen of_problem;
    for (const auto option : options) of_problem.push_back(p.*option);
    return of_problem;
  });
  std::vector<Chosen> expected = {Chosen(options.size(), false),
                                  Chosen(options.size(), true)};
  for (size_t i = 0; i < options.size(); ++i) {
    expected.push_back(expected.front());
    expected.back()[i] = true;
  }
  EXPECT_THAT(chosen, IsSupersetOf(expected));
}

// Every pair of a head's width with a number of groups and of states.
template <class Op>
void ExpectHeads() {
  using Problem = typename Op::Problem;
  using Pair = std::pair<int64_t, int64_t>;
  std::vector<Pair> groups, states;
  for (const int64_t head_dim : kHeadDims) {
    for (const int64_t n : kGroups) groups.emplace_back(head_dim, n);
    for (const int64_t n : kStateSizes) states.emplace_back(head_dim, n);
  }
  EXPECT_THAT(
      Values<Op>([](const Problem& p) { return Pair(p.head_dim, p.groups); }),
      IsSupersetOf(groups));
  EXPECT_THAT(
      Values<Op>([](const Problem& p) { return Pair(p.head_dim, p.d_state); }),
      IsSupersetOf(states));
}

TEST(Coverage, SsdScan) {
  using P = SsdScan::Problem;
  ExpectExtents<SsdScan>();
  ExpectHeads<SsdScan>();
  ExpectOptions<SsdScan>(
      {&P::has_d, &P::has_dt_bias, &P::has_z, &P::has_initial_state});
}

TEST(Coverage, Mamba2Inner) {
  using P = Mamba2Inner::Problem;
  ExpectExtents<Mamba2Inner>();
  ExpectHeads<Mamba2Inner>();
  ExpectOptions<Mamba2Inner>({&P::conv_bias, &P::has_d, &P::has_dt_bias,
                              &P::has_z, &P::norm, &P::has_initial_states});
}

TEST(Coverage, SelectiveScan) {
  using P = SelectiveScan::Problem;
  ExpectExtents<SelectiveScan>();
  EXPECT_THAT(Values<SelectiveScan>(&P::d_state), IsSupersetOf(kStateSizes));
  ExpectOptions<SelectiveScan>(
      {&P::has_d, &P::has_dt_bias, &P::has_z, &P::has_initial_state});
}

TEST(Coverage, CausalConv1d) {
  using P = CausalConv1d::Problem;
  ExpectExtents<CausalConv1d>();
  ExpectOptions<CausalConv1d>(
      {&P::bias, &P::silu, &P::initial_state, &P::final_state});
}

TEST(Coverage, Norms) {
  ExpectExtents<RmsNorm>();
  ExpectExtents<LayerNorm>();
  EXPECT_THAT(Values<RmsNorm>(&RmsNorm::Problem::groups),
              IsSupersetOf(kGroups));
  EXPECT_THAT(Values<RmsNorm>(&RmsNorm::Problem::gate),
              UnorderedElementsAre(NormGate::kNone, NormGate::kBefore,
                                   NormGate::kAfter));
  EXPECT_THAT(Values<RmsNorm>(&RmsNorm::Problem::residual),
              UnorderedElementsAre(false, true));
  EXPECT_THAT(Values<LayerNorm>(&LayerNorm::Problem::residual),
              UnorderedElementsAre(false, true));
}

}  // namespace
}  // namespace seqmark
