// SPDX-License-Identifier: Apache-2.0
//
// The zoo's configs for tests: as JSON to change, and parsed.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "models/config.h"
#include "models/weight_list.h"

namespace seqmark {

inline nlohmann::json Zoo(const std::string& name) {
  for (const auto& [model, text] : EmbeddedConfigs())
    if (model == name) return nlohmann::json::parse(text);
  ADD_FAILURE() << "no " << name;
  return nlohmann::json::object();
}

inline ModelConfig Parsed(const nlohmann::json& json,
                          absl::string_view name = "model") {
  auto config = ParseModelConfig(json.dump(), name);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *std::move(config) : ModelConfig();
}

inline ModelConfig ZooConfig(const std::string& name) {
  return Parsed(Zoo(name), name);
}

// By name; names are unique.
inline std::map<std::string, WeightSpec> WeightsByName(
    const ModelConfig& config) {
  std::map<std::string, WeightSpec> weights;
  for (WeightSpec& weight : WeightList(config, DType::kBF16))
    EXPECT_TRUE(weights.emplace(weight.name, weight).second) << weight.name;
  return weights;
}

}  // namespace seqmark
