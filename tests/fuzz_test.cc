// SPDX-License-Identifier: Apache-2.0
//
// The fuzz targets of flags and results over seeded mutations of good inputs:
// what libFuzzer does at length (tests/fuzz/README.md), in seconds and with
// any compiler.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "fixtures/roofline.h"

extern "C" int flags_fuzz(const uint8_t* data, size_t size);
extern "C" int result_fuzz(const uint8_t* data, size_t size);

namespace seqmark {
namespace {

using Target = int (*)(const uint8_t*, size_t);

void Feed(Target target, const std::string& text) {
  target(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

void FeedMutations(Target target, const std::vector<std::string>& seeds,
                   const std::string& letters) {
  std::mt19937 random(1);
  const auto below = [&random](size_t n) {
    return random() % std::max<size_t>(n, 1);
  };
  for (const std::string& seed : seeds) {
    Feed(target, seed);
    for (int i = 0; i < 3000; ++i) {
      std::string text = seed;
      for (size_t edits = 1 + below(4); edits > 0; --edits) {
        const size_t at = below(text.size() + 1);
        switch (below(4)) {
          case 0:
            text.insert(at, 1, letters[below(letters.size())]);
            break;
          case 1:
            if (at < text.size()) text.erase(at, 1 + below(8));
            break;
          case 2:
            if (at < text.size()) text[at] = static_cast<char>(random());
            break;
          default: {
            const std::string& other = seeds[below(seeds.size())];
            text.insert(at, other, below(other.size()), below(12));
          }
        }
      }
      Feed(target, text);
    }
  }
}

TEST(Fuzz, FlagsOverMutations) {
  FeedMutations(
      flags_fuzz,
      {"", "1024,4096", "1024..131072*2", "1..9223372036854775807*2", "24GiB",
       "1e300 TiB", "0.5MB",
       "gemm/native/qwen2.5-1.5b.mlp_up/dtype:bf16/device:cuda/batch:1/"
       "seqlen:4096/iterations:1/manual_time",
       "max_context/auto/mamba-130m/dtype:f32/device:cpu/batch:8/limit:24GiB"},
      "0123456789.,*/:-eEGMKTiB \t\n");
}

TEST(Fuzz, ResultsOverMutations) {
  Ceilings ceilings;
  ceilings.memory = {{4096, 1e12}, {size_t{1} << 30, 1e11}};
  ceilings.dram_bytes_per_second = 1e11;
  ceilings.cache_bytes = 1 << 20;
  FeedMutations(
      result_fuzz,
      {ToJson(ceilings),
       R"({"name": "x", "real_time": 1.5, "time_unit": "us", "sol": 0.5,
           "noise": 1e-3, "peak_memory": 4096, "label": "verified: whole"})",
       R"({"name": "x", "error_occurred": true, "error_message": "no"})",
       R"([{"skipped": true, "skip_message": "\ud800"}, null, [1e999]])"},
      "{}[]\":,0123456789.eE+-ntrue\\ ");
}

}  // namespace
}  // namespace seqmark
