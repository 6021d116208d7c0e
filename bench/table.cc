// SPDX-License-Identifier: Apache-2.0
#include "bench/table.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace seqmark {
namespace {

constexpr int kNameWidth = 84;

std::string ShortName(const nlohmann::ordered_json& row) {
  const std::string name = row.value("name", "");
  std::string text = name;
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
  const auto it = row.find(counter);
  if (it == row.end() || !it->is_number()) return "-";
  return absl::StrCat(Si(it->get<double>()), unit);
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
  if (row.value("error_occurred", false))
    return absl::StrCat(name, " ", Colour("ERROR", "31;1", colour), " ",
                        row.value("error_message", ""), "\n");
  if (row.value("skipped", false))
    return absl::StrCat(name, " ", Colour("skipped", "33", colour), " ",
                        row.value("skip_message", ""), "\n");
  if (row.value("aggregate_unit", "") == "percentage")
    return absl::StrFormat("%s %10.2f%%\n", name,
                           100 * row.value("real_time", 0.0));
  const double seconds = row.value("real_time", 0.0) * 1e-9 *
                         NanosecondsPer(row.value("time_unit", "ns"));
  const auto percent = [&](const char* counter) {
    const auto it = row.find(counter);
    return it == row.end() ? std::string("-")
                           : absl::StrFormat("%.2f%%", 100 * it->get<double>());
  };
  const auto sol = row.find("sol");
  return absl::StrFormat(
      "%s %11s %7s %11s %12s %6s %10s\n", name, absl::StrCat(Si(seconds), "s"),
      percent("noise"), Cell(row, "bytes_per_second", "B/s"),
      Cell(row, "flops_per_second", "FLOP/s"),
      sol == row.end() ? "-" : absl::StrFormat("%.3f", sol->get<double>()),
      Cell(row, "peak_memory", "B"));
}

}  // namespace seqmark
