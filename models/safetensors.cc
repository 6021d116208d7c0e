// SPDX-License-Identifier: Apache-2.0
//
// The JSON is read by events: no tree is built, so that memory is bounded by
// the header's length and not by its nesting, and a name that comes twice is
// seen, which a tree would hide.
#include "models/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace seqmark {
namespace {

using Json = nlohmann::json;

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

// Bits of one element; 0 for a type that the format does not have.
int BitsOf(absl::string_view dtype) {
  static constexpr std::pair<absl::string_view, int> kBits[] = {
      {"F32", 32},    {"BF16", 16},   {"F16", 16},    {"F64", 64},
      {"I64", 64},    {"I32", 32},    {"I16", 16},    {"I8", 8},
      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},
      {"BOOL", 8},    {"C64", 64},    {"F8_E5M2", 8}, {"F8_E4M3", 8},
      {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
  };
  for (const auto& [name, bits] : kBits)
    if (name == dtype) return bits;
  return 0;
}

std::optional<DType> DTypeOf(absl::string_view name) {
  if (name == "BF16") return DType::kBF16;
  if (name == "F16") return DType::kF16;
  if (name == "F32") return DType::kF32;
  if (name == "F64") return DType::kF64;
  return std::nullopt;
}

// Events of a JSON text, all refused; a reader allows the ones it expects.
// `status` says why parsing stopped.
class Events : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the number ", value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Unexpected(absl::StrCat("the number ", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", Quoted(text)));
  }
  bool string(string_t& value) override {
    return Unexpected(absl::StrCat("the string ", Quoted(value)));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool start_object(size_t) override { return Unexpected("an object"); }
  bool end_object() override { return Unexpected("'}'"); }
  bool start_array(size_t) override { return Unexpected("an array"); }
  bool end_array() override { return Unexpected("']'"); }
  bool parse_error(size_t at, const std::string&,
                   const Json::exception&) override {
    return Stop(absl::StrCat("not valid JSON at its byte ", at));
  }

  // Runs over `text`.
  absl::Status Read(absl::string_view text) {
    const char* const begin = text.data();
    if (Json::sax_parse(begin, begin + text.size(), this)) return status_;
    return status_.ok() ? Invalid("not valid JSON") : status_;
  }

 protected:
  bool Stop(absl::string_view why) {
    if (status_.ok()) status_ = Invalid(why);
    return false;
  }
  // What the reader is at: "tensor \"a\": \"shape\"".
  virtual std::string Where() const = 0;

 private:
  bool Unexpected(absl::string_view what) {
    return Stop(absl::StrCat(Where(), ": unexpected ", what));
  }

  absl::Status status_;
};

struct RawTensor {
  HeaderTensor tensor;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
};

class HeaderEvents final : public Events {
 public:
  std::vector<RawTensor> tensors;

