// SPDX-License-Identifier: Apache-2.0
//
// Whole models as rows:
//
//   prefill/auto/<model>/.../batch:<B>/seqlen:<L>    time to first token
//   decode/auto/<model>/.../batch:<B>/seqlen:<L>     time of one more token of
//                                                    each sequence after L
//   max_context/auto/<model>/.../batch:<B>/limit:<bytes>   the longest prompt
//       that fits, in `max_seqlen`, and the time it takes
//
// of the zoo (models/configs) and of the models that a user adds.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "models/model.h"

namespace seqmark {

// What is the same for all models' rows of a process. To be set before rows
// are made.
struct ModelRowOptions {
  ProviderChoice providers;   // "auto" in the row's name if it is empty
  int64_t prefill_chunk = 0;  // tokens of each sequence; 0: by default
  LogitsOf logits = LogitsOf::kLast;
};
void SetModelRowOptions(const ModelRowOptions& options);

// Adds a model of the user's: a config.json or a folder that has one. With
// `has_weights` the folder's safetensors are its weights.
absl::Status AddModel(const std::string& path, bool has_weights);

// "attention:native,gemm:cublaslt"; an error names what is unknown.
absl::StatusOr<ProviderChoice> ParseProviderChoice(const std::string& text);

}  // namespace seqmark
