// SPDX-License-Identifier: Apache-2.0
//
// Attention: qkv projection, rotary embedding with the write of the cache,
// softmax(q k^T) v over it, output projection. Meta tokens are seen past any
// window.
#include "models/forward.h"
#include "ops/attention/attention.h"
#include "ops/attention_decode/attention_decode.h"
#include "ops/rope/rope.h"

namespace seqmark {

absl::Status Attend(ForwardPass& pass, const SubLayer& layer, const Tensor& qkv,
                    const Tensor& o) {
  const AttentionConfig& a = pass.config().attention;
  const PassShape& shape = pass.shape();
  const int64_t q_width = a.heads * a.head_dim;
  const int64_t k_width = a.kv_heads * a.head_dim;
  const int64_t v_width = a.kv_heads * a.value_head_dim;
  const Tensor q = Heads(Slice(qkv, 0, q_width), a.heads, a.head_dim);
  const Tensor& keys = pass.memory().state.keys[layer.attention];
  const Tensor& values = pass.memory().state.values[layer.attention];

  const bool own = layer.kv_source == layer.attention;  // keys and values
  auto rope = pass.Make<Rope::Problem>();
  rope.heads = a.heads;
  rope.kv_heads = own ? a.kv_heads : 0;
  rope.has_v = own && a.value_head_dim == a.head_dim;
  rope.head_dim = a.head_dim;
  rope.rotary_dim = pass.config().rope.kind == RopeKind::kNone
                        ? 0
                        : pass.config().rope.rotary_dim;
  rope.position = shape.past;
  rope.factor = static_cast<float>(pass.config().rope.attention_factor);
  Rope::Args args = {
      .q = q, .inverse_frequency = pass.memory().inverse_frequency, .q_out = q};
  if (own) {
    args.k = Heads(Slice(qkv, q_width, k_width), a.kv_heads, a.head_dim);
    args.k_out = Tokens(keys, shape.past, shape.length);
  }
  const Tensor v = Slice(qkv, q_width + k_width, v_width);
  const Tensor v_out = Tokens(values, shape.past, shape.length);
  if (rope.has_v) {
    args.v = Heads(v, a.kv_heads, a.head_dim);
    args.v_out = v_out;
  }
  absl::Status status =
      pass.composer().Add<Rope>(OpClass::kElementwise, rope, args);
  if (own && !rope.has_v && status.ok())
    status.Update(pass.Copy(v, WithoutHeads(v_out)));
  if (!status.ok()) return status;

  const int64_t seen = shape.past + shape.length;
  const Tensor out = Heads(o, a.heads, a.value_head_dim);
  const auto fill = [&](auto& problem) {
    problem.heads = a.heads;
    problem.kv_heads = a.kv_heads;
    problem.head_dim = a.head_dim;
    problem.value_head_dim = a.value_head_dim;
    problem.window = layer.window;
    problem.sink = pass.config().hymba.meta_tokens;
  };
  if (shape.step) {
    auto problem = pass.Make<AttentionDecode::Problem>();
    fill(problem);
    problem.seqlen = seen;
    return pass.composer().Add<AttentionDecode>(OpClass::kAttention, problem,
                                                {.q = WithoutTokens(q),
                                                 .k = Tokens(keys, 0, seen),
                                                 .v = Tokens(values, 0, seen),
                                                 .o = WithoutTokens(out)});
  }
  auto problem = pass.Make<Attention::Problem>();
  fill(problem);
  problem.past = shape.past;
  return pass.composer().Add<Attention>(OpClass::kAttention, problem,
                                        {.q = q,
                                         .k = Tokens(keys, 0, seen),
                                         .v = Tokens(values, 0, seen),
                                         .o = out});
}

absl::Status AttentionLayer(ForwardPass& pass, const SubLayer& layer,
                            const LayerInput& input, const Tensor& delta,
                            const Tensor& addend) {
  const AttentionConfig& a = pass.config().attention;
  const std::string name = ForwardPass::Prefix(layer) + "attention.";
  const Tensor qkv = pass.Temporary((a.heads + 2 * a.kv_heads) * a.head_dim);
  const Tensor o = pass.Temporary(a.heads * a.head_dim);
  absl::Status status = pass.Linear(name + "qkv_proj", input, qkv);
  if (status.ok()) status.Update(Attend(pass, layer, qkv, o));
  if (status.ok())
    status.Update(pass.Linear(name + "o_proj", o, delta, addend));
  return status;
}

}  // namespace seqmark