  bool start_object(size_t size) override {
    if (depth_ == 2) return Events::start_object(size);
    if (depth_ == 1 && !in_metadata_)
      tensors.emplace_back().tensor.name = name_;
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (--depth_ != 1) return true;
    if (!in_metadata_)
      for (const char* field : {"dtype", "shape", "data_offsets"})
        if (!fields_.contains(field))
          return Stop(absl::StrCat(Where(), ": no \"", field, "\""));
    fields_.clear();
    field_.clear();
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      name_ = key;
      in_metadata_ = key == "__metadata__";
      if (!names_.insert(std::move(key)).second)
        return Stop(absl::StrCat(Where(), ": comes twice"));
      return true;
    }
    field_ = key;
    if (!fields_.insert(std::move(key)).second)
      return Stop(absl::StrCat(Where(), ": comes twice"));
    if (!in_metadata_ && field_ != "dtype" && field_ != "shape" &&
        field_ != "data_offsets")
      return Stop(absl::StrCat(Where(), ": not a field of the format"));
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) return true;
    if (depth_ != 2 || field_ != "dtype" || list_) return Events::string(value);
    tensors.back().tensor.dtype_name = std::move(value);
    return true;
  }
  bool start_array(size_t size) override {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype" || list_)
      return Events::start_array(size);
    list_ = field_ == "shape" ? &tensors.back().shape : &tensors.back().offsets;
    return true;
  }
  bool end_array() override {
    list_ = nullptr;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!list_) return Events::number_unsigned(value);
    if (list_->size() == kMaxRank)
      return Stop(absl::StrCat(Where(), ": more than ", kMaxRank, " numbers"));
    list_->push_back(value);
    return true;
  }

 private:
  std::string Where() const override {
    if (depth_ == 0 || name_.empty()) return "the header";
    return absl::StrCat(in_metadata_ ? "" : "tensor ", Quoted(name_),
                        field_.empty() ? "" : ": ",
                        field_.empty() ? "" : Quoted(field_));
  }

  int depth_ = 0;  // 1: names of tensors; 2: fields of one
  bool in_metadata_ = false;
  std::string name_;
  std::string field_;
  std::set<std::string> names_;
  std::set<std::string> fields_;
  std::vector<uint64_t>* list_ = nullptr;  // that numbers go to
};

// Everything but weight_map is passed over, at any depth.
class IndexEvents final : public Events {
 public:
  ParsedIndex files;
  bool has_map = false;

  bool null() override { return Skip() || Events::null(); }
  bool boolean(bool value) override { return Skip() || Events::boolean(value); }
  bool number_integer(number_integer_t value) override {
    return Skip() || Events::number_integer(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Skip() || Events::number_unsigned(value);
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return Skip() || Events::number_float(value, text);
  }
  bool start_array(size_t size) override {
    if (!Skip()) return Events::start_array(size);
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool start_object(size_t size) override {
    if (depth_ >= 1 && !Skip() && !(depth_ == 1 && in_map_))
      return Events::start_object(size);
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      in_map_ = key == "weight_map";
      if (in_map_ && std::exchange(has_map, true))
        return Stop("\"weight_map\" comes twice");
    } else if (in_map_) {
      name_ = std::move(key);
      if (files.contains(name_))
        return Stop(absl::StrCat(Where(), ": comes twice"));
    }
    return true;
  }
  bool string(string_t& value) override {
    if (Skip()) return true;
    if (depth_ != 2) return Events::string(value);
    // A file beside the index and nowhere else.
    if (value.empty() || value == "." || value == ".." ||
        value.find_first_of("/\\\0", 0, 3) != value.npos)
      return Stop(absl::StrCat(Where(), ": in ", Quoted(value),
                               ", which is not the name of a file beside the "
                               "index"));
    files.emplace(std::move(name_), std::move(value));
    return true;
  }

 private:
  bool Skip() const { return depth_ >= 1 && !in_map_; }
  std::string Where() const override {
    if (!in_map_ || depth_ < 2) return in_map_ ? "\"weight_map\"" : "the index";
    return absl::StrCat("tensor ", Quoted(name_));
  }

  size_t depth_ = 0;  // 1: top-level keys; 2 in the map: names of tensors
  bool in_map_ = false;
  std::string name_;
};

// Checks one tensor by itself: `data` is where the data starts, `size` the
// file's length.
absl::Status Finish(RawTensor& raw, size_t data, size_t size) {
  HeaderTensor& t = raw.tensor;
  const std::string who = absl::StrCat("tensor ", Quoted(t.name), ": ");
  const uint64_t bits = BitsOf(t.dtype_name);
  if (bits == 0)
    return Invalid(absl::StrCat(who, "its dtype ", Quoted(t.dtype_name),
                                " is not one of the format's"));
  t.dtype = DTypeOf(t.dtype_name);
  if (raw.offsets.size() != 2)
    return Invalid(absl::StrCat(
        who, "\"data_offsets\" must be two numbers, not ", raw.offsets.size()));
  const auto [begin, end] = std::pair(raw.offsets[0], raw.offsets[1]);
  if (begin > end)
    return Invalid(absl::StrCat(who, "its bytes end at ", end,
                                ", before they begin at ", begin));
  if (end > size - data)
    return Invalid(absl::StrCat(
        who, "its bytes end at ", end, " of the data, but the file has only ",
        size - data, ": truncated, or not this header's"));
  uint64_t want = bits;
  bool overflow = false;
  for (uint64_t dim : raw.shape) {
    overflow |= dim > INT64_MAX || __builtin_mul_overflow(want, dim, &want);
    t.dims.push_back(static_cast<int64_t>(dim));
  }
  if (overflow || want % 8 != 0 || want / 8 != end - begin)
    return Invalid(absl::StrCat(who, t.dtype_name, " of shape [",
                                absl::StrJoin(raw.shape, ", "), "] is ",
                                overflow ? "more bytes than can be counted"
                                         : absl::StrCat(want / 8, " bytes"),
                                ", but its offsets hold ", end - begin));
  t.begin = data + begin;
  t.end = data + end;
  if (const size_t align = std::max<size_t>(bits / 8, 1); t.begin % align != 0)
    return Invalid(absl::StrCat(who, "starts at byte ", t.begin,
                                " of the file, not a multiple of the ", align,
                                " bytes of its ", t.dtype_name));
  return absl::OkStatus();
}

}  // namespace

