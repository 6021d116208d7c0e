// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34) of a
// chunk's queries and keys, and the write of its keys and values to the KV
// cache. Halves are paired, as Llama, Qwen, Phi-3 and Falcon-H1 have it in
// Transformers ("rotate_half"): with half = rotary_dim / 2, i < half and
// angle = (position + l) * inverse_frequency[i],
//
//   out[i]        = factor * (x[i] * cos(angle) - x[i + half] * sin(angle))
//   out[i + half] = factor * (x[i + half] * cos(angle) + x[i] * sin(angle))
//
// for x each head of q and of k. The elements from rotary_dim on are copied,
// and so is v. rotary_dim 0 only copies: models without positions.
//
// An angle in units of 2^-64 turns is an integer, and its product with a
// position, modulo 2^64, is exact: what rounds is the unit alone, which is off
// by 2^-36 turns at position 2^20. Arithmetic on elements is f32 whatever the
// tensors' type. Bytes: q, k and v in and out once each; three flops an
// element and two special functions a token and pair, so memory limits it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"

namespace seqmark {

struct Rope {
  static constexpr absl::string_view kName = "rope";
  // 2^64 / (2 pi)
  static constexpr double kPhasesPerRadian = 0x1p63 / 3.14159265358979323846;

  struct Problem : ProblemAxes {
    int64_t heads = 0;
    int64_t kv_heads = 0;  // 0: queries alone
    int64_t head_dim = 0;
    int64_t rotary_dim = 0;  // even, at most head_dim
    int64_t position = 0;    // of the first token, the same in each sequence
    float factor = 1;        // longrope's attention factor
    bool has_v = true;       // with keys alone
  };

  // Inputs are often views of one fused projection, k_out and v_out windows of
  // a KV cache (batch, capacity, kv_heads, head_dim): axes 0 and 1 of all but
  // inverse_frequency have any strides, the others are contiguous. An output
  // may be the very memory of its input (with its strides); a tensor that is
  // only copied is then left alone. Frequencies are below pi.
  struct Args {
    Tensor q;                  // (batch, seqlen, heads, head_dim)
    Tensor k;                  // (batch, seqlen, kv_heads, head_dim), optional
    Tensor v;                  // (batch, seqlen, kv_heads, head_dim), optional
    Tensor inverse_frequency;  // (rotary_dim / 2) f32; none if rotary_dim is 0
    Tensor q_out;              // (batch, seqlen, heads, head_dim)
    Tensor k_out;              // (batch, seqlen, kv_heads, head_dim), optional
    Tensor v_out;              // (batch, seqlen, kv_heads, head_dim), optional
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims queries = {p.batch, p.seqlen, p.heads, p.head_dim};
    const Dims keys = {p.batch, p.seqlen, p.kv_heads, p.head_dim};
    using enum Role;
    visit(TensorSpec{"q", kActivation, p.dtype, queries}, a.q);
    if (p.kv_heads > 0) visit(TensorSpec{"k", kActivation, p.dtype, keys}, a.k);
    if (p.has_v) visit(TensorSpec{"v", kActivation, p.dtype, keys}, a.v);
    if (p.rotary_dim > 0)
      visit(
          TensorSpec{
              "inverse_frequency", kFrequency, DType::kF32, {p.rotary_dim / 2}},
          a.inverse_frequency);
    visit(TensorSpec{"q_out", kOutput, p.dtype, queries}, a.q_out);
    if (p.kv_heads > 0)
      visit(TensorSpec{"k_out", kOutput, p.dtype, keys}, a.k_out);
    if (p.has_v) visit(TensorSpec{"v_out", kOutput, p.dtype, keys}, a.v_out);
  }

  // InvalidArgument for a rotary_dim that head_dim cannot have.
  static absl::Status Check(const Problem& p);
  static Problem Part(const Problem& p, double at) {
    Problem part = WithTokens(p, 16);
    part.position += PartBegin(p.seqlen, part.seqlen, at);
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
