// SPDX-License-Identifier: Apache-2.0
//
// Layer normalisation over the last axis (Ba, Kiros and Hinton 2016,
// arXiv:1607.06450, eq. 4), as GPT-style models use it:
//
//   u = x                      or  u = x + residual, and residual_out = u
//   mean = sum(u) / width,  variance = sum((u - mean)^2) / width
//   y = (u - mean) / sqrt(variance + epsilon) * weight + bias
//
// residual_out may be the same memory as residual; with residual_f32 both are
// f32 whatever dtype is.
//
// Arithmetic is f32 whatever the tensors' type, and the deviations are squared
// after the mean is known: E[x^2] - mean^2 cancels. Bytes: x, y and
// the residual once each, so it is bound by memory at every width.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"
#include "ops/norm/norm.h"

namespace seqmark {

struct LayerNorm {
  static constexpr absl::string_view kName = "layernorm";

  struct Problem : NormAxes {};

  // Axes 0 and 1 of all but weight and bias may have any stride.
  struct Args {
    Tensor x;             // (batch, seqlen, width)
    Tensor residual;      // (batch, seqlen, width), optional
    Tensor weight;        // (width)
    Tensor bias;          // (width)
    Tensor y;             // (batch, seqlen, width)
    Tensor residual_out;  // (batch, seqlen, width): x + residual, optional
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims rows = {p.batch, p.seqlen, p.width};
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, rows}, a.x);
    if (p.residual)
      visit(TensorSpec{"residual", kActivation, p.residual_dtype(), rows},
            a.residual);
    visit(TensorSpec{"weight", kScale, p.dtype, {p.width}}, a.weight);
    visit(TensorSpec{"bias", kBias, p.dtype, {p.width}}, a.bias);
    visit(TensorSpec{"y", kOutput, p.dtype, rows}, a.y);
    if (p.residual)
      visit(TensorSpec{"residual_out", kOutput, p.residual_dtype(), rows},
            a.residual_out);
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
