// SPDX-License-Identifier: Apache-2.0
//
// The flags of whole models, handed to models/.

#include "bench/setup.h"
#include "models/model_rows.h"

namespace seqmark {
namespace {

absl::Status RegisterModels(const Options& options) {
  auto providers = ParseProviderChoice(options.model_providers);
  if (!providers.ok()) return providers.status();
  SetModelRowOptions(
      {.providers = *std::move(providers),
       .prefill_chunk = options.prefill_chunk,
       .logits = options.all_logits ? LogitsOf::kAll : LogitsOf::kLast});
  for (const std::string& path : options.configs)
    if (absl::Status s = AddModel(path, false); !s.ok()) return s;
  for (const std::string& path : options.checkpoints)
    if (absl::Status s = AddModel(path, true); !s.ok()) return s;
  return absl::OkStatus();
}

const bool registered = AddSetup(RegisterModels);

}  // namespace
}  // namespace seqmark
