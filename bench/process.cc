// SPDX-License-Identifier: Apache-2.0
#include "bench/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace seqmark {
namespace {

absl::Status SystemError(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

constexpr double kLongestPoll = 1e9;  // milliseconds

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The OpenMP runtime reads these once, at its start: threads stay where they
// are, one a core. A user's own settings win.
void PinThreads(int threads) {
  setenv("OMP_PROC_BIND", "close", /*overwrite=*/0);
  setenv("OMP_PLACES", "cores", 0);
  setenv("OMP_WAIT_POLICY", "active", 0);
  if (threads > 0)
    setenv("OMP_NUM_THREADS", std::to_string(threads).c_str(), 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(
    std::vector<std::string> argv, const std::string& input, int threads) {
  int in[2], events[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(events, O_CLOEXEC) != 0)
    return SystemError("pipe for a worker");
  argv.push_back(absl::StrCat("--worker_fd=", events[1]));
  std::vector<char*> pointers;
  pointers.reserve(argv.size() + 1);
  for (std::string& argument : argv) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const pid_t supervisor = getpid();
  const pid_t pid = fork();
  if (pid < 0) return SystemError("fork of a worker");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);         // never outlive the supervisor
    if (getppid() != supervisor) _exit(127);  // it died before that
    dup2(in[0], STDIN_FILENO);
    fcntl(events[1], F_SETFD, 0);
    PinThreads(threads);
    execv("/proc/self/exe", pointers.data());
    _exit(127);
  }
  close(in[0]);
  close(events[1]);
  for (size_t at = 0; at < input.size();) {
    const ssize_t n = write(in[1], input.data() + at, input.size() - at);
    if (n <= 0 && errno != EINTR) break;  // the worker died: seen when reading
    if (n > 0) at += static_cast<size_t>(n);
  }
  close(in[1]);
  return std::unique_ptr<WorkerProcess>(new WorkerProcess(pid, events[0]));
}

WorkerProcess::~WorkerProcess() {
  if (!waited_) {
    Kill();
    Wait();
  }
  close(events_);
}

WorkerProcess::Read WorkerProcess::NextLine(double seconds, int stop_fd,
                                            std::string& line) {
  const double deadline = Now() + seconds;
  while (true) {
    if (const size_t end = buffer_.find('\n'); end != buffer_.npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return Read::kLine;
    }
    // What has come is read even past the deadline.
    const double left = std::max(0.0, deadline - Now());
    pollfd fds[] = {{.fd = events_, .events = POLLIN},
                    {.fd = stop_fd, .events = POLLIN}};
    const int ready =
        poll(fds, 2,
             static_cast<int>(std::ceil(std::min(left * 1e3, kLongestPoll))));
    if (ready == 0 && left <= 0) return Read::kTimeout;
    if (ready <= 0) continue;
    if (fds[1].revents != 0) return Read::kStopped;
    char chunk[65536];
    const ssize_t n = read(events_, chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Read::kEnd;
    buffer_.append(chunk, static_cast<size_t>(n));
  }
}

void WorkerProcess::Kill() { kill(pid_, SIGKILL); }

std::string WorkerProcess::Wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  waited_ = true;
  if (WIFSIGNALED(status))
    return absl::StrCat("killed by signal ", WTERMSIG(status), " (",
                        strsignal(WTERMSIG(status)), ")");
  return absl::StrCat("exit status ", WEXITSTATUS(status));
}

}  // namespace seqmark
