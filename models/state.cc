// SPDX-License-Identifier: Apache-2.0
#include "models/state.h"

#include <algorithm>

namespace seqmark {

ModelState ModelState::Place(const ModelConfig& config, DType dtype,
                             int64_t batch, int64_t capacity, Layout& layout) {
  ModelState state;
  const AttentionConfig& a = config.attention;
  const int64_t rows = config.hymba.meta_tokens + capacity;
  int64_t ssm_layers = 0;
  const size_t start = layout.mark();
  for (const SubLayer& layer : SubLayers(config)) {
    if (HasSsm(layer.kind)) ++ssm_layers;
    if (!HasAttention(layer.kind)) continue;
    if (layer.kv_source != layer.attention) {
      state.keys.push_back(state.keys[layer.kv_source]);
      state.values.push_back(state.values[layer.kv_source]);
      continue;
    }
    state.keys.push_back(
        layout.Place(dtype, {batch, rows, a.kv_heads, a.head_dim}));
    state.values.push_back(
        layout.Place(dtype, {batch, rows, a.kv_heads, a.value_head_dim}));
  }
  state.kv_bytes = layout.mark() - start;
  if (ssm_layers == 0) return state;
  const Mamba1Config& m1 = config.mamba1;
  const Mamba2Config& m2 = config.mamba2;
  if (config.ssm.version == 1) {
    state.conv.Place(ssm_layers, dtype, {batch, m1.d_conv - 1, m1.d_inner},
                     layout);
    state.ssm.Place(ssm_layers, DType::kF32, {batch, m1.d_inner, m1.d_state},
                    layout);
  } else {
    state.conv.Place(ssm_layers, dtype,
                     {batch, m2.d_conv - 1, m2.conv_channels()}, layout);
    state.ssm.Place(ssm_layers, DType::kF32,
                    {batch, m2.heads, m2.head_dim, m2.d_state}, layout);
  }
  state.ssm_bytes = layout.mark() - start - state.kv_bytes;
  return state;
}

}  // namespace seqmark
