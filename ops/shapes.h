// SPDX-License-Identifier: Apache-2.0
//
// The layer shapes that sweeps run at: the real layers of real models. One
// table, read by every operator; the sizes are those of the models' published
// configurations.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <span>

#include "absl/strings/string_view.h"

namespace seqmark {

struct AttentionLayer {
  absl::string_view model;
  int64_t hidden;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t intermediate;
  int64_t vocab;
};

struct MambaLayer {
  absl::string_view model;
  int64_t hidden;
  int64_t d_inner;
  int64_t d_state;
  int64_t dt_rank;
  int64_t d_conv;
  int64_t vocab;
};

struct Mamba2Layer {
  absl::string_view model;
  int64_t hidden;
  int64_t heads;
  int64_t head_dim;
  int64_t groups;
  int64_t d_state;
  int64_t chunk;  // of the model's configuration; a kernel may choose another
  int64_t d_conv;
  int64_t vocab;

  int64_t d_inner() const { return heads * head_dim; }
  int64_t conv_channels() const { return d_inner() + 2 * groups * d_state; }
};

inline constexpr AttentionLayer kAttentionLayers[] = {
    // model, hidden, heads, kv_heads, head_dim, intermediate, vocab
    {"qwen2.5-0.5b", 896, 14, 2, 64, 4864, 151936},
    {"qwen2.5-1.5b", 1536, 12, 2, 128, 8960, 151936},
    {"llama-3.2-1b", 2048, 32, 8, 64, 8192, 128256},
};

inline constexpr MambaLayer kMambaLayers[] = {
    // model, hidden, d_inner, d_state, dt_rank, d_conv, vocab
    {"mamba-130m", 768, 1536, 16, 48, 4, 50280},
    {"mamba-790m", 1536, 3072, 16, 96, 4, 50280},
    {"mamba-2.8b", 2560, 5120, 16, 160, 4, 50280},
};

inline constexpr Mamba2Layer kMamba2Layers[] = {
    // model, hidden, heads, head_dim, groups, d_state, chunk, d_conv, vocab
    {"mamba2-130m", 768, 24, 64, 1, 128, 256, 4, 50288},
    {"mamba2-780m", 1536, 48, 64, 1, 128, 256, 4, 50288},
    {"mamba2-2.7b", 2560, 80, 64, 1, 128, 256, 4, 50288},
    {"mamba2-8b", 4096, 128, 64, 8, 128, 128, 4, 256000},
};

// The width of the residual stream of every model above: what norms run at.
struct HiddenWidth {
  absl::string_view model;
  int64_t width;
};
inline constexpr auto kHiddenWidths = [] {
  std::array<HiddenWidth, std::size(kAttentionLayers) +
                              std::size(kMambaLayers) +
                              std::size(kMamba2Layers)>
      widths{};
  size_t i = 0;
  for (const auto& layer : kAttentionLayers)
    widths[i++] = {layer.model, layer.hidden};
  for (const auto& layer : kMambaLayers)
    widths[i++] = {layer.model, layer.hidden};
  for (const auto& layer : kMamba2Layers)
    widths[i++] = {layer.model, layer.hidden};
  return widths;
}();

// A (batch, seqlen) pair of the sweeps.
struct Extent {
  int64_t batch;
  int64_t seqlen;
};

// Batch 1, 1K to 128K tokens by powers of two.
inline constexpr auto kLongExtents = std::to_array<Extent>({
    {1, 1024},
    {1, 2048},
    {1, 4096},
    {1, 8192},
    {1, 16384},
    {1, 32768},
    {1, 65536},
    {1, 131072},
});

// One token of one sequence, and of 16 together.
inline constexpr auto kDecodeExtents = std::to_array<Extent>({{1, 1}, {16, 1}});

}  // namespace seqmark
