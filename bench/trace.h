// SPDX-License-Identifier: Apache-2.0
//
// --trace: the launches of each row in order, as a file of Chrome's trace
// event format, which ui.perfetto.dev opens. A process of the trace is a
// device, a track a row; every track starts at 0, so that rows can be laid
// beside each other. A row is one slice, and inside it each of its launches.
//
// Format: "Trace Event Format", Google, 2016: complete events ("X") with
// times in microseconds, and metadata events ("M") that name tracks.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "bench/row_runner.h"
#include "fixtures/row.h"
#include "nlohmann/json.hpp"

namespace seqmark {

using Json = nlohmann::ordered_json;

// What a worker says of a row that it measured:
//   {"event": "trace", "row": "...", "device": "cpu", "slices": [...]}
Json TraceEvent(const RowName& name, const RowResult& result);

// The rows of all workers, one file.
class TraceFile {
 public:
  // Without a path nothing is kept or written.
  explicit TraceFile(std::string path) : path_(std::move(path)) {}

  absl::Status CheckWritable() const;
  // Takes a worker's event; of a row measured again, the later one.
  void Add(const Json& event);
  std::string ToText() const;
  absl::Status Write() const;

 private:
  std::string path_;
  std::map<std::string, Json> rows_;  // by name
};

}  // namespace seqmark
