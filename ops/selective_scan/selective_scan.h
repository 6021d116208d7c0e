// SPDX-License-Identifier: Apache-2.0
//
// The selective scan of Mamba (Gu and Dao 2023, arXiv:2312.00752, algorithm 2
// with the discretisation of its reference code): for each batch entry and
// channel d, over time l,
//
//   dt'  = softplus(dt + dt_bias)
//   h[n] = exp(dt' A[n]) h[n] + dt' B[n] x          h: d_state states, from
//                                                   initial_state or zero
//   y    = (sum over n of C[n] h[n] + D x) silu(z)
//
// B and C are shared by all channels. States, decays and sums are f32 whatever
// the tensors' type. Layout is channel-last; x, dt, B, C, z and y may be views
// into wider tensors (any strides of axes 0 and 1).
//
// Bytes: x, dt, z and y once each, B and C a d_inner-th of that: 8 bytes a
// (token, channel) in 16 bits. Against 16 to 20 exponentials it is bound by
// special functions and instruction issue on GPUs, by arithmetic on CPUs.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"

namespace seqmark {

struct SelectiveScan {
  static constexpr absl::string_view kName = "selective_scan";

  struct Problem : ProblemAxes {
    int64_t d_inner = 0;
    int64_t d_state = 16;
    bool has_z = true;
    bool has_d = true;
    bool has_dt_bias = true;
    bool has_initial_state = false;

    double tokens() const { return static_cast<double>(batch) * seqlen; }
  };

  struct Args {
    Tensor x;              // (batch, seqlen, d_inner)
    Tensor dt;             // (batch, seqlen, d_inner): before bias, softplus
    Tensor A;              // (d_inner, d_state), f32
    Tensor B;              // (batch, seqlen, d_state)
    Tensor C;              // (batch, seqlen, d_state)
    Tensor D;              // (d_inner), f32, optional
    Tensor z;              // (batch, seqlen, d_inner), optional
    Tensor dt_bias;        // (d_inner), f32, optional
    Tensor initial_state;  // (batch, d_inner, d_state), f32, optional
    Tensor y;              // (batch, seqlen, d_inner)
    Tensor final_state;    // (batch, d_inner, d_state), f32
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims channels = {p.batch, p.seqlen, p.d_inner};
    const Dims groups = {p.batch, p.seqlen, p.d_state};
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
    if (p.has_initial_state)
      visit(TensorSpec{"initial_state", kState, kF32, states}, a.initial_state);
    visit(TensorSpec{"y", kOutput, p.dtype, channels}, a.y);
    visit(TensorSpec{"final_state", kOutput, kF32, states}, a.final_state);
  }

  // Some channels over the whole length.
  static Problem Part(const Problem& p, double) {
    Problem part = p;
    part.d_inner = std::min<int64_t>(p.d_inner, 4);
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
