// SPDX-License-Identifier: Apache-2.0
#include "ops/attention/attention.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost Attention::GetCost(const Problem& p) {
  const double rows = static_cast<double>(p.batch * p.heads * p.seqlen);
  const double pairs = static_cast<double>(p.batch * p.heads) * p.pairs();
  Cost cost;
  // q k^T and p v
  cost.matrix_flops = pairs * 2 * (p.head_dim + p.value_dim());
  // scale, less the greatest, sum; times 1/sum
  cost.vector_flops = pairs * 3 + rows * p.value_dim();
  cost.special_ops = pairs + rows;  // e^x; 1/sum
  return cost;
}

double Attention::WeightError(const Problem& p) {
  // A weight p_j of a query is rounded to the dtype before the product with v
  // (not for f32), and carries f32 errors: of the score (a sum over head_dim
  // of terms that make it of order one), of the exponential, and of the sums
  // over keys.
  return (p.dtype == DType::kF32 ? 0 : 0.5 * Epsilon(p.dtype)) +
         (std::sqrt(static_cast<double>(p.head_dim)) +
          std::sqrt(static_cast<double>(p.span())) + 16) *
             Epsilon(DType::kF32);
}

Tolerance Attention::GetTolerance(const Problem& p) {
  // Against independent values of mean zero, errors of relative size `weight`
  // make an error of that relative size in o, and o is rounded once more.
  const double output = 0.5 * Epsilon(p.dtype);
  const double weight = WeightError(p);
  // For one element the error is at most weight * max |v|, even where o is
  // near zero by cancellation, as among the first few queries; |v|, normal,
  // stays below 6. The scale it is compared with is the rms of o, which is
  // at least that of a mean over the keys seen: the square root of the mean
  // of 1/n over queries that see n keys.
  double harmonic = 0;
  for (int64_t i = 0; i < p.seqlen; ++i)
    harmonic += 1 / static_cast<double>(std::min(p.past + i + 1, p.span()));
  const double rms = std::sqrt(harmonic / static_cast<double>(p.seqlen));
  return {.max_error = output * 1.01 + weight * 6 / rms,
          .l2_error = output + weight};
}

std::vector<Attention::Problem> Attention::Sweep() {
  std::vector<Problem> problems;
  const auto add = [&](const AttentionLayer& layer, Extent extent,
                       int64_t window) {
    Problem p;
    p.shape = absl::StrCat(layer.model, window > 0 ? ".window" : "");
    if (window > 0) absl::StrAppend(&p.shape, window);
    p.batch = extent.batch;
    p.seqlen = extent.seqlen;
    p.heads = layer.heads;
    p.kv_heads = layer.kv_heads;
    p.head_dim = layer.head_dim;
    p.window = window;
    problems.push_back(p);
  };
  for (const AttentionLayer& layer : kAttentionLayers) {
    for (const Extent& extent : kLongExtents) add(layer, extent, 0);
    if (layer.model != "qwen2.5-1.5b") continue;
    add(layer, {8, 4096}, 0);
    for (const Extent& extent : kLongExtents) add(layer, extent, 1024);
  }
  // Hymba's windowed layers: meta tokens that all see, and wider values.
  constexpr AttentionLayer kHymba = {"hymba-1.5b", 1600, 25,   5,
                                     64,           5504, 32001};
  for (const Extent& extent : kLongExtents) {
    add(kHymba, extent, 1024);
    problems.back().sink = 128;
    problems.back().value_head_dim = 128;
  }
  return problems;
}

std::vector<Attention::Problem> Attention::TestProblems() {
  std::vector<Problem> problems;
  const auto add = [&](Problem p) {
    p.shape = absl::StrCat("custom.heads", p.heads, "-kv", p.kv_heads, "-dim",
                           p.head_dim);
    const auto axis = [&](absl::string_view name, int64_t value) {
      if (value > 0) absl::StrAppend(&p.shape, "-", name, value);
    };
    axis("value", p.value_head_dim);
    axis("window", p.window);
    axis("sink", p.sink);
    axis("past", p.past);
    problems.push_back(p);
  };
  // batch, seqlen, heads, kv_heads, head_dim, window, past
  for (const auto& [batch, seqlen, heads, kv_heads, head_dim, window, past] :
       {std::tuple{1, 1, 1, 1, 64, 0, 0},
        {2, 3, 4, 2, 64, 0, 0},
        {1, 33, 7, 1, 64, 0, 0},
        {2, 65, 2, 1, 80, 0, 0},
        {1, 130, 3, 3, 96, 0, 0},
        {1, 64, 2, 1, 256, 0, 0},
        {1, 577, 2, 1, 128, 0, 0},  // longer than a tile of keys
        {1, 1030, 2, 1, 64, 0, 0},
        {1, 300, 14, 2, 64, 0, 0},  // qwen2.5-0.5b
        {1, 65, 1, 1, 64, 1, 0},
        {2, 100, 4, 2, 80, 7, 0},
        {1, 300, 2, 1, 128, 64, 0},
        {1, 300, 6, 2, 96, 1000, 0},  // a window longer than the prompt
        {1, 700, 1, 1, 64, 513, 0},
        {1, 600, 1, 1, 256, 100, 0},
        {2, 33, 4, 2, 64, 0, 1},
        {1, 1, 2, 1, 128, 0, 77},
        {2, 65, 2, 1, 80, 0, 129},
        {1, 100, 14, 2, 64, 0, 513},  // longer than the chunk
        {1, 300, 2, 2, 96, 0, 64},
        {1, 70, 2, 1, 64, 1, 5},
        {1, 1, 2, 1, 64, 7, 100},
        {2, 100, 4, 2, 80, 37, 1},
        {1, 200, 2, 1, 128, 64, 333},  // keys that no query sees
        {1, 64, 2, 1, 64, 150, 100},
        {1, 300, 1, 1, 256, 1000, 211}}) {
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = heads;
    p.kv_heads = kv_heads;
    p.head_dim = head_dim;
    p.window = window;
    p.past = past;
    add(p);
  }
  // batch, seqlen, head_dim, value_head_dim, window, sink, past; six heads
  for (const auto& [batch, seqlen, head_dim, value_head_dim, window, sink,
                    past] :
       {std::tuple{1, 1, 64, 128, 0, 0, 0},
        {2, 65, 64, 128, 0, 0, 3},
        {1, 70, 128, 64, 9, 0, 0},
        {1, 33, 16, 80, 0, 0, 100},
        {2, 100, 64, 0, 7, 5, 0},     // sinks within the first window
        {1, 300, 64, 0, 64, 100, 0},  // more sinks than the window
        {1, 90, 80, 0, 30, 200, 0},   // than the prompt
        {1, 60, 64, 0, 0, 7, 40},     // no window
        {1, 50, 64, 0, 1000, 7, 10},  // nor here
        {2, 40, 64, 0, 20, 1, 300},   // keys between that no query sees
        {1, 1, 64, 0, 20, 66, 300},
        {1, 129, 128, 0, 33, 128, 513},
        {1, 200, 96, 48, 100, 150, 250},
        {1, 700, 64, 128, 200, 70, 0},
        {1, 300, 64, 128, 1024, 128, 1500}}) {  // hymba-1.5b
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = 6;
    p.kv_heads = 2;
    p.head_dim = head_dim;
    p.value_head_dim = value_head_dim;
    p.window = window;
    p.sink = sink;
    p.past = past;
    add(p);
  }
  return problems;
}

namespace {
const bool registered = AddOperator<Attention>();
}  // namespace

}  // namespace seqmark
