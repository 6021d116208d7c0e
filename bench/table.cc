// SPDX-License-Identifier: Apache-2.0
#include "bench/table.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace seqmark {
namespace {

constexpr int kNameWidth = 84;

// A row's value of the type it should have, or none: what a worker says may be
// cut short.
std::string Text(const nlohmann::ordered_json& row, const char* key) {
  const auto it = row.find(key);
  return it != row.end() && it->is_string() ? it->get<std::string>() : "";
}
std::optional<double> Number(const nlohmann::ordered_json& row,
                             const char* key) {
  const auto it = row.find(key);
  if (it == row.end() || !it->is_number()) return std::nullopt;
  return it->get<double>();
}

std::string ShortName(const nlohmann::ordered_json& row) {
  std::string text = Text(row, "name");
  const std::string suffix = "/iterations:1/manual_time";
  if (const size_t at = text.find(suffix); at != text.npos)
    text.erase(at, suffix.size());
  return text;
}

double NanosecondsPer(const std::string& unit) {
  if (unit == "us") return 1e3;
  if (unit == "ms") return 1e6;
  if (unit == "s") return 1e9;
  return 1;
}

std::string Colour(const std::string& text, const char* code, bool colour) {
  return colour ? absl::StrCat("\x1b[", code, "m", text, "\x1b[0m") : text;
}

// The counter in SI form with its unit, or a dash.
std::string Cell(const nlohmann::ordered_json& row, const char* counter,
                 const char* unit) {
  const auto value = Number(row, counter);
  return value ? absl::StrCat(Si(*value), unit) : "-";
}

}  // namespace

std::string Si(double value) {
  if (value == 0) return "0 ";
  constexpr std::pair<double, const char*> kPrefixes[] = {
      {1e15, "P"}, {1e12, "T"}, {1e9, "G"},  {1e6, "M"},  {1e3, "k"},
      {1, ""},     {1e-3, "m"}, {1e-6, "u"}, {1e-9, "n"}, {1e-12, "p"}};
  const double magnitude = std::fabs(value);
  for (const auto& [scale, prefix] : kPrefixes) {
    // 999.6 prints as 1.00k, not as 1000.
    if (magnitude < scale * 0.9995) continue;
    const double scaled = value / scale;
    const int decimals = std::fabs(scaled) < 9.995   ? 2
                         : std::fabs(scaled) < 99.95 ? 1
                                                     : 0;
    return absl::StrFormat("%.*f %s", decimals, scaled, prefix);
  }
  return absl::StrFormat("%.2g ", value);
}

std::string TableHeader() {
  return absl::StrFormat("%-*s %11s %7s %11s %12s %6s %10s\n", kNameWidth,
                         "row", "time", "noise", "bytes/s", "flop/s", "sol",
                         "memory");
}

std::string TableLine(const nlohmann::ordered_json& row, bool colour) {
  const std::string name = absl::StrFormat("%-*s", kNameWidth, ShortName(row));
  if (row.contains("error_occurred"))
    return absl::StrCat(name, " ", Colour("ERROR", "31;1", colour), " ",
                        Text(row, "error_message"), "\n");
  if (row.contains("skipped"))
    return absl::StrCat(name, " ", Colour("skipped", "33", colour), " ",
                        Text(row, "skip_message"), "\n");
  if (Text(row, "aggregate_unit") == "percentage")
    return absl::StrFormat("%s %10.2f%%\n", name,
                           100 * Number(row, "real_time").value_or(0));
  const double seconds = Number(row, "real_time").value_or(0) * 1e-9 *
                         NanosecondsPer(Text(row, "time_unit"));
  const auto noise = Number(row, "noise"), sol = Number(row, "sol");
  const std::string label = Text(row, "label");
  return absl::StrFormat("%s %11s %7s %11s %12s %6s %10s%s\n", name,
                         absl::StrCat(Si(seconds), "s"),
                         noise ? absl::StrFormat("%.2f%%", 100 * *noise) : "-",
                         Cell(row, "bytes_per_second", "B/s"),
                         Cell(row, "flops_per_second", "FLOP/s"),
                         sol ? absl::StrFormat("%.3f", *sol) : "-",
                         Cell(row, "peak_memory", "B"),
                         label.empty() ? "" : "  " + label);
}

}  // namespace seqmark
