// SPDX-License-Identifier: Apache-2.0
#include "bench/result_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace seqmark {
namespace {

absl::Status FileError(absl::string_view path) {
  return absl::UnavailableError(absl::StrCat("--benchmark_out: cannot write ",
                                             path, ": ", std::strerror(errno)));
}

absl::Status WriteAll(const std::string& path, const std::string& text) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(path);
  bool ok = true;
  for (size_t at = 0; ok && at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    ok = n > 0;
    if (ok) at += static_cast<size_t>(n);
  }
  ok = ok && fsync(fd) == 0;
  absl::Status status = ok ? absl::OkStatus() : FileError(path);
  close(fd);
  return status;
}

}  // namespace

absl::Status ResultFile::CheckWritable() const {
  if (flags_.out.empty()) return absl::OkStatus();
  const std::string probe = absl::StrCat(flags_.out, ".tmp");
  absl::Status status = WriteAll(probe, "");
  unlink(probe.c_str());
  return status;
}

void ResultFile::SetContext(const Json& context) {
  if (context_.empty()) context_ = context;
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

std::string ResultFile::ToText() const {
  return absl::StrCat(Json{{"context", context_}, {"benchmarks", rows_}}.dump(
                          2, ' ', false, Json::error_handler_t::replace),
                      "\n");
}

absl::Status ResultFile::Write() const {
  if (flags_.out.empty()) return absl::OkStatus();
  const std::string temporary = absl::StrCat(flags_.out, ".tmp");
  if (absl::Status s =
          WriteAll(temporary, flags_.out_format == "json" ? ToText() : text_);
      !s.ok()) {
    unlink(temporary.c_str());
    return s;
  }
  if (std::rename(temporary.c_str(), flags_.out.c_str()) != 0)
    return FileError(flags_.out);
  return absl::OkStatus();
}

}  // namespace seqmark
