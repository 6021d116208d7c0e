// SPDX-License-Identifier: Apache-2.0
//
// Causal attention over a prompt, or over a chunk of one (Vaswani et al. 2017,
// arXiv:1706.03762, eq. 1), with grouped-query heads (Ainslie et al. 2023,
// arXiv:2305.13245), an optional sliding window (Beltagy et al. 2020,
// arXiv:2004.05150) and keys that stay in sight of it (attention sinks: Xiao et
// al. 2023, arXiv:2309.17453):
//
//   o[i] = sum_j softmax_j(q[i] . k[j] / sqrt(head_dim)) v[j]
//
// over the keys j that query i sees. It sits at position past + i, after
// `past` keys of the chunks before it: past + i - window < j <= past + i, and
// j < sink too; without a window 0 <= j <= past + i. Query head h reads key and
// value head h / (heads / kv_heads).
//
// Only pairs that are seen count: 2 (head_dim + value_head_dim) flops of matrix
// products and one exponential each. So it is bound by the matrix units, with
// the exponentials close behind where head_dim is small: at 64 they take three
// quarters as long as the products on a Hopper GPU. Memory is O(seqlen) always:
// no provider may hold the scores of all pairs.
#pragma once

#include <algorithm>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"

namespace seqmark {

struct Attention {
  static constexpr absl::string_view kName = "attention";

  struct Problem : ProblemAxes {
    int64_t heads = 0;
    int64_t kv_heads = 0;  // divides heads
    int64_t head_dim = 0;
    int64_t value_head_dim = 0;  // 0: head_dim
    int64_t window = 0;          // keys up to its own that a query sees; 0: all
    int64_t sink = 0;            // keys, the first ones, that it sees besides
    int64_t past = 0;            // keys before the first query

    int64_t value_dim() const {
      return value_head_dim > 0 ? value_head_dim : head_dim;
    }
    int64_t keys() const { return past + seqlen; }
    // The keys up to its own that a query sees, at most.
    int64_t reach() const {
      return window > 0 ? std::min(window, keys()) : keys();
    }
    // The most keys a query sees.
    int64_t span() const {
      return window > 0 ? std::min(window + sink, keys()) : keys();
    }
    // The first key that any query sees but for sinks.
    int64_t first_key() const {
      return std::max<int64_t>(0, past + 1 - reach());
    }
    // Keys that some query sees.
    int64_t seen_keys() const {
      return keys() - first_key() + std::min(sink, first_key());
    }
    // (query, key) pairs that are seen, of one head of one sequence: past + 1,
    // past + 2, ... of the first queries, span of the others.
    double pairs() const {
      const int64_t growing = std::clamp<int64_t>(span() - past, 0, seqlen);
      const double n = static_cast<double>(growing);
      return n * static_cast<double>(past) + n * (n + 1) / 2 +
             static_cast<double>(seqlen - growing) *
                 static_cast<double>(span());
    }
  };

  // Batch and sequence strides may be any (views into a fused projection or
  // into a cache of keys with room for more); the heads of a token are
  // contiguous.
  struct Args {
    Tensor q;  // (batch, seqlen, heads, head_dim)
    Tensor k;  // (batch, past + seqlen, kv_heads, head_dim)
    Tensor v;  // (batch, past + seqlen, kv_heads, value_head_dim)
    Tensor o;  // (batch, seqlen, heads, value_head_dim)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const auto queries = [&](int64_t dim) {
      return Dims{p.batch, p.seqlen, p.heads, dim};
    };
    const auto keys = [&](absl::string_view name, int64_t dim) {
      TensorSpec spec = {name, Role::kActivation, p.dtype,
                         Dims{p.batch, p.keys(), p.kv_heads, dim}};
      spec.bytes_touched = Bytes(spec) / p.keys() * p.seen_keys();
      return spec;
    };
    using enum Role;
    visit(TensorSpec{"q", kActivation, p.dtype, queries(p.head_dim)}, a.q);
    visit(keys("k", p.head_dim), a.k);
    visit(keys("v", p.value_dim()), a.v);
    visit(TensorSpec{"o", kOutput, p.dtype, queries(p.value_dim())}, a.o);
  }

  // Some queries of one head, after all the keys before them.
  static Problem Part(const Problem& p, double at) {
    constexpr int64_t kMostProducts = int64_t{1} << 26;
    Problem part = WithTokens(
        p,
        std::clamp<int64_t>(
            kMostProducts / (p.keys() * (p.head_dim + p.value_dim())), 1, 64));
    part.past += PartBegin(p.seqlen, part.seqlen, at);
    part.heads = part.kv_heads = 1;
    return part;
  }
  // The relative error of a key's weight.
  static double WeightError(const Problem& p);
  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
