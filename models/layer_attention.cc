// SPDX-License-Identifier: Apache-2.0
//
// Attention: qkv projection, rotary embedding with the write of the cache,
// softmax(q k^T) v over it, output projection.
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
  const Tensor q = Heads(Slice(qkv, 0, q_width), a.heads, a.head_dim);
  const Tensor& keys = pass.memory().state.keys[layer.attention];
  const Tensor& values = pass.memory().state.values[layer.attention];

  auto rope = pass.Make<Rope::Problem>();
  rope.heads = a.heads;
  rope.kv_heads = a.kv_heads;
  rope.head_dim = a.head_dim;
  rope.rotary_dim = pass.config().rope.kind == RopeKind::kNone
                        ? 0
                        : pass.config().rope.rotary_dim;
  rope.position = shape.past;
  rope.factor = static_cast<float>(pass.config().rope.attention_factor);
  absl::Status status = pass.composer().Add<Rope>(
      OpClass::kElementwise, rope,
      {.q = q,
       .k = Heads(Slice(qkv, q_width, k_width), a.kv_heads, a.head_dim),
       .v = Heads(Slice(qkv, q_width + k_width, k_width), a.kv_heads,
                  a.head_dim),
       .inverse_frequency = pass.memory().inverse_frequency,
       .q_out = q,
       .k_out = Tokens(keys, shape.past, shape.length),
       .v_out = Tokens(values, shape.past, shape.length)});
  if (!status.ok()) return status;

  const int64_t seen = shape.past + shape.length;
  const Tensor out = Heads(o, a.heads, a.head_dim);
  if (shape.step) {
    auto problem = pass.Make<AttentionDecode::Problem>();
    problem.seqlen = seen;
    problem.heads = a.heads;
    problem.kv_heads = a.kv_heads;
    problem.head_dim = a.head_dim;
    problem.window = layer.window;
    return pass.composer().Add<AttentionDecode>(OpClass::kAttention, problem,
                                                {.q = WithoutTokens(q),
                                                 .k = Tokens(keys, 0, seen),
                                                 .v = Tokens(values, 0, seen),
                                                 .o = WithoutTokens(out)});
  }
  auto problem = pass.Make<Attention::Problem>();
  problem.past = shape.past;
  problem.heads = a.heads;
  problem.kv_heads = a.kv_heads;
  problem.head_dim = a.head_dim;
  problem.window = layer.window;
  return pass.composer().Add<Attention>(OpClass::kAttention, problem,
                                        {.q = q,
                                         .k = Tokens(keys, 0, seen),
                                         .v = Tokens(values, 0, seen),
                                         .o = out});
}

absl::Status AttentionLayer(ForwardPass& pass, const SubLayer& layer,
                            const Tensor& u, const Tensor& delta,
                            const Tensor& addend) {
  const AttentionConfig& a = pass.config().attention;
  const std::string name = ForwardPass::Prefix(layer) + "attention.";
  const Tensor qkv = pass.Temporary((a.heads + 2 * a.kv_heads) * a.head_dim);
  const Tensor o = pass.Temporary(a.heads * a.head_dim);
  absl::Status status = pass.Linear(name + "qkv_proj", u, qkv);
  if (status.ok()) status.Update(Attend(pass, layer, qkv, o));
  if (status.ok())
    status.Update(pass.Linear(name + "o_proj", o, delta, addend));
  return status;
}

}  // namespace seqmark
