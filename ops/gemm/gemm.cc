// SPDX-License-Identifier: Apache-2.0
#include "ops/gemm/gemm.h"

#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

absl::StatusOr<int64_t> Gemm::RowStride(const Tensor& t) {
  const int64_t batch = t.dims[0], seqlen = t.dims[1];
  if (batch > 1 && seqlen > 1 && t.strides[0] != seqlen * t.strides[1])
    return absl::InvalidArgumentError(absl::StrCat(
        "the rows of ", t.DebugString(), " with strides ",
        absl::StrJoin(t.strides, ", "), " are not equally spaced"));
  return seqlen > 1 ? t.strides[1] : batch > 1 ? t.strides[0] : t.dims[2];
}

Cost Gemm::GetCost(const Problem& p) {
  const double outputs = static_cast<double>(p.rows()) * p.out_features;
  return {.matrix_flops = 2 * outputs * p.in_features,
          .vector_flops = outputs * (p.bias + p.addend)};
}

Tolerance Gemm::GetTolerance(const Problem& p) {
  // Each output is rounded once to dtype. Inputs make partial sums that grow as
  // a random walk to y's own size, so f32 rounding, which has no preferred
  // sign, adds up to less than sqrt(K) * epsilon. Matrix units of 16-bit types
  // truncate a group of at least 8 products onto the sum instead: that error
  // has one sign and grows with K / 8.
  const double k = static_cast<double>(p.in_features);
  const double truncations = p.dtype == DType::kF32 ? 0 : k / 8;
  const double arithmetic =
      (std::sqrt(k) + truncations + 4) * Epsilon(DType::kF32);
  const double rounding = 0.5 * Epsilon(p.dtype);
  return {.max_error = rounding * 1.01 + 2 * arithmetic,
          .l2_error = rounding + arithmetic};
}

std::vector<Gemm::Problem> Gemm::Sweep() {
  std::vector<Problem> problems;
  const auto add_at = [&](const Extent& extent, absl::string_view model,
                          absl::string_view role, int64_t in, int64_t out,
                          bool bias) {
    Problem p;
    p.shape = absl::StrCat(model, ".", role);
    p.batch = extent.batch;
    p.seqlen = extent.seqlen;
    p.in_features = in;
    p.out_features = out;
    p.bias = bias;
    problems.push_back(p);
  };
  // A decode step, 16 decode steps together, and prefill.
  const auto add = [&](absl::string_view model, absl::string_view role,
                       int64_t in, int64_t out, bool bias = false) {
    for (const Extent& extent : kDecodeExtents)
      add_at(extent, model, role, in, out, bias);
    for (const Extent& extent : kLongExtents)
      add_at(extent, model, role, in, out, bias);
  };
  // Logits of last positions; and of a whole short prompt, as scoring does.
  const auto add_head = [&](absl::string_view model, int64_t in, int64_t out) {
    for (const Extent& extent : {Extent{1, 1}, Extent{8, 1}, Extent{1, 4096}})
      add_at(extent, model, "lm_head", in, out, false);
  };
  for (const auto& l : kAttentionLayers) {
    const bool bias = absl::StartsWith(l.model, "qwen");
    add(l.model, "qkv_proj", l.hidden, (l.heads + 2 * l.kv_heads) * l.head_dim,
        bias);
    add(l.model, "o_proj", l.heads * l.head_dim, l.hidden);
    add(l.model, "mlp_gate_up", l.hidden, 2 * l.intermediate);
    add(l.model, "mlp_down", l.intermediate, l.hidden);
    add_head(l.model, l.hidden, l.vocab);
  }
  for (const auto& l : kMambaLayers) {
    add(l.model, "in_proj", l.hidden, 2 * l.d_inner);
    add(l.model, "x_proj", l.d_inner, l.dt_rank + 2 * l.d_state);
    add(l.model, "dt_proj", l.dt_rank, l.d_inner);  // the scan adds its bias
    add(l.model, "out_proj", l.d_inner, l.hidden);
    add_head(l.model, l.hidden, l.vocab);
  }
  for (const auto& l : kMamba2Layers) {
    // z, x, B, C and dt
    add(l.model, "in_proj", l.hidden,
        l.d_inner() + l.conv_channels() + l.heads);
    add(l.model, "out_proj", l.d_inner(), l.hidden);
    add_head(l.model, l.hidden, l.vocab);
  }
  return problems;
}

std::vector<Gemm::Problem> Gemm::TestProblems() {
  std::vector<Problem> problems;
  for (const auto& [batch, seqlen, in, out] : {std::tuple{1, 1, 1, 1},
                                               {1, 1, 7, 5},
                                               {2, 3, 33, 17},
                                               {1, 1, 896, 1152},
                                               {3, 1, 4864, 130},
                                               {16, 1, 160, 515},
                                               {1, 130, 129, 131},
                                               {2, 65, 192, 264}})
    for (const auto& [bias, addend] : {std::pair{false, false},
                                       {true, false},
                                       {false, true},
                                       {true, true}}) {
      Problem p;
      p.shape = absl::StrCat("custom.in", in, "-out", out, bias ? "-bias" : "",
                             addend ? "-addend" : "");
      p.batch = batch;
      p.seqlen = seqlen;
      p.in_features = in;
      p.out_features = out;
      p.bias = bias;
      p.addend = addend;
      problems.push_back(p);
    }
  return problems;
}

namespace {
const bool registered = AddOperator<Gemm>();
}  // namespace

}  // namespace seqmark
