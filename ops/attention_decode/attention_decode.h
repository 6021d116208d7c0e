// SPDX-License-Identifier: Apache-2.0
//
// Attention of one new token a sequence over the keys that it has so far, its
// own among them (Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouped-query
// heads: Ainslie et al. 2023, arXiv:2305.13245):
//
//   o[h] = sum_j softmax_j(q[h] . k[j, g] / sqrt(head_dim)) v[j, g]
//
// over the last `window` of the seqlen keys and the first `sink` (attention
// sinks: Xiao et al. 2023, arXiv:2309.17453), all of them without a window.
// Head h reads key and value head g = h / (heads / kv_heads).
//
// Every key and value that counts is read once, for all the heads that share
// it, and an element of it takes 2 flops for each of them: bound by memory
// while heads / kv_heads is less than a hundred or so.
#pragma once

#include <algorithm>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "ops/attention/attention.h"

namespace seqmark {

struct AttentionDecode {
  static constexpr absl::string_view kName = "attention_decode";
  static constexpr bool kSeqlenIsContext = true;

  struct Problem : ProblemAxes {  // seqlen: keys, the new token's included
    int64_t heads = 0;
    int64_t kv_heads = 0;  // divides heads
    int64_t head_dim = 0;
    int64_t value_head_dim = 0;  // 0: head_dim
    int64_t window = 0;          // keys, the last ones, that count; 0: all
    int64_t sink = 0;            // keys, the first ones, that count besides

    int64_t group() const { return heads / kv_heads; }
    int64_t value_dim() const {
      return value_head_dim > 0 ? value_head_dim : head_dim;
    }
    // Keys that count: those from first_key() on and sinks() before it.
    int64_t keys() const {
      return window > 0 ? std::min(window + sink, seqlen) : seqlen;
    }
    int64_t first_key() const { return keys() < seqlen ? seqlen - window : 0; }
    int64_t sinks() const { return keys() < seqlen ? sink : 0; }
  };

  // Strides of batch and sequence may be any (views into a fused projection,
  // and into a cache of keys with room for more); the heads of a token are
  // contiguous.
  struct Args {
    Tensor q;  // (batch, heads, head_dim)
    Tensor k;  // (batch, seqlen, kv_heads, head_dim)
    Tensor v;  // (batch, seqlen, kv_heads, value_head_dim)
    Tensor o;  // (batch, heads, value_head_dim)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const auto queries = [&](int64_t dim) {
      return Dims{p.batch, p.heads, dim};
    };
    const auto keys = [&](absl::string_view name, int64_t dim) {
      TensorSpec spec = {name, Role::kActivation, p.dtype,
                         Dims{p.batch, p.seqlen, p.kv_heads, dim}};
      spec.bytes_touched = Bytes(spec) / p.seqlen * p.keys();
      return spec;
    };
    using enum Role;
    visit(TensorSpec{"q", kActivation, p.dtype, queries(p.head_dim)}, a.q);
    visit(keys("k", p.head_dim), a.k);
    visit(keys("v", p.value_dim()), a.v);
    visit(TensorSpec{"o", kOutput, p.dtype, queries(p.value_dim())}, a.o);
  }

  // The prompt's attention that a step is: of its last token alone.
  static Attention::Problem LastToken(const Problem& p) {
    Attention::Problem last;
    last.dtype = p.dtype;
    last.batch = p.batch;
    last.seqlen = 1;
    last.heads = p.heads;
    last.kv_heads = p.kv_heads;
    last.head_dim = p.head_dim;
    last.value_head_dim = p.value_head_dim;
    last.window = p.window;
    last.sink = p.sink;
    last.past = p.seqlen - 1;
    return last;
  }

  static Problem Part(const Problem& p, double) {
    Problem part = p;
    part.heads = part.kv_heads = 1;
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
