// SPDX-License-Identifier: Apache-2.0
#include "ops/copy/copy.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"

namespace seqmark {
namespace {

Copy::Problem Make(int64_t batch, int64_t seqlen, int64_t width) {
  Copy::Problem p;
  p.shape = absl::StrCat("custom.width", width);
  p.batch = batch;
  p.seqlen = seqlen;
  p.width = width;
  return p;
}

}  // namespace

Cost Copy::GetCost(const Problem&) { return {}; }

// The same bits, so no error at all.
Tolerance Copy::GetTolerance(const Problem&) { return {}; }

// By size: a token of 16 bits moves 16 KiB. Powers of two from 1 MiB to 8 GiB,
// as the largest row of 16 bits moves; from 32 MiB on five to an octave. Most
// widths in ops/shapes.h are these, up to powers of two, and no number of bytes
// between is more than 10 % from one of them.
std::vector<Copy::Problem> Copy::Sweep() {
  constexpr int64_t kWidth = 4096, kFirst = 64, kDense = 2048, kLast = 524288;
  std::vector<Problem> problems;
  for (int64_t seqlen = kFirst; seqlen <= kLast; seqlen *= 2)
    for (int64_t eighths : {8, 9, 10, 12, 14})
      if (eighths == 8 || (seqlen >= kDense && seqlen < kLast))
        problems.push_back(Make(1, seqlen * eighths / 8, kWidth));
  return problems;
}

std::vector<Copy::Problem> Copy::TestProblems() {
  std::vector<Problem> problems;
  // Less than a vector, vectors and a rest, many of them on a chip or not, a
  // page and a rest.
  for (const auto& [batch, seqlen, width] : {std::tuple{1, 1, 1},
                                             {1, 1, 7},
                                             {1, 1, 8},
                                             {2, 3, 33},
                                             {3, 17, 1001},
                                             {1, 5, 4096},
                                             {1, 64, 4096},
                                             {1, 521, 4099}})
    problems.push_back(Make(batch, seqlen, width));
  return problems;
}

namespace {
const bool registered = AddOperator<Copy>();
}  // namespace

}  // namespace seqmark
