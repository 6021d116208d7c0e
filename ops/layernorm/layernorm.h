// SPDX-License-Identifier: Apache-2.0
//
// Layer normalisation over the last axis (Ba, Kiros and Hinton 2016,
// arXiv:1607.06450, eq. 4), as GPT-style models use it:
//
//   mean = sum(x) / width,  variance = sum((x - mean)^2) / width
//   y = (x - mean) / sqrt(variance + epsilon) * weight + bias
//
// Arithmetic is f32 whatever the tensors' type, and the deviations are squared
// after the mean is known: E[x^2] - mean^2 cancels. Bytes: x and y once each,
// so it is bound by memory at every width.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"

namespace seqmark {

struct LayerNorm {
  static constexpr absl::string_view kName = "layernorm";

  struct Problem : ProblemAxes {
    int64_t width = 0;
    float epsilon = 1e-5f;

    int64_t rows() const { return batch * seqlen; }
  };

  struct Args {
    Tensor x;       // (batch, seqlen, width)
    Tensor weight;  // (width)
    Tensor bias;    // (width)
    Tensor y;       // (batch, seqlen, width)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims rows = {p.batch, p.seqlen, p.width};
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, rows}, a.x);
    visit(TensorSpec{"weight", kScale, p.dtype, {p.width}}, a.weight);
    visit(TensorSpec{"bias", kBias, p.dtype, {p.width}}, a.bias);
    visit(TensorSpec{"y", kOutput, p.dtype, rows}, a.y);
  }

  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
