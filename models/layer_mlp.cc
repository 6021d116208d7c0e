// SPDX-License-Identifier: Apache-2.0
//
// The feed-forward layer, and Zamba2's shared block, which is attention and a
// feed-forward layer without residuals between.
#include "models/forward.h"
#include "ops/activation/activation.h"
#include "ops/rope/rope.h"

namespace seqmark {

absl::Status Activate(ForwardPass& pass, const Tensor& x, const Tensor& y) {
  auto problem = pass.Make<Activation::Problem>();
  problem.width = y.dims[2];
  problem.function = pass.config().mlp.activation;
  problem.gated = pass.config().mlp.gated;
  return pass.composer().Add<Activation>(OpClass::kElementwise, problem,
                                         {.x = x, .y = y});
}

absl::Status MlpLayer(ForwardPass& pass, const SubLayer& layer,
                      const LayerInput& input, const Tensor& delta) {
  const MlpConfig& mlp = pass.config().mlp;
  const std::string name = ForwardPass::Prefix(layer) + "mlp.";
  const Tensor up = pass.Temporary((mlp.gated ? 2 : 1) * mlp.intermediate);
  const Tensor active = pass.Temporary(mlp.intermediate);
  absl::Status status = pass.Linear(name + "up_proj", input, up);
  if (status.ok()) status.Update(Activate(pass, up, active));
  if (status.ok())
    status.Update(pass.Linear(name + "down_proj", active, delta));
  return status;
}

absl::Status SharedBlock(ForwardPass& pass, const SubLayer& layer,
                         const Tensor& residual, const Tensor& embedding,
                         const Tensor& y) {
  const ModelConfig& config = pass.config();
  const AttentionConfig& a = config.attention;
  const std::string shared = absl::StrCat("shared.", layer.shared_block, ".");
  const std::string own = ForwardPass::Prefix(layer);
  const int64_t hidden = config.hidden, rank = config.zamba2.adapter_rank;
  const int64_t width = a.heads * a.head_dim;
  if (residual.dtype != embedding.dtype)
    return absl::UnimplementedError("a shared block on an f32 residual stream");

  const Tensor both = pass.Temporary(2 * hidden);
  auto copy = pass.Make<Rope::Problem>();  // of no angles: copies
  copy.heads = copy.kv_heads = 1;
  copy.head_dim = hidden;
  copy.has_v = false;
  absl::Status status = pass.composer().Add<Rope>(
      OpClass::kElementwise, copy,
      {.q = Heads(residual, 1, hidden),
       .k = Heads(embedding, 1, hidden),
       .q_out = Heads(Slice(both, 0, hidden), 1, hidden),
       .k_out = Heads(Slice(both, hidden, hidden), 1, hidden)});
  if (status.ok()) status.Update(pass.InnerNorm(shared + "norm", both));

  const Tensor qkv = pass.Temporary(3 * width), o = pass.Temporary(width);
  if (status.ok())
    status.Update(pass.Linear(shared + "attention.qkv_proj", both, qkv));
  if (config.zamba2.attention_adapters && status.ok()) {
    const Tensor down = pass.Temporary(3 * rank);
    status.Update(pass.Linear(own + "attention.adapter_down", both, down));
    const char* const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3 && status.ok(); ++i) {
      const Tensor part = Slice(qkv, i * width, width);
      status.Update(
          pass.Linear(absl::StrCat(own, "attention.adapter_up_", names[i]),
                      Slice(down, i * rank, rank), part, part));
    }
  }
  const Tensor attended = pass.Temporary(hidden);
  if (status.ok()) status.Update(Attend(pass, layer, qkv, o));
  if (status.ok())
    status.Update(pass.Linear(shared + "attention.o_proj", o, attended));
  if (status.ok()) status.Update(pass.InnerNorm(shared + "mlp_norm", attended));

  const int64_t intermediate = config.mlp.intermediate;
  const Tensor up = pass.Temporary(2 * intermediate);
  const Tensor active = pass.Temporary(intermediate);
  const Tensor down = pass.Temporary(rank);
  const Tensor out = pass.Temporary(hidden);
  if (status.ok())
    status.Update(pass.Linear(shared + "mlp.up_proj", attended, up));
  if (status.ok())
    status.Update(pass.Linear(own + "mlp.adapter_down", attended, down));
  if (status.ok())
    status.Update(pass.Linear(own + "mlp.adapter_up", down, up, up));
  if (status.ok()) status.Update(Activate(pass, up, active));
  if (status.ok())
    status.Update(pass.Linear(shared + "mlp.down_proj", active, out));
  if (status.ok()) status.Update(pass.Linear(own + "linear", out, y));
  return status;
}

}  // namespace seqmark
