// SPDX-License-Identifier: Apache-2.0
#include "bench/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace seqmark {
namespace {

absl::Status FileError(absl::string_view flag, const std::string& path) {
  return absl::UnavailableError(absl::StrCat("--", flag, ": cannot write ",
                                             path, ": ", std::strerror(errno)));
}

// Each process its own: of two runs that write one file the last has it, whole.
std::string TemporaryFor(const std::string& path) {
  return absl::StrCat(path, ".", getpid(), ".tmp");
}

absl::Status WriteAll(absl::string_view flag, const std::string& path,
                      const std::string& text) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(flag, path);
  bool ok = true;
  for (size_t at = 0; ok && at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    ok = n > 0;
    if (ok) at += static_cast<size_t>(n);
  }
  ok = ok && fsync(fd) == 0;
  const absl::Status status = ok ? absl::OkStatus() : FileError(flag, path);
  close(fd);
  return status;
}

}  // namespace

absl::Status CheckWritable(absl::string_view flag, const std::string& path) {
  const std::string probe = TemporaryFor(path);
  const absl::Status status = WriteAll(flag, probe, "");
  unlink(probe.c_str());
  return status;
}

absl::Status WriteAtomically(absl::string_view flag, const std::string& path,
                             const std::string& text) {
  const std::string temporary = TemporaryFor(path);
  absl::Status status = WriteAll(flag, temporary, text);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0)
    status = FileError(flag, path);
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

}  // namespace seqmark
