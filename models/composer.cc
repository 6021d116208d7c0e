// SPDX-License-Identifier: Apache-2.0
#include "models/composer.h"

#include <memory>

#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {

absl::string_view Name(OpClass op_class) {
  switch (op_class) {
    case OpClass::kGemm:
      return "gemm";
    case OpClass::kAttention:
      return "attention";
    case OpClass::kSsmScan:
      return "ssm_scan";
    case OpClass::kConv:
      return "conv";
    case OpClass::kNorm:
      return "norm";
    case OpClass::kElementwise:
      return "elementwise";
    case OpClass::kEmbedding:
      return "embedding";
    case OpClass::kLmHead:
      return "lm_head";
    case OpClass::kOther:
      break;
  }
  return "other";
}

OpClass ClassOfPart(absl::string_view op, OpClass whole) {
  if (op == CausalConv1d::kName) return OpClass::kConv;
  if (op == RmsNorm::kName) return OpClass::kNorm;
  return whole;
}

Launch InOrder(const std::vector<ModelPart>& parts) {
  std::vector<Launch> launches;
  launches.reserve(parts.size());
  for (const ModelPart& part : parts) launches.push_back(part.launch);
  return [launches = std::move(launches)](Stream stream) {
    for (const Launch& launch : launches)
      if (absl::Status s = launch(stream); !s.ok()) return s;
    return absl::OkStatus();
  };
}

absl::StatusOr<double> MedianSeconds(const Launch& launch, bool as_graph,
                                     Device& device) {
  constexpr int kWarmUp = 2, kSamples = 11;
  const auto source =
      device.MakeSampleSource(launch, CacheState::kCold, as_graph);
  if (auto batch = source->Take(kWarmUp); !batch.ok()) return batch.status();
  auto batch = source->Take(kSamples);
  if (!batch.ok()) return batch.status();
  std::sort(batch->seconds.begin(), batch->seconds.end());
  return batch->seconds[batch->seconds.size() / 2];
}

}  // namespace seqmark
