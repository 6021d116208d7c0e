// SPDX-License-Identifier: Apache-2.0
#include "bench/result_file.h"

#include "absl/strings/str_cat.h"
#include "bench/atomic_file.h"
#include "bench/csv.h"

namespace seqmark {
namespace {

constexpr absl::string_view kFlag = "benchmark_out";

}  // namespace

absl::Status ResultFile::CheckWritable() const {
  if (flags_.out.empty()) return absl::OkStatus();
  return seqmark::CheckWritable(kFlag, flags_.out);
}

void ResultFile::SetContext(const Json& context) {
  if (context_.empty()) context_ = context;
}

void ResultFile::AddContext(const Json& facts) {
  if (context_.empty()) context_ = first_context_;
  context_.update(facts);
}

void ResultFile::AddRows(const Json& rows) {
  for (const Json& row : rows) rows_.push_back(row);
}

void ResultFile::AddLostRow(const std::string& name, const std::string& why) {
  const std::string full = absl::StrCat(name, "/iterations:1/manual_time");
  rows_.push_back({{"name", full},
                   {"run_name", full},
                   {"run_type", "iteration"},
                   {"repetitions", 1},
                   {"repetition_index", 0},
                   {"threads", 1},
                   {"error_occurred", true},
                   {"error_message", why},
                   {"iterations", 0},
                   {"real_time", 0.0},
                   {"cpu_time", 0.0},
                   {"time_unit", "ns"}});
}

std::string ResultFile::ToText(absl::string_view format) const {
  if (format == "csv") return ToCsv(rows_);
  if (format == "console") return text_;
  const Json& context = context_.empty() ? first_context_ : context_;
  return absl::StrCat(Json{{"context", context}, {"benchmarks", rows_}}.dump(
                          2, ' ', false, Json::error_handler_t::replace),
                      "\n");
}

absl::Status ResultFile::Write() const {
  if (flags_.out.empty()) return absl::OkStatus();
  return WriteAtomically(kFlag, flags_.out, ToText(flags_.out_format));
}

}  // namespace seqmark
