// SPDX-License-Identifier: Apache-2.0
//
// y = x: what the machine does at its best with as many bytes as a row that
// memory limits moves, half of them read and half written. One rate of a large
// copy (the ceilings) does not say that: a short one has its start and its end.
//
// x and y are contiguous and apart, and y has x's bits. Bytes: x and y once
// each; there is no arithmetic.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"

namespace seqmark {

struct Copy {
  static constexpr absl::string_view kName = "copy";

  struct Problem : ProblemAxes {
    int64_t width = 0;

    // Of x, and of y.
    int64_t bytes() const {
      return batch * seqlen * width * static_cast<int64_t>(SizeOf(dtype));
    }
  };

  struct Args {
    Tensor x;  // (batch, seqlen, width)
    Tensor y;  // (batch, seqlen, width)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    using enum Role;
    const Dims rows = {p.batch, p.seqlen, p.width};
    visit(TensorSpec{"x", kActivation, p.dtype, rows}, a.x);
    visit(TensorSpec{"y", kOutput, p.dtype, rows}, a.y);
  }

  static Problem Part(const Problem& p, double) { return WithTokens(p, 16); }
  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
