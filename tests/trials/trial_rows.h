// SPDX-License-Identifier: Apache-2.0
//
// The rows that a trial's program is to run: names on standard input, one a
// line, as seqmark_bench lists them.
#pragma once

#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "fixtures/row.h"

namespace seqmark {

// NotFound for a name that is no row, and where there is none at all.
inline absl::StatusOr<std::vector<std::unique_ptr<Row>>> ReadRows(
    std::istream& in) {
  std::vector<std::string> names;
  for (std::string line; std::getline(in, line);) {
    // As the library decorates them: .../iterations:1/manual_time.
    line = line.substr(0, line.find("/iterations:"));
    if (!line.empty()) names.push_back(line);
  }
  if (names.empty())
    return absl::NotFoundError("no row on standard input: nothing to run");
  std::map<std::string, std::unique_ptr<Row>> known;
  for (auto& row : MakeRows(RowSet::kSweep, {})) {
    std::string name = row->name().ToString();
    known.emplace(std::move(name), std::move(row));
  }
  std::vector<std::unique_ptr<Row>> rows;
  for (const std::string& name : names) {
    const auto row = known.find(name);
    if (row == known.end() || row->second == nullptr)
      return absl::NotFoundError(absl::StrCat(name, ": no such row"));
    rows.push_back(std::move(row->second));
  }
  return rows;
}

// The names of rows, a kernel of known length before each: what samples hold
// besides kernels is looked at all along a run. Its names are nobody else's.
inline std::vector<std::string> WithKnownKernels(
    const std::vector<std::string>& rows) {
  std::vector<std::string> all;
  for (size_t i = 0; i < rows.size(); ++i) {
    all.push_back(absl::StrCat("known_kernel:", i + 1));
    all.push_back(rows[i]);
  }
  return all;
}

}  // namespace seqmark
