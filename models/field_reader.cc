// SPDX-License-Identifier: Apache-2.0
#include "models/field_reader.h"

#include <cmath>

#include "absl/strings/match.h"

namespace seqmark {
namespace {

using Json = nlohmann::json;

const Json kEmptyObject = Json::object();

std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

// A whole number as one: 1048576 rather than 1.04858e+06.
std::string Shown(double limit) {
  return std::fabs(limit) < 0x1p53 && limit == std::floor(limit)
             ? absl::StrCat(static_cast<int64_t>(limit))
             : absl::StrCat(limit);
}

std::string Shown(Range range) {
  return absl::StrCat("from ", Shown(range.min), " to ", Shown(range.max));
}

bool InRange(double value, Range range) {
  return value >= range.min && value <= range.max;  // false for NaN
}

std::optional<int64_t> AsInt(const Json& value, Range range) {
  if (!value.is_number_integer()) return std::nullopt;
  if (!InRange(value.get<double>(), range)) return std::nullopt;
  return value.get<int64_t>();
}

// Transformers 5 writes infinity as {"__float__": "Infinity"}.
std::optional<double> AsNumber(const Json& value, Range range) {
  double number;
  if (value.is_number()) {
    number = value.get<double>();
  } else if (value == "Infinity" ||
             (value.is_object() &&
              value.value("__float__", Json()) == "Infinity")) {
    number = std::numeric_limits<double>::infinity();
  } else {
    return std::nullopt;
  }
  if (!InRange(number, range)) return std::nullopt;
  return number;
}

}  // namespace

const Json* FieldReader::Find(absl::string_view key) const {
  const auto found = object_.find(std::string(key));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void FieldReader::Wrong(absl::string_view key, absl::string_view expected) {
  const Json* value = Find(key);
  Fail(Field(key), value ? absl::StrCat(" is ", Shown(*value)) : " is missing",
       ", must be ", expected);
}

int64_t FieldReader::Int(absl::string_view key, Range range,
                         std::optional<int64_t> otherwise) {
  const Json* value = Find(key);
  if (!value && otherwise) return *otherwise;
  if (value)
    if (const auto number = AsInt(*value, range)) return *number;
  Wrong(key, absl::StrCat("an integer ", Shown(range)));
  return static_cast<int64_t>(range.min);
}

double FieldReader::Number(absl::string_view key, Range range,
                           std::optional<double> otherwise) {
  const Json* value = Find(key);
  if (!value && otherwise) return *otherwise;
  if (value)
    if (const auto number = AsNumber(*value, range)) return *number;
  Wrong(key, absl::StrCat("a number ", Shown(range)));
  return range.min;
}

bool FieldReader::Bool(absl::string_view key, bool otherwise) {
  const Json* value = Find(key);
  if (!value) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Wrong(key, "true or false");
  return otherwise;
}

std::string FieldReader::String(absl::string_view key,
                                std::optional<std::string> otherwise) {
  const Json* value = Find(key);
  if (!value && otherwise) return *otherwise;
  if (value && value->is_string()) return value->get<std::string>();
  Wrong(key, "a string");
  return "";
}

std::vector<double> FieldReader::Numbers(absl::string_view key, size_t count,
                                         Range range,
                                         std::vector<double> otherwise) {
  const Json* value = Find(key);
  if (!value) return otherwise;
  std::vector<double> numbers;
  if (value->is_array() && value->size() == count) {
    for (const Json& element : *value)
      if (const auto number = AsNumber(element, range))
        numbers.push_back(*number);
  }
  if (numbers.size() == count) return numbers;
  Wrong(key, absl::StrCat("a list of ", count, " numbers ", Shown(range)));
  return otherwise;
}

std::vector<int64_t> FieldReader::Ints(absl::string_view key, size_t max_count,
                                       Range range) {
  const Json* value = Find(key);
  if (!value) return {};
  std::vector<int64_t> numbers;
  if (value->is_array() && value->size() <= max_count) {
    for (const Json& element : *value)
      if (const auto number = AsInt(element, range)) numbers.push_back(*number);
    if (numbers.size() == value->size()) return numbers;
  }
  Wrong(key, absl::StrCat("a list of at most ", max_count, " integers ",
                          Shown(range)));
  return {};
}

std::vector<std::string> FieldReader::Strings(absl::string_view key,
                                              size_t max_count) {
  const Json* value = Find(key);
  if (!value) return {};
  std::vector<std::string> strings;
  if (value->is_array() && value->size() <= max_count) {
    for (const Json& element : *value)
      if (element.is_string()) strings.push_back(element.get<std::string>());
    if (strings.size() == value->size()) return strings;
  }
  Wrong(key, absl::StrCat("a list of at most ", max_count, " strings"));
  return {};
}

FieldReader FieldReader::Object(absl::string_view key) {
  const Json* value = Find(key);
  if (value && !value->is_object()) {
    Wrong(key, "an object");
    value = nullptr;
  }
  return FieldReader(value ? *value : kEmptyObject,
                     absl::StrCat(prefix_, key, "."), status_);
}

Json ParseJson(absl::string_view text) {
  constexpr absl::string_view kInfinity = "Infinity";
  std::string json;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!in_string && absl::StartsWith(text.substr(i), kInfinity)) {
      absl::StrAppend(&json, "\"", kInfinity, "\"");
      i += kInfinity.size() - 1;
      continue;
    }
    json += text[i];
    if (in_string && text[i] == '\\' && i + 1 < text.size())
      json += text[++i];
    else if (text[i] == '"')
      in_string = !in_string;
  }
  return Json::parse(json, nullptr, /*allow_exceptions=*/false);
}

}  // namespace seqmark
