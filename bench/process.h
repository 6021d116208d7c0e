// SPDX-License-Identifier: Apache-2.0
//
// A worker process: this program again, with a pipe for row names and a pipe
// for events.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace seqmark {

class WorkerProcess {
 public:
  // Starts the worker; `input` goes to its stdin.
  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Start(
      std::vector<std::string> argv, const std::string& input, int threads);
  ~WorkerProcess();

  enum class Read : uint8_t { kLine, kTimeout, kEnd, kStopped };
  // The next event line, waiting at most `seconds`, and not once something can
  // be read from `stop_fd`. A line that has come is read however little time is
  // left.
  Read NextLine(double seconds, int stop_fd, std::string& line);

  void Kill();
  // Waits for the end; how it ended in words: "exit status 1", "killed by
  // signal 9 (Killed)".
  std::string Wait();

 private:
  WorkerProcess(pid_t pid, int events) : pid_(pid), events_(events) {}
  pid_t pid_;
  int events_;
  bool waited_ = false;
  std::string buffer_;
};

}  // namespace seqmark
