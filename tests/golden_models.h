// SPDX-License-Identifier: Apache-2.0
//
// Tiny models with the logits that others computed for them
// (tests/golden/models), runs of models, and how far their logits are apart.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/model.h"

namespace seqmark {

using Logits = std::vector<std::vector<std::vector<double>>>;  // [b][t][vocab]

inline constexpr const char* kGoldenModels[] = {
    "falcon_h1", "falcon_h1_norm", "gpt_neo",         "hymba",
    "llama",     "mamba",          "mamba2_groups1",  "mamba2_groups2",
    "nemotron",  "nemotron_h",     "mamba_ssm_mamba", "mamba_ssm_mamba2",
    "phi3",      "qwen2",          "zamba2"};

// Of f32 logits: the largest error over their rms.
inline constexpr double kF32 = 1e-4;

inline std::string GoldenFolder(const std::string& model) {
  return absl::StrCat(SEQMARK_SOURCE_DIR, "/tests/golden/models/", model);
}

// A model, the sequences it is asked to read and those it then decodes.
struct Sequences {
  ModelConfig config;
  std::shared_ptr<const Checkpoint> checkpoint;      // none: random weights
  std::vector<std::vector<int32_t>> prompt, decode;  // [b][t]

  int64_t length() const { return static_cast<int64_t>(prompt[0].size()); }
  int64_t steps() const { return static_cast<int64_t>(decode[0].size()); }
  // The first `count` tokens that are decoded are the prompt's last instead,
  // and the others are left out.
  Sequences PromptedWith(int64_t count) const {
    Sequences longer = *this;
    for (size_t b = 0; b < prompt.size(); ++b) {
      longer.prompt[b].insert(longer.prompt[b].end(), decode[b].begin(),
                              decode[b].begin() + count);
      longer.decode[b].clear();
    }
    return longer;
  }
  static Sequences Random(const ModelConfig& config, int64_t batch,
                          int64_t length, int64_t steps) {
    Sequences made{.config = config};
    std::mt19937 random(1);
    const auto draw = [&](int64_t count) {
      std::vector<std::vector<int32_t>> sequences(batch);
      for (auto& sequence : sequences)
        for (int64_t t = 0; t < count; ++t)
          sequence.push_back(static_cast<int32_t>(random() % config.vocab));
      return sequences;
    };
    made.prompt = draw(length);
    made.decode = draw(steps);
    return made;
  }
};

struct Golden : Sequences {
  Logits prefill_logits, decode_logits;

