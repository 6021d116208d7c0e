// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a model's config: a config or an InvalidArgumentError, and a
// config's weights can be listed and counted. libFuzzer drives it in a build
// with SEQMARK_FUZZ; tests/config_test.cc drives it over mutations of the zoo.
#include <cstdint>
#include <cstdlib>

#include "models/config.h"
#include "models/weight_list.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seqmark;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = ParseModelConfig(text, "fuzzed");
  if (!config.ok()) {
    if (!absl::IsInvalidArgument(config.status()) ||
        config.status().message().empty())
      std::abort();
    return 0;
  }
  if (SubLayers(*config).size() != config->pattern.size()) std::abort();
  for (const WeightSpec& weight : WeightList(*config, DType::kBF16)) {
    int64_t rows = 0;
    for (const WeightSource& source : weight.sources) {
      rows += source.rows;
      if (source.row_begin < 0 || source.rows < 1 ||
          source.row_begin + source.rows > source.dims[0])
        std::abort();
    }
    if (!weight.sources.empty() && rows != weight.dims[0]) std::abort();
    if (NumElements(weight.dims) < 1) std::abort();
  }
  for (int64_t seqlen : {1, 1 << 20})
    if (static_cast<int64_t>(InverseFrequencies(config->rope, seqlen).size()) !=
        config->rope.rotary_dim / 2)
      std::abort();
  return 0;
}
