// SPDX-License-Identifier: Apache-2.0
//
// A model at work on a device: prompts in chunks, and decode steps. What it
// will hold is known before anything is allocated.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fixtures/device.h"
#include "models/composer.h"
#include "models/config.h"
#include "models/forward.h"
#include "models/state.h"
#include "models/weights.h"

namespace seqmark {

enum class LogitsOf : uint8_t { kLast, kAll };

// What is run, and on how much at once.
struct ModelShape {
  DType dtype = DType::kBF16;
  int64_t batch = 1;
  // Tokens of each sequence, meta tokens not counted.
  int64_t prompt = 0;    // 0: no prompt is run
  int64_t capacity = 0;  // that the state has room for
  // Tokens of each sequence in a chunk of the prompt: activations are of one
  // chunk, so that memory grows with the state alone.
  int64_t chunk = 0;
  LogitsOf logits = LogitsOf::kLast;
  // A decode step after so many tokens, of the prompt's kind; negative: none.
  int64_t context = -1;
};

// Tokens, all sequences together: enough to fill any device. Half as many cost
// 1 to 3 % of the time on an H200, twice as many save nothing.
inline constexpr int64_t kDefaultChunkTokens = 32768;

// Bytes of each part; they sum to what the model holds.
struct ModelMemory {
  size_t weights = 0;
  size_t kv_state = 0;   // of attention: keys and values
  size_t ssm_state = 0;  // of SSMs: the scans' and the convolutions'
  size_t logits = 0;
  size_t activations = 0;  // tokens and tables included
  size_t workspace = 0;    // of operators: scratch, and weights they packed
  size_t packed = 0;       // part of `workspace`: allocations of the plans' own
  size_t state() const { return kv_state + ssm_state; }
  size_t total() const {
    return weights + state() + logits + activations + workspace;
  }
};

struct ModelCost {
  Cost cost;
  double bytes_read = 0;     // weights and state, each once, and tokens
  double bytes_written = 0;  // logits, and state that is new
};

class Model {
 public:
  // The cost of the prompt, or of the step if `shape` has no prompt.
  static absl::StatusOr<ModelCost> GetCost(const ModelConfig& config,
                                           const ModelShape& shape);
  // Plans everything without allocating any of it. Unimplemented past the
  // last of a model's learned positions.
  static absl::StatusOr<ModelMemory> Measure(const ModelConfig& config,
                                             const ModelShape& shape,
                                             const ProviderChoice& choice,
                                             Device& device);

  // ResourceExhausted, with needed and allowed bytes, where it does not fit.
  // Weights are random by `seed` where there is no checkpoint.
  static absl::StatusOr<std::unique_ptr<Model>> Make(
      const ModelConfig& config, const ModelShape& shape,
      const ProviderChoice& choice, const Checkpoint* checkpoint, uint64_t seed,
      Device& device);

  const ModelMemory& memory() const { return memory_; }
  Device& device() const { return *device_; }
  // The prompt from an empty state, to logits() of its last token or of all.
  const std::vector<ModelPart>& prompt_parts() const { return prompt_; }
  // A step after `context` tokens; each call does it again.
  const std::vector<ModelPart>& step_parts() const { return step_; }
  // The steps of a sequence: `context` may be anything below the capacity. It
  // follows a prompt, or FillState.
  absl::StatusOr<std::vector<ModelPart>> PlanStep(int64_t context);

  // Row-major (batch, prompt) ids, each below the vocabulary.
  absl::Status SetPrompt(const std::vector<int32_t>& tokens);
  absl::Status SetStepTokens(const std::vector<int32_t>& tokens);  // (batch)
  // A state such as prompts leave, without running one.
  absl::Status FillState(uint64_t seed);
  // (batch, 1, vocab), or (batch, prompt, vocab) of a prompt with all.
  const Tensor& logits() const { return prompt_logits_; }
  const Tensor& step_logits() const { return step_logits_; }

 private:
  Model(ModelConfig config, const ModelShape& shape, Device* device)
      : config_(std::move(config)), shape_(shape), device_(device) {}
  // Places all but weights and lists the prompt and the step.
  absl::Status List(Composer& prompt, Composer& step, Layout& state,
                    Layout& logits, Layout& activations, bool every_chunk);
  // All that `memory_` says, packed weights apart, in one allocation: a driver
  // lends each in granules of some MiB.
  absl::Status Allocate(const ProviderChoice& choice,
                        const Checkpoint* checkpoint, uint64_t seed);
  // The extents of logits and activations, with state_ placed; `scratch` learns
  // what any of the steps that are to be tried asks for.
  absl::StatusOr<std::array<Layout, 2>> MeasureChoices(
      const ProviderChoice& choice, ScratchDevice& scratch);
  // Plans the step by the choice that is fastest; others are not done again.
  absl::Status ChooseStep(const std::vector<ProviderChoice>& choices);
  absl::Status CheckTokens(const std::vector<int32_t>& tokens, int64_t count);

  ModelConfig config_;
  ModelShape shape_;
  Device* device_;  // null where only costs are counted
  ProviderChoice choice_;
  Weights weights_;
  ModelState state_;
  ModelMemory memory_;
  Tensor zeros_, inverse_frequency_;
  std::vector<Tensor> chunk_tokens_;  // (batch, chunk) i32 each
  Tensor step_tokens_;                // (batch, 1) i32
  Tensor prompt_logits_, step_logits_;
  Buffer buffer_;
  std::unique_ptr<Layout> activations_;
  std::unique_ptr<ScratchDevice> scratch_;
  std::vector<ModelPart> prompt_, step_;
};

}  // namespace seqmark
