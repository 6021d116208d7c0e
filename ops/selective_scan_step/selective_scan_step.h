// SPDX-License-Identifier: Apache-2.0
//
// One token of Mamba's selective scan, as decoding needs it (Gu and Dao 2023,
// arXiv:2312.00752, section 3.3: a recurrence, so a step costs the same
// whatever came before). For each batch entry and channel d:
//
//   dt'  = softplus(dt + dt_bias)
//   h[n] = exp(dt' A[n]) h[n] + dt' B[n] x          n < d_state
//   y    = (sum over n of C[n] h[n] + D x) silu(z)
//
// h is `state` before and `state_out` after; both may be the same memory.
// Formulas, types and roles are those of ops/selective_scan with seqlen 1; the
// Problem's seqlen is the context behind the state, and no tensor has it.
//
// Bytes: the state, read and written, and A: 12 d_state a channel (192 at 16
// states) against some 10 for the rest. So it is bound by memory, and where
// the states of all layers stay in a cache, by its speed or by latency.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/ssm_step/ssm_step.h"

namespace seqmark {

struct SelectiveScanStep {
  static constexpr absl::string_view kName = "selective_scan_step";
  static constexpr bool kSeqlenIsContext = true;

  struct Problem : ProblemAxes {
    int64_t d_inner = 0;
    int64_t d_state = 16;
    bool has_z = true;
    bool has_d = true;
    bool has_dt_bias = true;
  };

  // Axis 0 of x, dt, B, C, z and y may have any stride.
  struct Args {
    Tensor x;          // (batch, d_inner)
    Tensor dt;         // (batch, d_inner): before bias, softplus
    Tensor A;          // (d_inner, d_state), f32
    Tensor B;          // (batch, d_state)
    Tensor C;          // (batch, d_state)
    Tensor D;          // (d_inner), f32, optional
    Tensor z;          // (batch, d_inner), optional
    Tensor dt_bias;    // (d_inner), f32, optional
    Tensor state;      // (batch, d_inner, d_state), f32
    Tensor y;          // (batch, d_inner)
    Tensor state_out;  // (batch, d_inner, d_state), f32; may be state's memory
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims channels = {p.batch, p.d_inner};
    const Dims groups = {p.batch, p.d_state};
    const Dims states = {p.batch, p.d_inner, p.d_state};
    constexpr DType kF32 = DType::kF32;
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, channels}, a.x);
    visit(TensorSpec{"dt", kStep, p.dtype, channels}, a.dt);
    visit(TensorSpec{"A", kDecay, kF32, {p.d_inner, p.d_state}}, a.A);
    visit(TensorSpec{"B", kActivation, p.dtype, groups}, a.B);
    visit(TensorSpec{"C", kActivation, p.dtype, groups}, a.C);
    if (p.has_d) visit(TensorSpec{"D", kScale, kF32, {p.d_inner}}, a.D);
    if (p.has_z) visit(TensorSpec{"z", kActivation, p.dtype, channels}, a.z);
    if (p.has_dt_bias)
      visit(TensorSpec{"dt_bias", kStepBias, kF32, {p.d_inner}}, a.dt_bias);
    visit(TensorSpec{"state", kState, kF32, states}, a.state);
    visit(TensorSpec{"y", kOutput, p.dtype, channels}, a.y);
    visit(TensorSpec{"state_out", kOutput, kF32, states}, a.state_out);
  }

  // The scan that a step is.
  static SelectiveScan::Problem Scan(const Problem& p) {
    SelectiveScan::Problem scan;
    scan.dtype = p.dtype;
    scan.batch = p.batch;
    scan.seqlen = 1;
    scan.d_inner = p.d_inner;
    scan.d_state = p.d_state;
    scan.has_z = p.has_z;
    scan.has_d = p.has_d;
    scan.has_dt_bias = p.has_dt_bias;
    scan.has_initial_state = true;
    return scan;
  }

  // The step as its providers take it.
  static SsmStep Step(const Problem& p, const Args& a) {
    SsmStep s = ViewStep(a);
    s.batch = p.batch;
    s.rows = p.d_inner;
    s.d_state = p.d_state;
    s.row_decay = true;
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
