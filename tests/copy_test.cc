// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of a copy: tensors that begin anywhere, large ones
// verified in many places, and that the sweep has a size for every row that is
// set beside it.
#include "ops/copy/copy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "fixtures/row.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

Copy::Problem OneRow(int64_t width, DType dtype) {
  Copy::Problem p;
  p.dtype = dtype;
  p.width = width;
  return p;
}

TEST(Copy, TensorsMayBeginAtAnyElement) {
  ForEachProvider<Copy>([](const auto& provider, Device& device) {
    for (DType dtype : provider.dtypes)
      for (int64_t width : {1, 7, 64, 40000})
        for (const auto& [from, to] : {std::pair{1, 0}, {0, 1}, {3, 3}}) {
          SCOPED_TRACE(absl::StrCat(Name(dtype), " ", width, " from ", from,
                                    " to ", to));
          OpCall<Copy> call(OneRow(width, dtype), device);
          const std::string expected = call.Read(call.args.x);
          const SpacedView x(call.args.x, from, width, device);
          const SpacedView y(call.args.y, to, width, device);
          call.Run(provider);
          EXPECT_EQ(y.Read(), expected);  // and nothing beside it
          EXPECT_EQ(x.Read(), expected);
        }
  });
}

// There is no arithmetic to say how many parts a reference can afford.
TEST(Copy, LargeOnesAreVerifiedInManyPlaces) {
  Copy::Problem p = OneRow(4096, DType::kBF16);
  p.seqlen = 65536;
  const auto parts = PartsOf<Copy>(p, 1);
  ASSERT_EQ(parts.size(), 32u);
  std::set<int64_t> begins;
  for (const auto& part : parts)
    begins.insert(PartBegin(p.seqlen, part.problem.seqlen, part.at));
  EXPECT_EQ(begins.size(), parts.size());
  EXPECT_EQ(*begins.begin(), 0);
  EXPECT_EQ(*begins.rbegin(), p.seqlen - parts.back().problem.seqlen);
}

// What a copy of as many bytes takes is asked of each: one within 10 %.
TEST(Copy, TheSweepHasTheSizeOfEveryRowThatMemoryLimits) {
  const std::set<std::string> operators = {"activation", "causal_conv1d",
                                           "layernorm", "rmsnorm", "rope"};
  const auto rows = MakeRows(RowSet::kSweep, {});
  std::map<DType, std::set<double>> copies;
  const auto bytes = [](const Row& row) {
    return static_cast<double>(row.bytes_read() + row.bytes_written());
  };
  for (const auto& row : rows)
    if (row->name().op == "copy") copies[row->name().dtype].insert(bytes(*row));
  std::set<std::string> seen;
  for (const auto& row : rows) {
    const double moved = bytes(*row);
    if (!operators.contains(row->name().op) || moved < 1e8) continue;
    seen.insert(row->name().op);
    const auto& sizes = copies[row->name().dtype];
    const auto above = sizes.lower_bound(moved);
    double nearest = above == sizes.end() ? 0 : *above;
    if (above != sizes.begin() &&
        std::fabs(*std::prev(above) - moved) < std::fabs(nearest - moved))
      nearest = *std::prev(above);
    EXPECT_NEAR(nearest / moved, 1, 0.1) << row->name().ToString();
  }
  EXPECT_EQ(seen, operators);
}

}  // namespace
}  // namespace seqmark
