// SPDX-License-Identifier: Apache-2.0
//
// Mamba-2's scan: the state space dual with a scalar decay per head (Dao and
// Gu 2024, arXiv:2405.21060, section 6, with the step, skip and gate of its
// section 7). Head h reads group g = h / (heads / groups). For each token:
//
//   dt' = max(softplus(dt + dt_bias), dt_min)        a = exp(dt' * A)
//   state = a * state + (dt' * x) B^T   (head_dim x d_state, f32)
//   y = state C + D * x                 y = y * silu(z)
//
// Cost: the recurrence as written, 5 * heads * head_dim * d_state flops a
// token. All of them are matrix flops: the chunked form (the paper's listing
// 1) does this work as products of matrices, within some ten percent of the
// same count. Least bytes a token are x and y once, 2 * heads * head_dim
// elements, and B and C, so flops per byte are near a GPU's ridge and neither
// limit can be ignored.
//
// States and decays are f32 and exponents are differences of cumulative sums,
// never positive, so nothing overflows whatever the length; the operands of
// matrix products may be rounded to dtype, which is what the tolerance counts.
#pragma once

#include <cmath>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"

namespace seqmark {

struct SsdScan {
  static constexpr absl::string_view kName = "ssd_scan";

  struct Problem : ProblemAxes {
    int64_t heads = 0;
    int64_t head_dim = 64;
    int64_t groups = 1;  // divides heads
    int64_t d_state = 128;
    bool has_d = true;
    bool has_dt_bias = true;
    bool has_z = false;
    bool has_initial_state = false;
    float dt_min = 0;  // Transformers' time_step_min; 0: softplus as it is

    int64_t heads_per_group() const { return heads / groups; }
  };

  // Axes 0 and 1 (batch, seqlen) of x, dt, B, C, z and y may have any stride;
  // the inner axes are contiguous. Everything else is contiguous.
  struct Args {
    Tensor x;              // (batch, seqlen, heads, head_dim)
    Tensor dt;             // (batch, seqlen, heads)
    Tensor A;              // (heads) f32, negative
    Tensor B;              // (batch, seqlen, groups, d_state)
    Tensor C;              // (batch, seqlen, groups, d_state)
    Tensor D;              // (heads) f32, optional
    Tensor dt_bias;        // (heads) f32, optional
    Tensor z;              // (batch, seqlen, heads, head_dim), optional
    Tensor initial_state;  // (batch, heads, head_dim, d_state) f32, optional
    Tensor y;              // (batch, seqlen, heads, head_dim)
    Tensor final_state;    // (batch, heads, head_dim, d_state) f32
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims tokens = {p.batch, p.seqlen, p.heads, p.head_dim};
    const Dims steps = {p.batch, p.seqlen, p.heads};
    const Dims inputs = {p.batch, p.seqlen, p.groups, p.d_state};
    const Dims states = {p.batch, p.heads, p.head_dim, p.d_state};
    constexpr DType kF32 = DType::kF32;
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, tokens}, a.x);
    visit(TensorSpec{"dt", kStep, p.dtype, steps}, a.dt);
    visit(TensorSpec{"A", kHeadDecay, kF32, {p.heads}}, a.A);
    visit(TensorSpec{"B", kActivation, p.dtype, inputs}, a.B);
    visit(TensorSpec{"C", kActivation, p.dtype, inputs}, a.C);
    if (p.has_d) visit(TensorSpec{"D", kScale, kF32, {p.heads}}, a.D);
    if (p.has_dt_bias)
      visit(TensorSpec{"dt_bias", kStepBias, kF32, {p.heads}}, a.dt_bias);
    if (p.has_z) visit(TensorSpec{"z", kActivation, p.dtype, tokens}, a.z);
    if (p.has_initial_state)
      visit(TensorSpec{"initial_state", kState, kF32, states}, a.initial_state);
    visit(TensorSpec{"y", kOutput, p.dtype, tokens}, a.y);
    visit(TensorSpec{"final_state", kOutput, kF32, states}, a.final_state);
  }

  // One row of one head's state over the whole length.
  static Problem Part(const Problem& p, double) {
    Problem part = p;
    part.heads = part.groups = part.head_dim = 1;
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
