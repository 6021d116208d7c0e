// SPDX-License-Identifier: Apache-2.0
//
// One token of Mamba-2's scan, as decoding needs it (Dao and Gu 2024,
// arXiv:2405.21060, section 6, its recurrent form). Head h reads group
// g = h / (heads / groups):
//
//   dt' = softplus(dt + dt_bias)        a = exp(dt' A)
//   state_out = a state + (dt' x) B^T   (head_dim x d_state, f32)
//   y = (state_out C + D x) silu(z)
//
// state_out may be the same memory as state. Formulas, types and roles are
// those of ops/ssd_scan with seqlen 1; the Problem's seqlen is the context
// behind the state, and no tensor has it.
//
// Bytes: the state, read and written, 8 heads head_dim d_state a sequence (5.2
// MB a layer of mamba2-2.7b); 5 flops for each 8 of them. So it is bound by
// memory, and where the states of all layers stay in a cache, by its speed or
// by latency.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "ops/ssd_scan/ssd_scan.h"
#include "ops/ssm_step/ssm_step.h"

namespace seqmark {

struct SsdStep {
  static constexpr absl::string_view kName = "ssd_step";
  static constexpr bool kSeqlenIsContext = true;

  struct Problem : ProblemAxes {
    int64_t heads = 0;
    int64_t head_dim = 64;
    int64_t groups = 1;  // divides heads
    int64_t d_state = 128;
    bool has_d = true;
    bool has_dt_bias = true;
    bool has_z = false;
  };

  // Axis 0 of x, dt, B, C, z and y may have any stride.
  struct Args {
    Tensor x;          // (batch, heads, head_dim)
    Tensor dt;         // (batch, heads): before bias, softplus
    Tensor A;          // (heads) f32, negative
    Tensor B;          // (batch, groups, d_state)
    Tensor C;          // (batch, groups, d_state)
    Tensor D;          // (heads) f32, optional
    Tensor dt_bias;    // (heads) f32, optional
    Tensor z;          // (batch, heads, head_dim), optional
    Tensor state;      // (batch, heads, head_dim, d_state) f32
    Tensor y;          // (batch, heads, head_dim)
    Tensor state_out;  // (batch, heads, head_dim, d_state) f32; may be state's
                       // memory
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims channels = {p.batch, p.heads, p.head_dim};
    const Dims inputs = {p.batch, p.groups, p.d_state};
    const Dims states = {p.batch, p.heads, p.head_dim, p.d_state};
    constexpr DType kF32 = DType::kF32;
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, channels}, a.x);
    visit(TensorSpec{"dt", kStep, p.dtype, {p.batch, p.heads}}, a.dt);
    visit(TensorSpec{"A", kHeadDecay, kF32, {p.heads}}, a.A);
    visit(TensorSpec{"B", kActivation, p.dtype, inputs}, a.B);
    visit(TensorSpec{"C", kActivation, p.dtype, inputs}, a.C);
    if (p.has_d) visit(TensorSpec{"D", kScale, kF32, {p.heads}}, a.D);
    if (p.has_dt_bias)
      visit(TensorSpec{"dt_bias", kStepBias, kF32, {p.heads}}, a.dt_bias);
    if (p.has_z) visit(TensorSpec{"z", kActivation, p.dtype, channels}, a.z);
    visit(TensorSpec{"state", kState, kF32, states}, a.state);
    visit(TensorSpec{"y", kOutput, p.dtype, channels}, a.y);
    visit(TensorSpec{"state_out", kOutput, kF32, states}, a.state_out);
  }

  // The scan that a step is.
  static SsdScan::Problem Scan(const Problem& p) {
    SsdScan::Problem scan;
    scan.dtype = p.dtype;
    scan.batch = p.batch;
    scan.seqlen = 1;
    scan.heads = p.heads;
    scan.head_dim = p.head_dim;
    scan.groups = p.groups;
    scan.d_state = p.d_state;
    scan.has_d = p.has_d;
    scan.has_dt_bias = p.has_dt_bias;
    scan.has_z = p.has_z;
    scan.has_initial_state = true;
    return scan;
  }

  // The step as its providers take it.
  static SsmStep Step(const Problem& p, const Args& a) {
    SsmStep s = ViewStep(a);
    s.batch = p.batch;
    s.slices = p.heads;
    s.slices_per_group = p.heads / p.groups;
    s.rows = p.head_dim;
    s.d_state = p.d_state;
    return s;
  }

  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
