// SPDX-License-Identifier: Apache-2.0
#include "ops/norm_gemm/norm_gemm.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {
namespace {

template <class To>
To WithAxes(const NormGemm::Problem& p) {
  To to;
  static_cast<ProblemAxes&>(to) = p;
  to.seqlen = 1;
  return to;
}

}  // namespace

RmsNorm::Problem NormGemm::Norm(const Problem& p) {
  auto norm = WithAxes<RmsNorm::Problem>(p);
  norm.width = p.in_features;
  norm.groups = p.groups;
  norm.residual = p.residual;
  norm.residual_f32 = p.residual_f32;
  norm.epsilon = p.epsilon;
  return norm;
}

Gemm::Problem NormGemm::Product(const Problem& p) {
  auto product = WithAxes<Gemm::Problem>(p);
  product.in_features = p.in_features;
  product.out_features = p.out_features;
  product.bias = p.bias;
  return product;
}

CausalConv1d::Problem NormGemm::Convolution(const Problem& p) {
  auto convolution = WithAxes<CausalConv1d::Problem>(p);
  convolution.channels = p.conv_channels;
  convolution.width = p.conv_width;
  convolution.bias = p.conv_bias;
  convolution.initial_state = true;
  return convolution;
}

Cost NormGemm::GetCost(const Problem& p) {
  Cost cost = RmsNorm::GetCost(Norm(p));
  const auto add = [&](const Cost& other) {
    cost.matrix_flops += other.matrix_flops;
    cost.vector_flops += other.vector_flops;
    cost.special_ops += other.special_ops;
  };
  add(Gemm::GetCost(Product(p)));
  if (p.conv_channels > 0) add(CausalConv1d::GetCost(Convolution(p)));
  return cost;
}

Tolerance NormGemm::GetTolerance(const Problem& p) {
  // To the product's own error comes that of its input n, each element of which
  // is rounded once to dtype: independent errors of at most half an epsilon,
  // 0.29 in the mean, which add up as the terms of y do. An element may be off
  // by five deviations. n's f32 arithmetic is the norm's.
  const double epsilon = Epsilon(p.dtype);
  const Tolerance norm = RmsNorm::GetTolerance(Norm(p));
  Tolerance tolerance = Gemm::GetTolerance(Product(p));
  tolerance.max_error += 5 * 0.29 * epsilon + norm.max_error;
  tolerance.l2_error += 0.29 * epsilon + norm.l2_error;
  if (p.conv_channels == 0) return tolerance;
  // That enters the convolution, rounded again, through one tap: a normal of
  // deviation 1 / sqrt(width), seldom above 2; SiLU's slope is at most 1.1, and
  // its rms above 0.6 of its argument's.
  const Tolerance convolution = CausalConv1d::GetTolerance(Convolution(p));
  tolerance.max_error = 2 * 1.1 / 0.6 * (tolerance.max_error + 0.5 * epsilon) +
                        convolution.max_error;
  tolerance.l2_error =
      1.1 / 0.6 * (tolerance.l2_error + 0.29 * epsilon) + convolution.l2_error;
  return tolerance;
}

std::vector<NormGemm::Problem> NormGemm::Sweep() {
  std::vector<Problem> problems;
  // One sequence, and as many as a kernel for few rows takes.
  const auto add = [&](Problem p, absl::string_view model,
                       absl::string_view role, int64_t in, int64_t out) {
    p.shape = absl::StrCat(model, ".", role);
    p.in_features = in;
    p.out_features = out;
    for (int64_t batch : {1, 8}) {
      p.batch = batch;
      problems.push_back(p);
    }
  };
  Problem plain;
  plain.residual = true;
  for (const auto& l : kAttentionLayers) {
    Problem qkv = plain;
    qkv.bias = absl::StartsWith(l.model, "qwen");
    add(qkv, l.model, "qkv_proj", l.hidden,
        (l.heads + 2 * l.kv_heads) * l.head_dim);
    add(plain, l.model, "mlp_gate_up", l.hidden, 2 * l.intermediate);
  }
  Problem f32 = plain;  // the residual streams of Mamba
  f32.residual_f32 = true;
  for (const auto& l : kMambaLayers) {
    Problem in = f32;
    in.conv_channels = l.d_inner;
    in.conv_width = l.d_conv;
    add(in, l.model, "in_proj", l.hidden, 2 * l.d_inner);
    add(f32, l.model, "lm_head", l.hidden, l.vocab);
  }
  for (const auto& l : kMamba2Layers) {
    Problem in = f32;
    in.conv_first = l.d_inner();
    in.conv_channels = l.conv_channels();
    in.conv_width = l.d_conv;
    add(in, l.model, "in_proj", l.hidden,
        l.d_inner() + l.conv_channels() + l.heads);
    Problem out;
    out.groups = l.groups;
    add(out, l.model, "out_proj", l.d_inner(), l.hidden);
  }
  return problems;
}

std::vector<NormGemm::Problem> NormGemm::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t in, int64_t out, int64_t groups,
                       int residual, bool bias, int64_t conv_width) {
    Problem p;
    p.batch = batch;
    p.in_features = in;
    p.out_features = out;
    p.groups = groups;
    p.residual = residual > 0;
    p.residual_f32 = residual > 1;
    p.bias = bias;
    if (conv_width > 0) {
      p.conv_width = conv_width;
      p.conv_first = out / 5;
      p.conv_channels = (out + 1) / 2;
      p.conv_bias = conv_width != 3;
    }
    p.shape =
        absl::StrCat("custom.in", in, "-out", out,
                     groups > 1 ? absl::StrCat("-g", groups) : "",
                     residual == 2   ? "-addf32"
                     : residual == 1 ? "-add"
                                     : "",
                     bias ? "-bias" : "",
                     conv_width > 0 ? absl::StrCat("-conv", conv_width) : "");
    problems.push_back(p);
  };
  for (int residual : {0, 1, 2})
    for (bool bias : {false, true})
      for (int64_t conv : {0, 2, 3, 4}) add(3, 72, 37, 1, residual, bias, conv);
  add(1, 1, 1, 1, 1, false, 2);  // less than a kernel's accesses
  add(2, 7, 5, 1, 2, true, 4);
  add(1, 8, 1, 1, 2, false, 2);
  add(8, 24, 9, 3, 1, false, 0);     // groups of one access
  add(7, 264, 1000, 1, 2, true, 4);  // a chunk and a bit; tiles in part
  add(9, 64, 40, 1, 1, false, 4);    // a row more than few
  add(1, 8192, 515, 8, 0, false, 0);
  add(2, 4104, 130, 1, 1, true, 4);  // more chunks than warps
  add(1, 768, 3352, 1, 2, false, 4);
  add(1, 1536, 4500, 1, 2, false, 0);  // several rounds of a block
  return problems;
}

namespace {
const bool registered = AddOperator<NormGemm>();
}  // namespace

}  // namespace seqmark
