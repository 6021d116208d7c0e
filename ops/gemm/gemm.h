// SPDX-License-Identifier: Apache-2.0
//
// A linear layer, the projection around every mixer and MLP:
//
//   y = x W^T (+ bias) (+ addend)
//
// Products are exact or f32, sums f32, and y is rounded once to its type.
// With M = batch * seqlen rows it is bound by the matrix units from a few
// hundred rows on, by the reading of W below: a decode step is a matrix-vector
// product.
#pragma once

#include <algorithm>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"

namespace seqmark {

struct Gemm {
  static constexpr absl::string_view kName = "gemm";

  struct Problem : ProblemAxes {
    int64_t in_features = 0;
    int64_t out_features = 0;
    bool bias = false;
    bool addend = false;  // a residual stream, or another layer's output

    int64_t rows() const { return batch * seqlen; }
  };

  // Rows of x, of addend and of y may be any one distance apart: slices of
  // wider rows.
  struct Args {
    Tensor x;       // (batch, seqlen, in_features)
    Tensor weight;  // (out_features, in_features)
    Tensor bias;    // (out_features), optional
    Tensor addend;  // (batch, seqlen, out_features), optional; may be the
                    // memory of y, with its strides
    Tensor y;       // (batch, seqlen, out_features)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    using enum Role;
    visit(
        TensorSpec{
            "x", kActivation, p.dtype, {p.batch, p.seqlen, p.in_features}},
        a.x);
    visit(
        TensorSpec{"weight", kWeight, p.dtype, {p.out_features, p.in_features}},
        a.weight);
    if (p.bias)
      visit(TensorSpec{"bias", kBias, p.dtype, {p.out_features}}, a.bias);
    if (p.addend)
      visit(TensorSpec{"addend",
                       kActivation,
                       p.dtype,
                       {p.batch, p.seqlen, p.out_features}},
            a.addend);
    visit(
        TensorSpec{"y", kOutput, p.dtype, {p.batch, p.seqlen, p.out_features}},
        a.y);
  }

  // Elements from one of the batch * seqlen rows of `t` to the next.
  // InvalidArgument where they are not equally spaced.
  static absl::StatusOr<int64_t> RowStride(const Tensor& t);

  // Some rows of some features.
  static Problem Part(const Problem& p, double) {
    Problem part = WithTokens(p, 8);
    part.out_features = std::min<int64_t>(p.out_features, 64);
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
