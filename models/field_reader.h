// SPDX-License-Identifier: Apache-2.0
//
// Typed, checked reading of one JSON object of a model's config. The first
// thing wrong is kept as an InvalidArgumentError that says which field, what
// it is and what would be right; readers then return the least value allowed,
// so code reads on and looks at the status once.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace seqmark {

struct Range {
  double min;
  double max;
};

// Wide enough for any model and narrow enough that the product of two sizes,
// and the sum of all products, fit an int64_t.
inline constexpr Range kWidth = {1, 1 << 20};  // a hidden or inner width
inline constexpr Range kVocab = {1, 1 << 24};
inline constexpr Range kLayers = {1, 1 << 12};
inline constexpr Range kHeads = {1, 1 << 14};
inline constexpr Range kSmall = {1, 1 << 14};  // head_dim, d_state, rank
inline constexpr Range kPositions = {1, 1 << 30};
inline constexpr Range kEpsilon = {0, 1};
inline constexpr Range kFactor = {-1e6, 1e6};  // of a multiplier
inline constexpr Range kPositive = {1e-12, 1e30};

class FieldReader {
 public:
  // Fields are named `prefix` + key in messages. All must outlive the reader.
  FieldReader(const nlohmann::json& object, std::string prefix,
              absl::Status& status)
      : object_(object), prefix_(std::move(prefix)), status_(status) {}

  // Present and not null.
  bool Has(absl::string_view key) const { return Find(key) != nullptr; }

  // A field that must be there, or may be.
  int64_t Int(absl::string_view key, Range range,
              std::optional<int64_t> otherwise = std::nullopt);
  double Number(absl::string_view key, Range range,
                std::optional<double> otherwise = std::nullopt);
  bool Bool(absl::string_view key, bool otherwise);
  std::string String(absl::string_view key,
                     std::optional<std::string> otherwise = std::nullopt);
  // `count` numbers, or where it is absent `otherwise`.
  std::vector<double> Numbers(absl::string_view key, size_t count, Range range,
                              std::vector<double> otherwise);
  // Of any length up to `max_count`; empty where absent.
  std::vector<int64_t> Ints(absl::string_view key, size_t max_count,
                            Range range);
  std::vector<std::string> Strings(absl::string_view key, size_t max_count);

  // A reader of the object under `key`; of an empty one where absent.
  FieldReader Object(absl::string_view key);
  // The value, null where absent.
  const nlohmann::json* Find(absl::string_view key) const;

  template <class... Parts>
  void Fail(const Parts&... parts) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat(parts...));
  }
  bool ok() const { return status_.ok(); }
  // The field is `what it is`, must be `expected`.
  void Wrong(absl::string_view key, absl::string_view expected);
  std::string Field(absl::string_view key) const {
    return absl::StrCat("field ", prefix_, key);
  }

 private:
  const nlohmann::json& object_;
  std::string prefix_;
  absl::Status& status_;
};

// The text as JSON. Python writes the bare word Infinity, which is not JSON;
// it is read as the string "Infinity", which Number() takes for infinity.
nlohmann::json ParseJson(absl::string_view text);

}  // namespace seqmark
