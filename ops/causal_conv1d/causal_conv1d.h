// SPDX-License-Identifier: Apache-2.0
//
// Depthwise causal convolution over time with the channels last, as it stands
// before the scan of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3.4 and
// figure 3) and Mamba-2 (arXiv:2405.21060, section 7.1):
//
//   y[b,l,c] = act(bias[c] + sum_{w < W} weight[c,w] * x[b, l - (W-1) + w, c])
//
// with act the identity or SiLU. x before the first token comes from
// initial_state, oldest first, or is zero; final_state is the last W-1 inputs
// of initial_state followed by x, so that a sequence can be cut anywhere. With
// seqlen 1 this is the convolution's step of decoding.
//
// Arithmetic is f32 whatever the tensors' type. Bytes: x and y once each, so
// it is bound by memory: 2 W + 1 flops and two special functions an element.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"

namespace seqmark {

struct CausalConv1d {
  static constexpr absl::string_view kName = "causal_conv1d";
  static constexpr int64_t kMinWidth = 2;
  static constexpr int64_t kMaxWidth = 4;

  struct Problem : ProblemAxes {
    int64_t channels = 0;
    int64_t width = 4;
    bool bias = true;
    bool silu = true;
    bool initial_state = false;
    bool final_state = true;
  };

  // x is often a view into a wider projection: providers read the strides of
  // its axes 0 and 1. All else is contiguous, and outputs overlap nothing; but
  // where seqlen is 1, final_state may be the same memory as initial_state.
  struct Args {
    Tensor x;              // (batch, seqlen, channels)
    Tensor weight;         // (channels, width)
    Tensor bias;           // (channels), optional
    Tensor initial_state;  // (batch, width - 1, channels), optional
    Tensor y;              // (batch, seqlen, channels)
    Tensor final_state;    // (batch, width - 1, channels), optional
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims tokens = {p.batch, p.seqlen, p.channels};
    const Dims state = {p.batch, p.width - 1, p.channels};
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, tokens}, a.x);
    visit(TensorSpec{"weight", kWeight, p.dtype, {p.channels, p.width}},
          a.weight);
    if (p.bias) visit(TensorSpec{"bias", kBias, p.dtype, {p.channels}}, a.bias);
    if (p.initial_state)
      visit(TensorSpec{"initial_state", kActivation, p.dtype, state},
            a.initial_state);
    visit(TensorSpec{"y", kOutput, p.dtype, tokens}, a.y);
    if (p.final_state)
      visit(TensorSpec{"final_state", kOutput, p.dtype, state}, a.final_state);
  }

  // Some channels over the whole length.
  static Problem Part(const Problem& p, double) {
    Problem part = p;
    part.channels = std::min<int64_t>(p.channels, 8);
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
