// SPDX-License-Identifier: Apache-2.0
//
// What the parsers of the config forms share. Each reads its fields into a
// ModelConfig and reports through its reader; ParseModelConfig (config.cc)
// chooses one by model_type and checks the whole.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "models/config.h"
#include "models/field_reader.h"

namespace seqmark {

void ParseDecoder(absl::string_view type, FieldReader& r, ModelConfig& c);
void ParseGptNeo(FieldReader& r, ModelConfig& c);
void ParseMamba(FieldReader& r, ModelConfig& c);
void ParseMamba2(FieldReader& r, ModelConfig& c);
void ParseMambaSsm(FieldReader& r, ModelConfig& c);
void ParseNemotronH(FieldReader& r, ModelConfig& c);
void ParseFalconH1(FieldReader& r, ModelConfig& c);
void ParseZamba2(FieldReader& r, ModelConfig& c);
void ParseHymba(FieldReader& r, ModelConfig& c);

// The reader's complaint if `whole`, a field's value, is no multiple of
// `part`. True if it is.
bool CheckMultiple(FieldReader& r, absl::string_view whole_name, int64_t whole,
                   absl::string_view part_name, int64_t part);
// A width made of several fields is in kWidth.
bool CheckWidth(FieldReader& r, absl::string_view what, int64_t width);

// hidden_size, vocab_size, tie_word_embeddings.
void ReadWidths(FieldReader& r, ModelConfig& c, bool tied_by_default);
// num_attention_heads, num_key_value_heads, head_dim; hidden is there.
void ReadHeads(FieldReader& r, ModelConfig& c);
// rope_parameters, or rope_scaling, rope_theta and partial_rotary_factor.
// head_dim and max_position are there.
void ReadRope(FieldReader& r, ModelConfig& c, double partial_by_default = 1);
ActivationFunction ReadActivation(FieldReader& r, absl::string_view key,
                                  absl::string_view otherwise);
// The limits of a clamped step, given as [min, max] under `key`.
void ReadStepLimits(FieldReader& r, absl::string_view key, Mamba2Config& m);
// One window per attention sub-layer; each reads its own keys.
void SetWindows(ModelConfig& c, std::vector<int64_t> windows);

std::string Repeat(absl::string_view unit, int64_t times);

}  // namespace seqmark
