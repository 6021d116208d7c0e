// SPDX-License-Identifier: Apache-2.0
#include "bench/csv.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace seqmark {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kColumns[] = {
    "name",           "iterations",       "real_time",        "cpu_time",
    "time_unit",      "bytes_per_second", "items_per_second", "label",
    "error_occurred", "error_message"};

// Numbers in a row of the JSON that are not counters.
constexpr const char* kNotCounters[] = {
    "family_index", "per_family_instance_index", "repetitions",
    "repetition_index", "threads"};

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

std::string Cell(const Json& row, const std::string& key) {
  const auto it = row.find(key);
  if (it == row.end()) return "";
  return it->is_string() ? Quoted(it->get<std::string>()) : it->dump();
}

std::string Line(const Json& row, const std::set<std::string>& counters) {
  const bool measured =
      !row.contains("error_occurred") && !row.contains("skipped");
  std::vector<std::string> cells;
  for (const std::string column : kColumns) {
    if (column == "name" || measured || column.rfind("error", 0) == 0)
      cells.push_back(Cell(row, column));
    else
      cells.emplace_back();
  }
  const auto unit = row.find("time_unit");
  if (measured && unit != row.end() && unit->is_string())
    cells[4] = row.value("aggregate_unit", "") == "percentage"
                   ? ""
                   : unit->get<std::string>();
  if (row.contains("skipped")) {
    cells[8] = "false";
    cells[9] = Cell(row, "skip_message");
  }
  for (const std::string& counter : counters)
    cells.push_back(measured ? Cell(row, counter) : "");
  return absl::StrCat(absl::StrJoin(cells, ","), "\n");
}

}  // namespace

std::string ToCsv(const Json& rows) {
  std::set<std::string> counters;
  for (const Json& row : rows)
    for (const auto& [key, value] : row.items())
      if (value.is_number()) counters.insert(key);
  for (const char* key : kColumns) counters.erase(key);
  for (const char* key : kNotCounters) counters.erase(key);
  std::string text = absl::StrJoin(kColumns, ",");
  for (const std::string& counter : counters)
    absl::StrAppend(&text, ",", Quoted(counter));
  text += '\n';
  for (const Json& row : rows) text += Line(row, counters);
  return text;
}

}  // namespace seqmark
