// SPDX-License-Identifier: Apache-2.0
//
// One token of a state space layer, Mamba's or Mamba-2's, as the providers of
// selective_scan_step and ssd_step see it. Both update rows of d_state states,
//
//   h = decay h + (dt' x) B        y = (C . h + D x) silu(z)
//
// and differ in what shares a step dt' and a decay:
//   Mamba-2: a slice is a head, its rows the head's channels. dt', A and D are
//            the slice's: decay = exp(dt' A).
//   Mamba:   one slice, its rows all channels. dt' and D are the row's, A is
//            each state's: decay[n] = exp(dt' A[n]). `row_decay`.
#pragma once

#include <cstdint>

#include "fixtures/op.h"

namespace seqmark {

struct SsmStep {
  int64_t batch = 1;
  int64_t slices = 1;
  int64_t slices_per_group = 1;  // that read the same B and C
  int64_t rows = 1;              // of a slice
  int64_t d_state = 1;
  bool row_decay = false;

  // A batch entry begins every `stride` elements; what follows is contiguous.
  struct View {
    void* data = nullptr;
    int64_t stride = 0;
  };
  View x;                    // (batch, slices, rows)
  View dt;                   // (batch, slices), (batch, rows) with row_decay
  View B;                    // (batch, slices / slices_per_group, d_state)
  View C;                    // (batch, slices / slices_per_group, d_state)
  View z;                    // (batch, slices, rows), optional
  View y;                    // (batch, slices, rows)
  const float* A = nullptr;  // (slices), (rows, d_state) with row_decay
  const float* D = nullptr;  // (slices) or (rows), optional
  const float* dt_bias = nullptr;  // (slices) or (rows), optional
  const float* state = nullptr;    // (batch, slices, rows, d_state)
  float* state_out = nullptr;      // the same; may be `state`
};

// The tensors of the scan that a step is, from the Args of either operator.
template <class ScanArgs, class Args>
ScanArgs OneTokenScan(const Args& a) {
  ScanArgs scan;
  scan.x = OneToken(a.x);
  scan.dt = OneToken(a.dt);
  scan.A = a.A;
  scan.B = OneToken(a.B);
  scan.C = OneToken(a.C);
  scan.D = a.D;
  scan.dt_bias = a.dt_bias;
  scan.z = OneToken(a.z);
  scan.initial_state = a.state;
  scan.y = OneToken(a.y);
  scan.final_state = a.state_out;
  return scan;
}

// All but the sizes, from the Args of either operator.
template <class Args>
SsmStep ViewStep(const Args& a) {
  const auto view = [](const Tensor& t) {
    return t ? SsmStep::View{t.data, t.strides[0]} : SsmStep::View{};
  };
  SsmStep s;
  s.x = view(a.x);
  s.dt = view(a.dt);
  s.B = view(a.B);
  s.C = view(a.C);
  s.z = view(a.z);
  s.y = view(a.y);
  s.A = a.A.template as<float>();
  s.D = a.D.template as<float>();
  s.dt_bias = a.dt_bias.template as<float>();
  s.state = a.state.template as<float>();
  s.state_out = a.state_out.template as<float>();
  return s;
}

}  // namespace seqmark
