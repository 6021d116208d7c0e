// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467, eq.
// 4), in the forms that sequence models use:
//
//   u = x                      or  u = x + residual, and residual_out = u
//   (x first times 1 / sqrt(sum(squares) / scale_width + scale_epsilon))
//   u = u * silu(gate)         gate before the norm (Mamba-2's default)
//   y = u / sqrt(mean(u^2) + epsilon) * weight
//   y = y * silu(gate)         gate after the norm
//
// The mean is over each of `groups` equal parts of the row (the group_size of
// Mamba-2's gated norm is width / groups). residual_out may be the same memory
// as residual; with residual_f32 both are f32 whatever dtype is.
//
// The line in brackets is a norm before this one that was left to it: Mamba-2
// norms what its output projection reads, one factor a row is all that is left
// to do after that projection, and whoever made its input has the row's squares
// (ops/mamba2_inner), summed up in `scale_parts` parts.
//
// Arithmetic is f32 whatever the tensors' type. Bytes: x, y and what else is
// there once each, so it is bound by memory at every width.
#pragma once

#include <cmath>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"
#include "ops/norm/norm.h"

namespace seqmark {

enum class NormGate : uint8_t { kNone, kBefore, kAfter };

struct RmsNorm {
  static constexpr absl::string_view kName = "rmsnorm";

  struct Problem : NormAxes {
    int64_t groups = 1;  // divides width
    NormGate gate = NormGate::kNone;
    int64_t scale_parts = 0;  // of the row's squares; 0: x is as it should be
    int64_t scale_width = 0;  // how many squares there are in all
    float scale_epsilon = 1e-5f;

    int64_t group_width() const { return width / groups; }
  };

  // Axes 0 and 1 of all but weight may have any stride.
  struct Args {
    Tensor x;             // (batch, seqlen, width)
    Tensor residual;      // (batch, seqlen, width), optional
    Tensor gate;          // (batch, seqlen, width), optional
    Tensor weight;        // (width)
    Tensor squares;       // (batch, seqlen, scale_parts) f32, optional
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
    if (p.gate != NormGate::kNone)
      visit(TensorSpec{"gate", kActivation, p.dtype, rows}, a.gate);
    visit(TensorSpec{"weight", kScale, p.dtype, {p.width}}, a.weight);
    if (p.scale_parts > 0)
      visit(TensorSpec{"squares",
                       kScale,
                       DType::kF32,
                       {p.batch, p.seqlen, p.scale_parts}},
            a.squares);
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