std::string Quoted(absl::string_view name) {
  constexpr size_t kShown = 120;
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, kShown)),
                      name.size() > kShown ? "...\"" : "\"");
}

absl::StatusOr<ParsedHeader> ParseSafetensorsHeader(
    absl::Span<const std::byte> file) {
  uint64_t length = 0;
  if (file.size() < sizeof(length))
    return Invalid(absl::StrCat("not a safetensors file: ", file.size(),
                                " bytes, fewer than the 8 of its length"));
  for (size_t i = sizeof(length); i-- > 0;)
    length = length << 8 | std::to_integer<uint64_t>(file[i]);
  if (length > kMaxHeaderBytes)
    return Invalid(absl::StrCat("a header of ", length,
                                " bytes; the format allows ", kMaxHeaderBytes));
  if (length > file.size() - sizeof(length))
    return Invalid(absl::StrCat("truncated: a header of ", length,
                                " bytes in a file of ", file.size()));
  const absl::string_view text(
      reinterpret_cast<const char*>(file.data()) + sizeof(length), length);
  if (text.empty() || text.front() != '{')
    return Invalid("its header does not start with '{'");
  HeaderEvents events;
  if (absl::Status s = events.Read(text); !s.ok()) return s;

  const size_t data = sizeof(length) + length;
  ParsedHeader header;
  for (RawTensor& raw : events.tensors) {
    if (absl::Status s = Finish(raw, data, file.size()); !s.ok()) return s;
    header.push_back(std::move(raw.tensor));
  }
  std::sort(header.begin(), header.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  size_t covered = data;
  for (const HeaderTensor& t : header) {
    if (t.begin != covered)
      return Invalid(absl::StrCat(
          "tensor ", Quoted(t.name), ": starts at byte ", t.begin,
          t.begin < covered ? ", inside the tensor before it, which ends at "
                            : ", with bytes of no tensor before it from ",
          covered));
    covered = t.end;
  }
  if (covered != file.size())
    return Invalid(absl::StrCat("the last ", file.size() - covered,
                                " bytes belong to no tensor"));
  return header;
}

absl::StatusOr<ParsedIndex> ParseSafetensorsIndex(absl::string_view text) {
  if (text.size() > kMaxHeaderBytes)
    return Invalid(absl::StrCat("an index of ", text.size(), " bytes; at most ",
                                kMaxHeaderBytes, " are read"));
  IndexEvents events;
  if (absl::Status s = events.Read(text); !s.ok()) return s;
  if (!events.has_map) return Invalid("no \"weight_map\"");
  return std::move(events.files);
}

}  // namespace seqmark
