// SPDX-License-Identifier: Apache-2.0
#include "models/model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fixtures/inputs.h"
#include "ops/gemm/gemm.h"
#include "ops/norm_gemm/norm_gemm.h"

namespace seqmark {
namespace {

std::string Bytes(size_t bytes) {
  return absl::StrCat(bytes, " bytes (", (bytes + (size_t{1} << 19)) >> 20,
                      " MiB)");
}

// Elements of keys and values of a sequence that a call reads, each once, and
// of those that it writes. `past` tokens are there; `length` are new.
std::pair<int64_t, int64_t> CacheElements(const ModelConfig& config,
                                          int64_t past, int64_t length) {
  const AttentionConfig& a = config.attention;
  std::vector<int64_t> read(a.windows.size(), 0);  // tokens, by producer
  int64_t total = 0, producers = 0;
  for (const SubLayer& layer : SubLayers(config)) {
    if (layer.attention < 0) continue;
    if (layer.kv_source == layer.attention) ++producers;
    int64_t& most = read[layer.kv_source];
    // The window of a new token has the token itself.
    const int64_t seen =
        layer.window == 0 ? past : layer.window - 1 + config.hymba.meta_tokens;
    total -= most;
    most = std::max(most, std::min(past, seen));
    total += most;
  }
  const int64_t row = a.kv_heads * (a.head_dim + a.value_head_dim);
  return {total * row, producers * length * row};
}

// What a step may be made of: fused calls and kernels that overlap, or what is
// fastest one by one. How much an overlap gains depends on the calls around it,
// so that steps are compared whole.
std::vector<ProviderChoice> StepChoices(const ModelShape& shape,
                                        const ProviderChoice& choice,
                                        const Device& device) {
  std::vector<ProviderChoice> choices = {choice};
  if (shape.context < 0) return choices;
  const auto offer = [&](const std::string& op, const auto& providers) {
    if (choice.contains(op)) return;
    for (const auto& provider : providers) {
      if (!provider.overlaps || provider.device != device.kind()) continue;
      for (size_t i = 0, n = choices.size(); i < n; ++i) {
        choices.push_back(choices[i]);
        choices.back()[op] = std::string(provider.name);
      }
    }
  };
  offer(std::string(NormGemm::kName), ProvidersOf<NormGemm>());
  offer(std::string(Gemm::kName), ProvidersOf<Gemm>());
  return choices;
}

}  // namespace

absl::Status Model::List(Composer& prompt, Composer& step, Layout& state,
                         Layout& logits, Layout& activations,
                         bool every_chunk) {
  const ModelShape& s = shape_;
  state_ = ModelState::Place(config_, s.dtype, s.batch, s.capacity, state);
  const bool all = s.logits == LogitsOf::kAll;
  if (s.prompt > 0)
    prompt_logits_ =
        logits.Place(s.dtype, {s.batch, all ? s.prompt : 1, config_.vocab});
  if (s.context >= 0)
    step_logits_ = logits.Place(s.dtype, {s.batch, 1, config_.vocab});

  zeros_ = activations.Place(config_.residual_in_f32 ? DType::kF32 : s.dtype,
                             {1, 1, config_.hidden});
  if (config_.rope.kind != RopeKind::kNone)
    inverse_frequency_ =
        activations.Place(DType::kF32, {config_.rope.rotary_dim / 2});
  step_tokens_ = activations.Place(DType::kI32, {s.batch, 1});
  // Meta tokens come before the prompt, in its first chunk.
  const int64_t meta = config_.hymba.meta_tokens;
  chunk_tokens_.clear();
  for (int64_t past = 0; past < s.prompt; past += s.chunk)
    chunk_tokens_.push_back(activations.Place(
        DType::kI32, {s.batch, (past == 0 ? meta : 0) +
                                   std::min(s.chunk, s.prompt - past)}));
  const ForwardMemory memory = {weights_, state_, activations, zeros_,
                                inverse_frequency_};
  const auto chunks = static_cast<int64_t>(chunk_tokens_.size());
  for (int64_t i = 0; i < chunks; ++i) {
    // Others ask for what the second asks for, or the last of that length.
    if (!every_chunk && i > 1 && i < chunks - 2) continue;
    const int64_t first = i * s.chunk;  // of the prompt
    ForwardPass pass(config_,
                     {.dtype = s.dtype,
                      .batch = s.batch,
                      .length = chunk_tokens_[i].dims[1],
                      .past = i == 0 ? 0 : meta + first},
                     memory, prompt);
    Tensor wanted;
    if (all)
      wanted =
          Tokens(prompt_logits_, first, std::min(s.chunk, s.prompt - first));
    if (!all && i == chunks - 1) wanted = prompt_logits_;
    if (absl::Status status = pass.List(chunk_tokens_[i], wanted); !status.ok())
      return status;
  }
  if (s.context < 0) return absl::OkStatus();
  ForwardPass pass(config_,
                   {.dtype = s.dtype,
                    .batch = s.batch,
                    .past = meta + s.context,
                    .step = true},
                   memory, step);
  return pass.List(step_tokens_, step_logits_);
}

absl::StatusOr<ModelCost> Model::GetCost(const ModelConfig& config,
                                         const ModelShape& shape) {
  Model model(config, shape, nullptr);
  model.weights_ = Weights::Placed(config, shape.dtype);
  Composer prompt, step;
  Layout state, logits, activations;
  if (absl::Status s =
          model.List(prompt, step, state, logits, activations, true);
      !s.ok())
    return s;
  ModelCost cost;
  for (const Composer* composer : {&prompt, &step})
    for (const ModelPart& part : composer->parts()) {
      cost.cost.matrix_flops += part.cost.matrix_flops;
      cost.cost.vector_flops += part.cost.vector_flops;
      cost.cost.special_ops += part.cost.special_ops;
    }
  // Least bytes: an embedding's other rows are not read, unless they are the
  // output's weights too.
  const size_t element = SizeOf(shape.dtype);
  const double table = static_cast<double>(config.vocab) * config.hidden *
                       static_cast<double>(element);
  cost.bytes_read = static_cast<double>(model.weights_.bytes()) -
                    (config.tie_embeddings ? 0 : table);
  cost.bytes_written = static_cast<double>(logits.bytes());
  // State: what does not grow, which a step reads and writes, and the keys and
  // values of tokens that are new, or are seen.
  const int64_t meta = config.hymba.meta_tokens;
  Layout fixed;
  ModelConfig without_keys = config;
  without_keys.attention.kv_heads = 0;
  ModelState::Place(without_keys, shape.dtype, shape.batch, 0, fixed);
  const bool one = shape.prompt == 0;  // a step's
  const auto [read, written] = CacheElements(
      config, one ? meta + shape.context : 0, one ? 1 : meta + shape.prompt);
  const double sequences = static_cast<double>(shape.batch * element);
  cost.bytes_written += static_cast<double>(fixed.bytes()) +
                        static_cast<double>(written) * sequences;
  if (one)
    cost.bytes_read += static_cast<double>(fixed.bytes()) +
                       static_cast<double>(read) * sequences;
  return cost;
}

absl::StatusOr<ModelMemory> Model::Measure(const ModelConfig& config,
                                           const ModelShape& shape,
                                           const ProviderChoice& choice,
                                           Device& device) {
  if (config.learned_positions &&
      std::max(shape.prompt, shape.context + 1) > config.max_position)
    return absl::UnimplementedError(
        absl::StrCat(config.name, " has learned ", config.max_position,
                     " positions, and no token after them"));
  Model model(config, shape, &device);
  model.weights_ = Weights::Placed(config, shape.dtype);
  ScratchDevice scratch(device);
  auto sizes = model.MeasureChoices(choice, scratch);
  if (!sizes.ok()) return sizes.status();
  const auto& [logits, activations] = *sizes;
  ModelMemory memory{
      .weights = model.weights_.bytes(),
      .kv_state = model.state_.kv_bytes,
      .ssm_state = model.state_.ssm_bytes,
      .logits = logits.bytes(),
      .activations = activations.bytes(),
      .workspace = scratch.workspace_bytes() + scratch.packed_bytes(),
      .packed = scratch.packed_bytes()};
  // All but what is packed is one allocation: what a driver rounds it up by is
  // room that a plan may use.
  const size_t together = memory.total() - memory.packed;
  memory.workspace += device.TakenBytes(together) - together;
  return memory;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Make(const ModelConfig& config,
                                                   const ModelShape& shape,
                                                   const ProviderChoice& choice,
                                                   const Checkpoint* checkpoint,
                                                   uint64_t seed,
                                                   Device& device) {
  if (shape.prompt > shape.capacity || shape.context >= shape.capacity)
    return absl::InvalidArgumentError(absl::StrCat(
        "a state for ", shape.capacity, " tokens, but a prompt of ",
        shape.prompt, " and a step after ", shape.context));
  const auto measured = Measure(config, shape, choice, device);
  if (!measured.ok()) return measured.status();
  const size_t limit = device.memory_limit();
  if (limit > 0 && measured->total() > limit)
    return absl::ResourceExhaustedError(absl::StrCat(
        config.name, " needs ", Bytes(measured->total()), ": weights ",
        Bytes(measured->weights), ", state ", Bytes(measured->state()),
        ", activations ", Bytes(measured->activations), ", logits ",
        Bytes(measured->logits), ", workspace ", Bytes(measured->workspace),
        "; --memory_limit allows ", Bytes(limit)));
  auto model = std::unique_ptr<Model>(new Model(config, shape, &device));
  model->memory_ = *measured;
  if (absl::Status s = model->Allocate(choice, checkpoint, seed); !s.ok())
    return s;
  return model;
}

absl::StatusOr<std::array<Layout, 2>> Model::MeasureChoices(
    const ProviderChoice& choice, ScratchDevice& scratch) {
  std::array<Layout, 2> sizes;
  bool first = true;
  for (const ProviderChoice& of_step : StepChoices(shape_, choice, *device_)) {
    Composer prompt(scratch, choice), step(scratch, of_step);
    std::array<Layout, 2> layouts;
    auto& [logits, activations] = layouts;
    Layout state;
    const absl::Status s =
        List(prompt, step, state, logits, activations, false);
    if (!s.ok() && (first || !absl::IsUnimplemented(s))) return s;
    if (first) sizes = layouts;
    first = false;
  }
  return sizes;
}

absl::Status Model::ChooseStep(const std::vector<ProviderChoice>& choices) {
  double least = 0;
  ProviderChoice best = choices.front();
  for (const ProviderChoice& choice : choices) {
    choice_ = choice;
    // The first is what is planned already.
    auto parts = least > 0 ? PlanStep(shape_.context)
                           : absl::StatusOr<std::vector<ModelPart>>(step_);
    if (absl::IsUnimplemented(parts.status())) continue;
    if (!parts.ok()) return parts.status();
    const auto seconds = MedianSeconds(InOrder(*parts), true, *device_);
    if (!seconds.ok()) return seconds.status();
    if (least > 0 && *seconds >= least) continue;
    least = *seconds;
    best = choice;
    step_ = *std::move(parts);
  }
  choice_ = best;
  return absl::OkStatus();
}

absl::Status Model::Allocate(const ProviderChoice& choice,
                             const Checkpoint* checkpoint, uint64_t seed) {
  choice_ = choice;
  auto buffer = device_->Allocate(memory_.total() - memory_.packed);
  if (!buffer.ok()) return buffer.status();
  buffer_ = *std::move(buffer);
  auto* free = static_cast<std::byte*>(buffer_.data());
  const auto take = [&free](size_t bytes) {
    return std::exchange(free, free + bytes);
  };
  void* const weights = take(memory_.weights);
  Layout state(take(memory_.state())), logits(take(memory_.logits));
  void* const activations = take(memory_.activations);
  const size_t scratch_bytes = memory_.workspace - memory_.packed;
  scratch_ = std::make_unique<ScratchDevice>(*device_, take(scratch_bytes),
                                             scratch_bytes);

  auto filled =
      checkpoint != nullptr
          ? Weights::Load(config_, shape_.dtype, *checkpoint, weights, *device_)
          : Weights::Random(config_, shape_.dtype, seed, weights, *device_);
  if (!filled.ok()) return filled.status();
  weights_ = *std::move(filled);
  Composer prompt(*scratch_, choice), step(*scratch_, choice);
  activations_ = std::make_unique<Layout>(activations);
  // Plans time candidates on these tensors: not on what is not a number.
  absl::Status status = device_->CopyToDevice(
      activations, std::vector<std::byte>(memory_.activations).data(),
      memory_.activations);
  status.Update(List(prompt, step, state, logits, *activations_, true));
  if (!status.ok()) return status;
  prompt_ = prompt.TakeParts();
  step_ = step.TakeParts();
  if (inverse_frequency_) {
    const std::vector<float> frequencies = InverseFrequencies(
        config_.rope,
        config_.hymba.meta_tokens + std::max(shape_.prompt, shape_.capacity));
    status = device_->CopyToDevice(inverse_frequency_.data, frequencies.data(),
                                   inverse_frequency_.bytes());
  }
  const auto choices = StepChoices(shape_, choice, *device_);
  if (status.ok() && choices.size() > 1) status = ChooseStep(choices);
  return status;
}

absl::StatusOr<std::vector<ModelPart>> Model::PlanStep(int64_t context) {
  if (context < 0 || context >= shape_.capacity)
    return absl::InvalidArgumentError(absl::StrCat("no room for a token after ",
                                                   context, " in a state of ",
                                                   shape_.capacity));
  Composer step(*scratch_, choice_);
  ForwardPass pass(
      config_,
      {.dtype = shape_.dtype,
       .batch = shape_.batch,
       .past = config_.hymba.meta_tokens + context,
       .step = true},
      {weights_, state_, *activations_, zeros_, inverse_frequency_}, step);
  if (absl::Status s = pass.List(step_tokens_, step_logits_); !s.ok()) return s;
  return step.TakeParts();
}

absl::Status Model::CheckTokens(const std::vector<int32_t>& tokens,
                                int64_t count) {
  if (static_cast<int64_t>(tokens.size()) != count)
    return absl::InvalidArgumentError(
        absl::StrCat(tokens.size(), " tokens, expected ", count));
  for (int32_t token : tokens)
    if (token < 0 || token >= config_.vocab)
      return absl::InvalidArgumentError(absl::StrCat(
          "token ", token, " is not in a vocabulary of ", config_.vocab));
  return absl::OkStatus();
}

absl::Status Model::SetPrompt(const std::vector<int32_t>& tokens) {
  absl::Status status = CheckTokens(tokens, shape_.batch * shape_.prompt);
  for (size_t i = 0; i < chunk_tokens_.size() && status.ok(); ++i) {
    const Tensor& chunk = chunk_tokens_[i];
    const int64_t meta = i == 0 ? config_.hymba.meta_tokens : 0;
    std::vector<int32_t> host(chunk.size());
    for (int64_t b = 0; b < shape_.batch; ++b)
      std::memcpy(&host[b * chunk.dims[1] + meta],
                  &tokens[b * shape_.prompt + i * shape_.chunk],
                  (chunk.dims[1] - meta) * sizeof(int32_t));
    status = device_->CopyToDevice(chunk.data, host.data(), chunk.bytes());
  }
  return status;
}

absl::Status Model::SetStepTokens(const std::vector<int32_t>& tokens) {
  absl::Status status = CheckTokens(tokens, shape_.batch);
  if (status.ok())
    status = device_->CopyToDevice(step_tokens_.data, tokens.data(),
                                   step_tokens_.bytes());
  return status;
}

absl::Status Model::FillState(uint64_t seed) {
  absl::Status status;
  const auto fill = [&](const std::string& name, Role role,
                        const Tensor& tensor) {
    if (status.ok())
      status =
          Fill({name, role, tensor.dtype, tensor.dims}, tensor, seed, *device_);
  };
  for (size_t i = 0; i < state_.keys.size(); ++i) {
    fill(absl::StrCat("keys", i), Role::kActivation, state_.keys[i]);
    fill(absl::StrCat("values", i), Role::kActivation, state_.values[i]);
  }
  for (const SubLayer& layer : SubLayers(config_)) {
    if (layer.ssm < 0) continue;
    fill(absl::StrCat("conv", layer.ssm), Role::kActivation,
         state_.conv.now(layer.ssm));
    fill(absl::StrCat("ssm", layer.ssm), Role::kState,
         state_.ssm.now(layer.ssm));
  }
  return status;
}

}  // namespace seqmark
