// SPDX-License-Identifier: Apache-2.0
//
// The result document as it grows, and its file. The file is whole at any
// moment: it is written beside itself and renamed.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "bench/options.h"
#include "nlohmann/json.hpp"

namespace seqmark {

using Json = nlohmann::ordered_json;

class ResultFile {
 public:
  explicit ResultFile(const BenchmarkFlags& flags) : flags_(flags) {}

  // Proves, before any work, that the file can be written.
  absl::Status CheckWritable() const;

  void SetContext(const Json& context);
  // What stands there as long as no worker has said more.
  void SetFirstContext(const Json& context) { first_context_ = context; }
  // Facts that are only known later.
  void AddContext(const Json& facts);
  bool empty() const { return rows_.empty() && text_.empty(); }
  size_t rows() const { return rows_.size(); }
  void AddRows(const Json& rows);
  // What Google Benchmark's console reporter printed, kept as it is.
  void AddText(const std::string& text) { text_ += text; }
  // A row that never reported: killed, aborted, timed out.
  void AddLostRow(const std::string& name, const std::string& why);

  // "json": {"context": ..., "benchmarks": [...]}, as Google Benchmark writes
  // it; "csv"; or "console".
  std::string ToText(absl::string_view format = "json") const;
  absl::Status Write() const;

 private:
  BenchmarkFlags flags_;
  Json context_ = Json::object();
  Json first_context_ = Json::object();
  Json rows_ = Json::array();
  std::string text_;
};

}  // namespace seqmark
