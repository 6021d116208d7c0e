// SPDX-License-Identifier: Apache-2.0
//
// Every weight of a model: its canonical name, shape and role, and the
// checkpoint tensors that it is made from. Canonical shapes, with h = hidden,
// V = vocab, i the sub-layer's index in the pattern:
//
//   embedding (V, h)          position_embedding (max_position, h)
//   meta_tokens (n, h)        lm_head (V, h), only if untied
//   norm.weight (h) [norm.bias]
//   layers.<i>.norm.weight (h) [.norm.bias]         every kind
//   layers.<i>.attention. (* H P)
//     qkv_proj.weight (q + k + v rows, h) [.bias]   rows q, k, v; q alone
//                                                   where kv_source is another
//     o_proj.weight (h, heads * d) [.bias]          not P
//     norm.weight (heads * value_head_dim)          P: of attention's output
//   layers.<i>.mlp. (-)
//     up_proj.weight ((gated ? 2 : 1) * m, h) [.bias]   gate rows first
//     down_proj.weight (h, m) [.bias]
//   layers.<i>.mamba. (M H S P), Mamba-1: n = d_inner, s = d_state, r = dt_rank
//     in_proj.weight (2n, h) x then z [.bias]  conv.weight (n, d_conv)
//     conv.bias (n)                            x_proj.weight (r + 2s, n)
//     dt_proj.weight (n, r)                    dt_bias (n) f32
//     A (n, s) f32, negative                   D (n) f32
//     out_proj.weight (h, n) [.bias], not P    norm.weight (n), P: of its
//     output dt_norm.weight (r), B_norm.weight (s), C_norm.weight (s)   inner
//     norms
//   layers.<i>.mamba., Mamba-2: c = n + 2 * groups * d_state
//     in_proj.weight (n + c + heads, h) z, x, B, C, dt [.bias]
//     conv.weight (c, d_conv), conv.bias (c)   dt_bias, A, D (heads) f32
//     norm.weight (n), the gated norm          out_proj.weight (h, n) [.bias]
//   layers.<i>.out_proj.weight (h, n)          P: of the two normed outputs'
//                                              sum, the half folded in
//   S, with w = 2h, a = heads * d, m = intermediate, r = adapter_rank:
//   layers.<i>.linear.weight (h, h)            after the shared block
//   layers.<i>.attention.adapter_down.weight (3r, w)   q, k, v
//   layers.<i>.attention.adapter_up_{q,k,v}.weight (rows of each, r)
//   layers.<i>.mlp.adapter_down.weight (r, h)
//   layers.<i>.mlp.adapter_up.weight (2m, r)           gate rows first
//   shared.<block>.norm.weight (w), .attention.qkv_proj.weight (3a, w),
//     .attention.o_proj.weight (h, a), .mlp_norm.weight (h),
//     .mlp.up_proj.weight (2m, h) [.bias], .mlp.down_proj.weight (h, m) [.bias]
#pragma once

#include <string>
#include <vector>

#include "fixtures/dtype.h"
#include "fixtures/tensor.h"
#include "models/config.h"

namespace seqmark {

enum class Transform : uint8_t {
  kPlain,    // x
  kNegExp,   // -exp(x): A of A_log
  kPlusOne,  // 1 + x: LayerNorm-1p
};

// Rows [row_begin, row_begin + rows) of a checkpoint tensor, transformed, then
// multiplied by `scale`.
struct WeightSource {
  std::string name;
  Dims dims;  // as stored: the whole tensor. Axes of 1 count for nothing: a
              // conv's (channels, 1, width) is (channels, width).
  int64_t row_begin = 0;
  int64_t rows = 0;
  Transform transform = Transform::kPlain;
  double scale = 1;
};

struct WeightSpec {
  std::string name;  // canonical, see above
  Dims dims;
  Role role;    // how a random weight is drawn (fixtures/inputs.h)
  DType dtype;  // the model's, or f32 for A, D and dt_bias
  // Concatenated along axis 0 they are the weight. Empty where the config has
  // no checkpoint format.
  std::vector<WeightSource> sources;
};

std::vector<WeightSpec> WeightList(const ModelConfig& config, DType dtype);

// Elements of all weights; a tied embedding counts once.
int64_t ParameterCount(const ModelConfig& config);

}  // namespace seqmark
