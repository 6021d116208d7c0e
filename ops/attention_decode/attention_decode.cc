// SPDX-License-Identifier: Apache-2.0
#include "ops/attention_decode/attention_decode.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost AttentionDecode::GetCost(const Problem& p) {
  return Attention::GetCost(LastToken(p));
}

Tolerance AttentionDecode::GetTolerance(const Problem& p) {
  // An element's error is a sum over keys of p_j v_j times errors of relative
  // size `weight`, that of o itself a sum of p_j v_j, v normal: the error is at
  // most about six deviations, each `weight` times the rms of o. (Of a single
  // key it is weight * |v|, and |v| stays below 6 too.) o is rounded once more.
  const double output = 0.5 * Epsilon(p.dtype);
  const double weight = Attention::WeightError(LastToken(p));
  return {.max_error = output * 1.01 + weight * 6, .l2_error = output + weight};
}

std::vector<AttentionDecode::Problem> AttentionDecode::Sweep() {
  std::vector<Problem> problems;
  for (const AttentionLayer& layer : kAttentionLayers)
    for (int64_t batch : {1, 8})
      for (const Extent& extent : kLongExtents) {
        Problem p;
        p.shape = std::string(layer.model);
        p.batch = batch;
        p.seqlen = extent.seqlen;
        p.heads = layer.heads;
        p.kv_heads = layer.kv_heads;
        p.head_dim = layer.head_dim;
        problems.push_back(p);
      }
  return problems;
}

std::vector<AttentionDecode::Problem> AttentionDecode::TestProblems() {
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
    problems.push_back(p);
  };
  // batch, seqlen, heads, kv_heads, head_dim, window
  for (const auto& [batch, seqlen, heads, kv_heads, head_dim, window] :
       {std::tuple{1, 1, 1, 1, 64, 0},
        {2, 2, 4, 2, 16, 0},
        {1, 3, 7, 1, 24, 0},
        {3, 17, 6, 2, 8, 0},
        {1, 33, 10, 5, 40, 0},
        {2, 65, 12, 2, 80, 0},
        {1, 127, 5, 1, 96, 0},
        {1, 130, 3, 3, 96, 0},
        {1, 200, 8, 8, 64, 0},
        {1, 257, 9, 1, 128, 0},   // more heads than a tile of eight
        {2, 70, 34, 2, 64, 0},    // than two tiles
        {1, 300, 16, 1, 256, 0},  // two full tiles
        {1, 513, 2, 1, 200, 0},
        {1, 577, 4, 4, 128, 0},
        {1, 1024, 12, 2, 128, 0},  // qwen2.5-1.5b
        {1, 3001, 14, 2, 64, 0},   // qwen2.5-0.5b
        {1, 2048, 32, 8, 64, 0},   // llama-3.2-1b
        {1, 9999, 2, 2, 32, 0},    // many splits
        {70, 19, 4, 4, 64, 0},     // many sequences
        {1, 65, 2, 1, 64, 1},
        {2, 100, 4, 2, 80, 7},
        {1, 300, 5, 1, 64, 64},
        {2, 1500, 25, 5, 64, 1024},  // hymba-1.5b
        {1, 50, 6, 2, 96, 1000}}) {  // a window longer than the context
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = heads;
    p.kv_heads = kv_heads;
    p.head_dim = head_dim;
    p.window = window;
    add(p);
  }
  // batch, seqlen, heads, kv_heads, head_dim, value_head_dim, window, sink
  for (const auto& [batch, seqlen, heads, kv_heads, head_dim, value_head_dim,
                    window, sink] :
       {std::tuple{1, 1, 1, 1, 64, 128, 0, 0},
        {2, 130, 6, 2, 64, 128, 0, 0},
        {1, 300, 9, 1, 128, 64, 0, 0},
        {2, 77, 4, 4, 16, 80, 0, 0},
        {1, 65, 20, 1, 24, 200, 0, 0},
        {1, 100, 4, 2, 64, 0, 1, 1},
        {2, 100, 4, 2, 80, 0, 30, 7},
        {1, 200, 5, 1, 64, 0, 70, 67},
        {1, 200, 5, 1, 64, 0, 16, 128},
        {1, 90, 6, 2, 96, 0, 60, 30},   // all of them
        {1, 91, 6, 2, 96, 0, 60, 30},   // all but one
        {1, 30, 6, 2, 64, 0, 20, 100},  // more sinks than keys
        {1, 80, 6, 2, 64, 0, 0, 9},     // no window
        {3, 3000, 2, 2, 32, 48, 1000, 333},
        {1, 1152, 25, 5, 64, 128, 1024, 128},  // hymba-1.5b
        {2, 5000, 25, 5, 64, 128, 1024, 128}}) {
    Problem p;
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = heads;
    p.kv_heads = kv_heads;
    p.head_dim = head_dim;
    p.value_head_dim = value_head_dim;
    p.window = window;
    p.sink = sink;
    add(p);
  }
  return problems;
}

namespace {
const bool registered = AddOperator<AttentionDecode>();
}  // namespace

}  // namespace seqmark
