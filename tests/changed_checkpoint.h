// SPDX-License-Identifier: Apache-2.0
//
// A golden model's folder with another header: a checkpoint that is a valid
// file and not the config's.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace seqmark {

// `change` gets the header of model.safetensors, as JSON; data stays.
template <class Change>
void WriteChangedCheckpoint(const std::string& from, const std::string& to,
                            Change&& change) {
  namespace fs = std::filesystem;
  fs::create_directories(to);
  fs::copy_file(from + "/config.json", to + "/config.json");
  std::ifstream in(from + "/model.safetensors", std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(in), {}};
  uint64_t length = 0;  // little-endian, as the machines are that this runs on
  ASSERT_GT(file.size(), sizeof length);
  std::memcpy(&length, file.data(), sizeof length);
  auto header = nlohmann::json::parse(file.substr(sizeof length, length));
  change(header);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // which keeps data aligned
  const uint64_t changed = text.size();
  std::ofstream(to + "/model.safetensors", std::ios::binary)
          .write(reinterpret_cast<const char*>(&changed), sizeof changed)
      << text << file.substr(sizeof length + length);
}

// Ways to change one tensor and no other.
inline void Rename(nlohmann::json& header, const std::string& tensor) {
  header[tensor + "_renamed"] = header.at(tensor);
  header.erase(tensor);
}
inline void Transpose(nlohmann::json& header, const std::string& tensor) {
  auto& shape = header.at(tensor).at("shape");
  ASSERT_EQ(shape.size(), 2u);
  ASSERT_NE(shape[0], shape[1]);
  std::swap(shape[0], shape[1]);
}
inline void CallIntegers(nlohmann::json& header, const std::string& tensor) {
  ASSERT_EQ(header.at(tensor).at("dtype"), "F32");
  header.at(tensor).at("dtype") = "I32";
}

}  // namespace seqmark
