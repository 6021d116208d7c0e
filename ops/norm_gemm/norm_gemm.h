// SPDX-License-Identifier: Apache-2.0
//
// What a decode step does around a projection, as one operator: the norm
// before it, and the convolution that follows it in Mamba (Gu and Dao 2023,
// arXiv:2312.00752, figure 3) and Mamba-2 (arXiv:2405.21060, section 7.1):
//
//   u = x                    or  u = x + residual, and residual_out = u
//   n = u / sqrt(mean(u^2) + epsilon) * norm_weight
//   y = n W^T (+ bias)
//   y[c] = silu(conv_bias[c] + sum_{w < W-1} conv_weight[c,w] conv_state[w,c]
//               + conv_weight[c,W-1] y[c])
//
// The last line is for the `conv_channels` columns of y from `conv_first`, and
// their conv_state_out is the last W-1 of conv_state followed by the y of the
// line before: what ops/causal_conv1d is for one token. The rest are
// ops/rmsnorm (the mean is over each of `groups` equal parts of a row) and
// ops/gemm. A row is a sequence: seqlen is 1.
//
// A provider may round n, and what enters the convolution, to dtype, as the
// separate operators do; sums are f32. Bytes: W, so it is bound by memory where
// W is large, and by latency where it is not: three launches become one.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/gemm/gemm.h"
#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {

struct NormGemm {
  static constexpr absl::string_view kName = "norm_gemm";

  struct Problem : ProblemAxes {
    int64_t in_features = 0;
    int64_t out_features = 0;
    int64_t groups = 1;  // of the norm; divides in_features
    bool residual = false;
    bool residual_f32 = false;
    float epsilon = 1e-5f;
    bool bias = false;
    int64_t conv_channels = 0;  // 0: no convolution
    int64_t conv_first = 0;
    int64_t conv_width = 4;
    bool conv_bias = true;
  };

  // Rows of x, residual, residual_out and y may be any distance apart.
  struct Args {
    Tensor x;               // (batch, 1, in_features)
    Tensor residual;        // (batch, 1, in_features), optional
    Tensor norm_weight;     // (in_features)
    Tensor weight;          // (out_features, in_features)
    Tensor bias;            // (out_features), optional
    Tensor conv_weight;     // (conv_channels, conv_width), optional
    Tensor conv_bias;       // (conv_channels), optional
    Tensor conv_state;      // (batch, conv_width - 1, conv_channels), optional
    Tensor residual_out;    // (batch, 1, in_features), optional; its memory is
                            // not residual's
    Tensor y;               // (batch, 1, out_features)
    Tensor conv_state_out;  // (batch, conv_width - 1, conv_channels), optional;
                            // may be conv_state's memory
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims rows = {p.batch, 1, p.in_features};
    const Dims states = {p.batch, p.conv_width - 1, p.conv_channels};
    const DType residual_dtype = p.residual_f32 ? DType::kF32 : p.dtype;
    const bool conv = p.conv_channels > 0;
    using enum Role;
    visit(TensorSpec{"x", kActivation, p.dtype, rows}, a.x);
    if (p.residual)
      visit(TensorSpec{"residual", kActivation, residual_dtype, rows},
            a.residual);
    visit(TensorSpec{"norm_weight", kScale, p.dtype, {p.in_features}},
          a.norm_weight);
    visit(
        TensorSpec{"weight", kWeight, p.dtype, {p.out_features, p.in_features}},
        a.weight);
    if (p.bias)
      visit(TensorSpec{"bias", kBias, p.dtype, {p.out_features}}, a.bias);
    if (conv) {
      visit(
          TensorSpec{
              "conv_weight", kWeight, p.dtype, {p.conv_channels, p.conv_width}},
          a.conv_weight);
      if (p.conv_bias)
        visit(TensorSpec{"conv_bias", kBias, p.dtype, {p.conv_channels}},
              a.conv_bias);
      visit(TensorSpec{"conv_state", kActivation, p.dtype, states},
            a.conv_state);
    }
    if (p.residual)
      visit(TensorSpec{"residual_out", kOutput, residual_dtype, rows},
            a.residual_out);
    visit(TensorSpec{"y", kOutput, p.dtype, {p.batch, 1, p.out_features}}, a.y);
    if (conv)
      visit(TensorSpec{"conv_state_out", kOutput, p.dtype, states},
            a.conv_state_out);
  }

  // The operators it is made of.
  static RmsNorm::Problem Norm(const Problem& p);
  static Gemm::Problem Product(const Problem& p);
  static CausalConv1d::Problem Convolution(const Problem& p);

  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
