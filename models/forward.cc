// SPDX-License-Identifier: Apache-2.0
#include "models/forward.h"

#include "ops/embedding/embedding.h"
#include "ops/layernorm/layernorm.h"
#include "ops/norm_gemm/norm_gemm.h"
#include "ops/rope/rope.h"

namespace seqmark {
namespace {

template <class Op>
absl::Status AddNorm(ForwardPass& pass, const Tensor& weight,
                     const Tensor& bias, const Tensor& delta,
                     const RowScale& scale, const Tensor& residual,
                     const Tensor& residual_out, const Tensor& y) {
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
  if constexpr (requires { args.squares; })
    if (scale.squares) {
      problem.scale_parts = scale.squares.dims[2];
      problem.scale_width = scale.width;
      problem.scale_epsilon = static_cast<float>(scale.epsilon);
      args.squares = scale.squares;
    }
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
                               const RowScale& scale, const Tensor& residual,
                               const Tensor& residual_out, const Tensor& y) {
  const Tensor weight = memory_.weights.Find(name + ".weight");
  return config_.norm == NormKind::kRms
             ? AddNorm<RmsNorm>(*this, weight, {}, delta, scale, residual,
                                residual_out, y)
             : AddNorm<LayerNorm>(*this, weight,
                                  memory_.weights.Find(name + ".bias"), delta,
                                  scale, residual, residual_out, y);
}

absl::StatusOr<LayerInput> ForwardPass::LateNorm(
    const std::string& name, const Tensor& delta, const RowScale& scale,
    const Tensor& residual, const Tensor& residual_out, const Tensor& u) {
  LayerInput input = {.u = u};
  if (!shape_.step || config_.norm != NormKind::kRms) {
    if (absl::Status s = Norm(name, delta, scale, residual, residual_out, u);
        !s.ok())
      return s;
    return input;
  }
  input.weight = memory_.weights.Find(name + ".weight");
  input.x = delta;
  input.residual = residual;
  input.residual_out = residual_out;
  input.epsilon = config_.norm_epsilon;
  return input;
}

absl::Status ForwardPass::Finish(LayerInput& input) {
  if (!input.weight) return absl::OkStatus();
  auto problem = Make<RmsNorm::Problem>();
  problem.seqlen = input.x.dims[1];
  problem.width = input.x.dims[2];
  problem.groups = input.groups;
  problem.residual = static_cast<bool>(input.residual);
  problem.residual_f32 = input.residual.dtype == DType::kF32;
  problem.epsilon = static_cast<float>(input.epsilon);
  if (!problem.residual) problem.residual_f32 = false;
  const Tensor weight = std::exchange(input.weight, Tensor());
  return composer_.Add<RmsNorm>(OpClass::kNorm, problem,
                                {.x = input.x,
                                 .residual = input.residual,
                                 .weight = weight,
                                 .y = input.u,
                                 .residual_out = input.residual_out});
}

absl::Status ForwardPass::Convolve(const CausalConv1d::Args& args) {
  auto problem = Make<CausalConv1d::Problem>();
  problem.channels = args.x.dims[2];
  problem.width = args.weight.dims[1];
  problem.bias = static_cast<bool>(args.bias);
  problem.initial_state = static_cast<bool>(args.initial_state);
  return composer_.Add<CausalConv1d>(OpClass::kConv, problem, args);
}

absl::Status ForwardPass::LinearAndConvolution(const std::string& name,
                                               const std::string& convolution,
                                               const SubLayer& layer,
                                               const LayerInput& input,
                                               const Tensor& y, int64_t first,
                                               Tensor& convolved) {
  RotatingStates& states = memory_.state.conv;
  CausalConv1d::Args args = {
      .x = Slice(y, first, convolved.dims[2]),
      .weight = memory_.weights.Find(convolution + ".weight"),
      .bias = memory_.weights.Find(convolution + ".bias"),
      .y = convolved};
  const Tensor before = states.now(layer.ssm);
  const bool starts = shape_.past == 0;
  if (!starts) args.initial_state = before;
  args.final_state = starts || shape_.step ? before : states.Next(layer.ssm);
  return Linear(OpClass::kGemm, memory_.weights.Find(name + ".weight"),
                memory_.weights.Find(name + ".bias"), input, y, args, first,
                convolved);
}

absl::Status ForwardPass::Linear(OpClass op_class, const Tensor& weight,
                                 const Tensor& bias, const LayerInput& input,
                                 const Tensor& y,
                                 const CausalConv1d::Args& convolution,
                                 int64_t first, Tensor& convolved) {
  const bool convolves = static_cast<bool>(convolution.x);
  const auto apart = [&] {
    LayerInput finished = input;
    absl::Status status = Finish(finished);
    if (status.ok())
      status = Linear(op_class, weight, bias, finished.u, y, Tensor());
    if (status.ok() && convolves) status = Convolve(convolution);
    return status;
  };
  const bool fits =
      convolves ? static_cast<bool>(convolution.initial_state) : shape_.step;
  if (!input.weight || !shape_.step || !fits) return apart();
  auto problem = Make<NormGemm::Problem>();
  problem.in_features = input.x.dims[2];
  problem.out_features = y.dims[2];
  problem.groups = input.groups;
  problem.residual = static_cast<bool>(input.residual);
  problem.residual_f32 =
      problem.residual && input.residual.dtype == DType::kF32;
  problem.epsilon = static_cast<float>(input.epsilon);
  problem.bias = static_cast<bool>(bias);
  NormGemm::Args args = {.x = input.x,
                         .residual = input.residual,
                         .norm_weight = input.weight,
                         .weight = weight,
                         .bias = bias,
                         .residual_out = input.residual_out,
                         .y = y};
  if (convolves) {
    problem.conv_channels = convolution.x.dims[2];
    problem.conv_first = first;
    problem.conv_width = convolution.weight.dims[1];
    problem.conv_bias = static_cast<bool>(convolution.bias);
    args.conv_weight = convolution.weight;
    args.conv_bias = convolution.bias;
    args.conv_state = convolution.initial_state;
    args.conv_state_out = convolution.final_state;
  }
  bool fused = false;
  absl::Status status =
      composer_.AddFused<NormGemm>(op_class, problem, args, apart, fused);
  if (fused && convolves) convolved = convolution.x;
  return status;
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
  const auto place_residual = [&] {
    return layout.Place(memory_.zeros.dtype,
                        {shape_.batch, shape_.length, config_.hidden});
  };
  // Two in turn in a step, whose fused calls do not add in place.
  Tensor residual = place_residual();
  Tensor other = shape_.step ? place_residual() : residual;
  const Tensor embedding = Temporary(config_.hidden);
  const Tensor u = Temporary(config_.hidden);
  // Zamba2's blocks read the embedding again.
  const Tensor delta = config_.pattern.find('S') == std::string::npos
                           ? embedding
                           : Temporary(config_.hidden);
  const RowScale place = PlaceRowScale(*this);
  RowScale left;  // of `last`
  absl::Status status = Embed(tokens, embedding);

  // Nothing has been added up before the first norm: one row of zeros.
  Tensor before = memory_.zeros;
  before.dims = residual.dims;
  before.strides = {0, 0, 1};
  Tensor last = embedding;
  for (const SubLayer& layer : SubLayers(config_)) {
    if (!status.ok()) return status;
    const size_t mark = layout.mark();
    auto input =
        LateNorm(Prefix(layer) + "norm", last, left, before, residual, u);
    if (!input.ok()) return input.status();
    left = {};
    if (layer.kind != '*' && layer.kind != '-' && layer.kind != 'M')
      status.Update(Finish(*input));
    if (layer.kind == 'S' && status.ok()) {
      // The norm above was for the sum alone: Mamba's input has the block's
      // output added, and the residual stream has not.
      const Tensor block = Temporary(config_.hidden);
      const Tensor sum = layout.Place(residual.dtype, residual.dims);
      status.Update(SharedBlock(*this, layer, residual, embedding, block));
      if (!status.ok()) return status;
      input = LateNorm(Prefix(layer) + "norm", block, {}, residual, sum, u);
      if (!input.ok()) return input.status();
    }
    if (!status.ok()) return status;
    switch (layer.kind) {
      case '*':
        status.Update(AttentionLayer(*this, layer, *input, delta));
        break;
      case '-':
        status.Update(MlpLayer(*this, layer, *input, delta));
        break;
      case 'M':
      case 'S':
        left = place;
        status.Update(MambaLayer(*this, layer, *input, delta, &left));
        break;
      case 'H': {
        const Tensor mamba = Temporary(config_.hidden);
        status.Update(MambaLayer(*this, layer, *input, mamba));
        status.Update(AttentionLayer(*this, layer, *input, delta, mamba));
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
    std::swap(residual, other);
    last = delta;
    layout.Release(mark);
  }
  if (logits && status.ok()) {
    const int64_t count = logits.dims[1], first = shape_.length - count;
    const Tensor of_last = Tokens(u, first, count);
    if (left.squares) left.squares = Tokens(left.squares, first, count);
    auto input = LateNorm("norm", Tokens(last, first, count), left,
                          Tokens(before, first, count),
                          Tokens(residual, first, count), of_last);
    if (!input.ok()) return input.status();
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
    Tensor none;
    if (together)
      status.Update(
          Linear(OpClass::kLmHead, head, {}, *input, logits, {}, 0, none));
    for (int64_t b = 0; b < (together ? 0 : shape_.batch); ++b)
      if (status.ok())
        status.Update(Linear(OpClass::kLmHead, head, {}, entry(of_last, b),
                             entry(logits, b), Tensor()));
  }
  layout.Release(start);
  return status;
}

}  // namespace seqmark
