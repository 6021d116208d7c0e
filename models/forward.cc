// SPDX-License-Identifier: Apache-2.0
#include "models/forward.h"

#include "ops/embedding/embedding.h"
#include "ops/layernorm/layernorm.h"
#include "ops/rope/rope.h"

namespace seqmark {
namespace {

template <class Op>
absl::Status AddNorm(ForwardPass& pass, const Tensor& weight,
                     const Tensor& bias, const Tensor& delta,
                     const Tensor& residual, const Tensor& residual_out,
                     const Tensor& y) {
  auto problem = pass.Make<typename Op::Problem>();
  problem.batch = delta.dims[0];
  problem.seqlen = delta.dims[1];
  problem.width = delta.dims[2];
  problem.residual = true;
  problem.residual_f32 = residual.dtype == DType::kF32;
  problem.epsilon = static_cast<float>(pass.config().norm_epsilon);
  typename Op::Args args;
  args.x = delta;
  args.residual = residual;
  args.weight = weight;
  args.y = y;
  args.residual_out = residual_out;
  if constexpr (requires { args.bias; }) args.bias = bias;
  return pass.composer().Add<Op>(OpClass::kNorm, problem, args);
}

}  // namespace

absl::Status ForwardPass::Linear(OpClass op_class, const Tensor& weight,
                                 const Tensor& bias, const Tensor& x,
                                 const Tensor& y, const Tensor& addend) {
  auto problem = Make<Gemm::Problem>();
  problem.batch = x.dims[0];
  problem.seqlen = x.dims[1];
  problem.in_features = x.dims[2];
  problem.out_features = y.dims[2];
  problem.bias = static_cast<bool>(bias);
  problem.addend = static_cast<bool>(addend);
  return composer_.Add<Gemm>(
      op_class, problem,
      {.x = x, .weight = weight, .bias = bias, .addend = addend, .y = y});
}

absl::Status ForwardPass::Norm(const std::string& name, const Tensor& delta,
                               const Tensor& residual,
                               const Tensor& residual_out, const Tensor& y) {
  const Tensor weight = memory_.weights.Find(name + ".weight");
  return config_.norm == NormKind::kRms
             ? AddNorm<RmsNorm>(*this, weight, {}, delta, residual,
                                residual_out, y)
             : AddNorm<LayerNorm>(*this, weight,
                                  memory_.weights.Find(name + ".bias"), delta,
                                  residual, residual_out, y);
}

absl::Status ForwardPass::InnerNorm(const std::string& name, const Tensor& x) {
  auto problem = Make<RmsNorm::Problem>();
  problem.width = x.dims[2];
  problem.epsilon = static_cast<float>(config_.norm_epsilon);
  return composer_.Add<RmsNorm>(
      OpClass::kNorm, problem,
      {.x = x, .weight = memory_.weights.Find(name + ".weight"), .y = x});
}

absl::Status ForwardPass::Copy(const Tensor& from, const Tensor& to) {
  auto problem = Make<Rope::Problem>();  // of no angles
  problem.seqlen = from.dims[1];
  problem.heads = 1;
  problem.head_dim = from.dims[2];
  problem.has_v = false;
  return composer_.Add<Rope>(
      OpClass::kElementwise, problem,
      {.q = Heads(from, 1, from.dims[2]), .q_out = Heads(to, 1, from.dims[2])});
}

absl::Status ForwardPass::Embed(const Tensor& tokens, const Tensor& y) {
  auto problem = Make<Embedding::Problem>();
  problem.vocab = config_.vocab;
  problem.width = config_.hidden;
  problem.learned_positions = config_.learned_positions;
  problem.max_position = config_.max_position;
  problem.position = shape_.past;
  absl::Status status = composer_.Add<Embedding>(
      OpClass::kEmbedding, problem,
      {.tokens = tokens,
       .table = memory_.weights.Find("embedding"),
       .positions = memory_.weights.Find("position_embedding"),
       .y = y});
  const int64_t meta = config_.hymba.meta_tokens;
  if (meta == 0 || shape_.past > 0 || !status.ok()) return status;
  Tensor learned = memory_.weights.Find("meta_tokens");
  learned.dims = {shape_.batch, meta, config_.hidden};
  learned.strides = {0, config_.hidden, 1};  // every sequence's
  return Copy(learned, Tokens(y, 0, meta));
}

absl::Status ForwardPass::List(const Tensor& tokens, const Tensor& logits) {
  Layout& layout = memory_.activations;
  const size_t start = layout.mark();
  const Tensor residual = layout.Place(
      memory_.zeros.dtype, {shape_.batch, shape_.length, config_.hidden});
  const Tensor embedding = Temporary(config_.hidden);
  const Tensor u = Temporary(config_.hidden);
  // Zamba2's blocks read the embedding again.
  const Tensor delta = config_.pattern.find('S') == std::string::npos
                           ? embedding
                           : Temporary(config_.hidden);
  absl::Status status = Embed(tokens, embedding);

  // Nothing has been added up before the first norm: one row of zeros.
  Tensor before = memory_.zeros;
  before.dims = residual.dims;
  before.strides = {0, 0, 1};
  Tensor last = embedding;
  for (const SubLayer& layer : SubLayers(config_)) {
    if (!status.ok()) return status;
    const size_t mark = layout.mark();
    status.Update(Norm(Prefix(layer) + "norm", last, before, residual, u));
    if (layer.kind == 'S' && status.ok()) {
      // The norm above was for the sum alone: Mamba's input has the block's
      // output added, and the residual stream has not.
      const Tensor block = Temporary(config_.hidden);
      const Tensor sum = layout.Place(residual.dtype, residual.dims);
      status.Update(SharedBlock(*this, layer, residual, embedding, block));
      status.Update(Norm(Prefix(layer) + "norm", block, residual, sum, u));
    }
    if (!status.ok()) return status;
    switch (layer.kind) {
      case '*':
        status.Update(AttentionLayer(*this, layer, u, delta));
        break;
      case '-':
        status.Update(MlpLayer(*this, layer, u, delta));
        break;
      case 'M':
      case 'S':
        status.Update(MambaLayer(*this, layer, u, delta));
        break;
      case 'H': {
        const Tensor mamba = Temporary(config_.hidden);
        status.Update(MambaLayer(*this, layer, u, mamba));
        status.Update(AttentionLayer(*this, layer, u, delta, mamba));
        break;
      }
      case 'P':
        status.Update(HymbaLayer(*this, layer, u, delta));
        break;
      default:
        return absl::UnimplementedError(
            absl::StrCat(config_.name, ": a layer of kind '",
                         std::string(1, layer.kind), "' cannot be run yet"));
    }
    before = residual;
    last = delta;
    layout.Release(mark);
  }
  if (logits && status.ok()) {
    const int64_t count = logits.dims[1], first = shape_.length - count;
    status.Update(
        Norm("norm", Tokens(last, first, count), Tokens(before, first, count),
             Tokens(residual, first, count), Tokens(u, first, count)));
    // Rows of one token a sequence are equally spaced; others may not be.
    const bool together =
        count == 1 || shape_.batch == 1 ||
        (first == 0 && logits.strides[0] == count * logits.strides[1]);
    const Tensor head =
        memory_.weights.Find(config_.tie_embeddings ? "embedding" : "lm_head");
    const auto entry = [&](const Tensor& t, int64_t b) {
      Tensor one = t;
      one.dims[0] = 1;
      one.data = t.as<std::byte>() +
                 b * t.strides[0] * static_cast<int64_t>(SizeOf(t.dtype));
      return one;
    };
    for (int64_t b = 0; b < (together ? 1 : shape_.batch); ++b) {
      const Tensor x = Tokens(u, first, count);
      if (status.ok())
        status.Update(Linear(OpClass::kLmHead, head, {},
                             together ? x : entry(x, b),
                             together ? logits : entry(logits, b), {}));
    }
  }
  layout.Release(start);
  return status;
}

}  // namespace seqmark
