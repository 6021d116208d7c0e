// SPDX-License-Identifier: Apache-2.0
//
// Token embedding: the rows of a table that the tokens name, times a scale
// (Vaswani et al. 2017, arXiv:1706.03762, section 3.4), plus those of learned
// positions where the model has them:
//
//   y[b, l] = table[tokens[b, l]] * scale (+ positions[position + l])
//
// Token ids are in 0..vocab-1: whoever makes them validates them, on the host;
// providers do not, and read outside the table for others.
//
// Arithmetic is f32 whatever the tensors' type. Memory limits it. Bytes: the
// tokens, the rows that are read, and y. Of the table each row counts once, by
// the number of different ones among uniform tokens; of the positions, those of
// the seqlen tokens.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"

namespace seqmark {

struct Embedding {
  static constexpr absl::string_view kName = "embedding";

  struct Problem : ProblemAxes {
    int64_t vocab = 0;
    int64_t width = 0;
    float scale = 1;
    bool learned_positions = false;
    int64_t max_position = 0;  // rows of positions
    int64_t position = 0;      // of the first token, the same in each sequence

    int64_t rows() const { return batch * seqlen; }
    // Expected number of different tokens among rows() uniform ones.
    double distinct_tokens() const {
      return -static_cast<double>(vocab) *
             std::expm1(static_cast<double>(rows()) *
                        std::log1p(-1.0 / static_cast<double>(vocab)));
    }
  };

  // Table and positions hold activations: rows of O(1), as models train them
  // up to a scale, so that outputs are not tiny.
  struct Args {
    Tensor tokens;     // (batch, seqlen) i32
    Tensor table;      // (vocab, width)
    Tensor positions;  // (max_position, width), optional
    Tensor y;          // (batch, seqlen, width)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    using enum Role;
    const size_t row = p.width * SizeOf(p.dtype);
    visit(
        TensorSpec{"tokens", kIndex, DType::kI32, {p.batch, p.seqlen}, p.vocab},
        a.tokens);
    TensorSpec table = {"table", kActivation, p.dtype, {p.vocab, p.width}};
    table.bytes_touched = std::llround(p.distinct_tokens()) * row;
    visit(table, a.table);
    if (p.learned_positions) {
      TensorSpec positions = {
          "positions", kActivation, p.dtype, {p.max_position, p.width}};
      positions.bytes_touched = p.seqlen * row;
      visit(positions, a.positions);
    }
    visit(TensorSpec{"y", kOutput, p.dtype, {p.batch, p.seqlen, p.width}}, a.y);
  }

  // InvalidArgument where the learned positions do not reach the last token.
  static absl::Status Check(const Problem& p);
  static Problem Part(const Problem& p, double at) {
    Problem part = WithTokens(p, 64);
    part.width = std::min<int64_t>(p.width, 8);
    part.position += PartBegin(p.seqlen, part.seqlen, at);
    return part;
  }
  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