  static Golden Read(const std::string& model,
                     const std::string& logits = "logits.json") {
    Golden golden;
    golden.config = *LoadModelConfig(GoldenFolder(model));
    golden.checkpoint = *Checkpoint::Open(GoldenFolder(model));
    std::ifstream file(GoldenFolder(model) + "/" + logits);
    const auto json = nlohmann::json::parse(file);
    json.at("prompt").get_to(golden.prompt);
    json.at("decode").get_to(golden.decode);
    json.at("prefill_logits").get_to(golden.prefill_logits);
    json.at("decode_logits").get_to(golden.decode_logits);
    return golden;
  }
  // Only one of the sequences.
  Golden Sequence(size_t b) const {
    Golden one = *this;
    one.prompt = {prompt[b]};
    one.decode = {decode[b]};
    one.prefill_logits = {prefill_logits[b]};
    one.decode_logits = {decode_logits[b]};
    return one;
  }
  // The prompt's tokens, or their last, then the steps'.
  Logits Expected(LogitsOf logits_of) const {
    Logits logits = prefill_logits;
    for (size_t b = 0; b < logits.size(); ++b) {
      if (logits_of == LogitsOf::kLast) logits[b] = {logits[b].back()};
      logits[b].insert(logits[b].end(), decode_logits[b].begin(),
                       decode_logits[b].end());
    }
    return logits;
  }
};

inline std::vector<double> ReadTensor(const Tensor& tensor, Device& device) {
  std::vector<std::byte> raw(tensor.bytes());
  EXPECT_TRUE(device.CopyToHost(raw.data(), tensor.data, raw.size()).ok());
  std::vector<double> values(tensor.size());
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = LoadElement(tensor.dtype, raw.data(), i);
  return values;
}

inline void Append(const Tensor& tensor, Device& device, Logits& logits) {
  const std::vector<double> values = ReadTensor(tensor, device);
  const int64_t tokens = tensor.dims[1], vocab = tensor.dims[2];
  logits.resize(tensor.dims[0]);
  for (int64_t b = 0; b < tensor.dims[0]; ++b)
    for (int64_t t = 0; t < tokens; ++t) {
      const auto* const from = &values[(b * tokens + t) * vocab];
      logits[b].emplace_back(from, from + vocab);
    }
}

inline absl::Status Call(const std::vector<ModelPart>& parts, Device& device) {
  absl::Status status = InOrder(parts)(device.stream());
  status.Update(device.Synchronize());
  return status;
}

inline ModelShape ShapeOf(const Sequences& run, DType dtype, int64_t chunk,
                          LogitsOf logits_of) {
  const int64_t all = run.length() + run.steps();
  return {.dtype = dtype,
          .batch = static_cast<int64_t>(run.prompt.size()),
          .prompt = run.length(),
          .capacity = all,
          .chunk = chunk,
          .logits = logits_of,
          .context = all - 1};
}

// Prompt and steps of a model made for them; `launch` runs the parts.
template <class LaunchParts>
absl::StatusOr<Logits> RunSequences(Model& model, const Sequences& run,
                                    Device& device, LaunchParts&& launch) {
  std::vector<int32_t> tokens;
  for (const auto& sequence : run.prompt)
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  absl::Status status = model.SetPrompt(tokens);
  if (status.ok()) status = launch(model.prompt_parts());
  if (!status.ok()) return status;
  Logits logits;
  Append(model.logits(), device, logits);
  for (int64_t i = 0; i < run.steps(); ++i) {
    const auto parts = model.PlanStep(run.length() + i);
    if (!parts.ok()) return parts.status();
    tokens.clear();
    for (const auto& sequence : run.decode) tokens.push_back(sequence[i]);
    status = model.SetStepTokens(tokens);
    if (status.ok()) status = launch(*parts);
    if (!status.ok()) return status;
    Append(model.step_logits(), device, logits);
  }
  return logits;
}

// What a model says: the prompt's tokens, or its last, then the steps'. `used`
// takes the names of the calls it is made of.
inline absl::StatusOr<Logits> RunModel(const Sequences& run, DType dtype,
                                       int64_t chunk, LogitsOf logits_of,
                                       Device& device,
                                       const ProviderChoice& providers = {},
                                       std::set<std::string>* used = nullptr) {
  auto model = Model::Make(run.config, ShapeOf(run, dtype, chunk, logits_of),
                           providers, run.checkpoint.get(), 1, device);
  if (!model.ok()) return model.status();
  if (used != nullptr)
    for (const auto* parts :
         {&(*model)->prompt_parts(), &(*model)->step_parts()})
      for (const ModelPart& part : *parts) used->insert(part.name);
  return RunSequences(**model, run, device,
                      [&](const auto& parts) { return Call(parts, device); });
}

// The largest |a - b| over the rms of b.
inline double Difference(const Logits& a, const Logits& b) {
  double squares = 0, worst = 0;
  int64_t count = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < b.size(); ++i) {
    EXPECT_EQ(a[i].size(), b[i].size());
    for (size_t t = 0; t < b[i].size(); ++t) {
      EXPECT_EQ(a[i][t].size(), b[i][t].size());
      for (size_t v = 0; v < b[i][t].size(); ++v) {
        squares += b[i][t][v] * b[i][t][v];
        ++count;
        const double difference = std::fabs(a[i][t][v] - b[i][t][v]);
        worst = difference <= worst ? worst : difference;  // NaN is worst
      }
    }
  }
  return worst / std::sqrt(squares / static_cast<double>(count));
}

// The rms of a - b over the rms of b.
inline double RmsDifference(const Logits& a, const Logits& b) {
  double squares = 0, errors = 0;
  for (size_t i = 0; i < b.size(); ++i)
    for (size_t t = 0; t < b[i].size(); ++t)
      for (size_t v = 0; v < b[i][t].size(); ++v) {
        const double difference = a[i][t][v] - b[i][t][v];
        squares += b[i][t][v] * b[i][t][v];
        errors += difference * difference;
      }
  return std::sqrt(errors / squares);
}

}  // namespace seqmark
