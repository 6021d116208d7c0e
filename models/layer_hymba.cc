// SPDX-License-Identifier: Apache-2.0
//
// Hymba's layer (Dong et al. 2024, arXiv:2411.13676, eq. 3): attention and
// Mamba-1 of the same input, as wide as each other, each normed, then averaged
// and projected. The half of the average is in the projection's weight.
#include "models/forward.h"

namespace seqmark {
namespace {

// sum += x, which is lost. It is what a norm has to add before it norms.
absl::Status AddTo(ForwardPass& pass, const std::string& norm, const Tensor& x,
                   const Tensor& sum) {
  auto problem = pass.Make<RmsNorm::Problem>();
  problem.width = x.dims[2];
  problem.residual = true;
  return pass.composer().Add<RmsNorm>(
      OpClass::kNorm, problem,
      {.x = x,
       .residual = sum,
       .weight = pass.memory().weights.Find(norm + ".weight"),
       .y = x,
       .residual_out = sum});
}

}  // namespace

absl::Status HymbaLayer(ForwardPass& pass, const SubLayer& layer,
                        const Tensor& u, const Tensor& delta) {
  const AttentionConfig& a = pass.config().attention;
  const std::string name = ForwardPass::Prefix(layer);
  const bool own = layer.kv_source == layer.attention;
  const int64_t q_width = a.heads * a.head_dim;
  const int64_t kv_width = a.kv_heads * (a.head_dim + a.value_head_dim);
  const Tensor qkv = pass.Temporary(q_width + (own ? kv_width : 0));
  const Tensor attended = pass.Temporary(a.heads * a.value_head_dim);
  const Tensor scanned = pass.Temporary(pass.config().mamba1.d_inner);
  const std::string attention = name + "attention.", mamba = name + "mamba.";
  absl::Status status = pass.Linear(attention + "qkv_proj", u, qkv);
  if (status.ok()) status.Update(Attend(pass, layer, qkv, attended));
  if (status.ok()) status.Update(pass.InnerNorm(attention + "norm", attended));
  if (status.ok()) status.Update(Mamba1Scan(pass, layer, {.u = u}, scanned));
  if (status.ok()) status.Update(pass.InnerNorm(mamba + "norm", scanned));
  if (status.ok())
    status.Update(AddTo(pass, mamba + "norm", attended, scanned));
  if (status.ok())
    status.Update(pass.Linear(name + "out_proj", scanned, delta));
  return status;
}

}  // namespace seqmark
