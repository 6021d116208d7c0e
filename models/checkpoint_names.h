// SPDX-License-Identifier: Apache-2.0
//
// How each checkpoint format names a layer's modules: those that
// save_pretrained of Transformers 4.5x and 5.x writes for the architecture, of
// mamba_ssm's MixerModel, and of Hymba's published code.
#pragma once

#include <cstdint>
#include <string>

#include "models/config.h"

namespace seqmark {

// Module names within a layer; null where the format has no such module. A
// fused module holds the rows of several.
struct CheckpointNames {
  const char* embedding;
  const char* final_norm;
  const char* layers;  // before the layer's number
  // A sub-layer has a layer of its own, or an MLP is part of the layer of the
  // mixer before it.
  bool layer_per_sub_layer;
  const char* norm;       // of a mixer
  const char* mlp_norm;   // of an MLP
  const char* attention;  // before q_proj, k_proj, v_proj
  const char* fused_qkv;
  const char* o_proj;
  const char* gate;
  const char* up;
  const char* fused_up;  // gate rows, then up rows
  bool up_before_gate;   // in fused_up
  const char* down;
  const char* mamba;      // before in_proj and the rest
  const char* parameter;  // after x_proj, dt_proj, A_log and D
};

// The names of `format`; the format is not kNone.
const CheckpointNames& NamesOf(CheckpointFormat format);

}  // namespace seqmark
