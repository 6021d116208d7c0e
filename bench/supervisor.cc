// SPDX-License-Identifier: Apache-2.0
#include "bench/supervisor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/context.h"
#include "bench/process.h"
#include "bench/result_file.h"
#include "bench/table.h"
#include "bench/trace.h"
#include "bench/worker.h"
#include "fixtures/host.h"

namespace seqmark {
namespace {

// A worker that cannot even start is given up after so many in a row.
constexpr int kMostFruitlessWorkers = 3;
// Ceilings are measured and plans are made before the first row starts.
constexpr double kStartTimeout = 300;

// An interrupt sets the flag and leaves a byte in the pipe, which is never
// read: whoever waits for a worker sees it, however late it begins to wait.
std::atomic<bool> interrupted = false;
int interrupt_pipe[2] = {-1, -1};
void OnInterrupt(int) {
  const int error = errno;
  interrupted = true;
  [[maybe_unused]] const ssize_t n = write(interrupt_pipe[1], "", 1);
  errno = error;
}

// That understands escape sequences.
bool IsTerminal(int fd) {
  const char* const term = getenv("TERM");
  return isatty(fd) && term != nullptr && *term != 0 &&
         std::strcmp(term, "dumb") != 0;
}

bool Coloured(Colour colour) {
  return colour == Colour::kAlways ||
         (colour == Colour::kAuto && IsTerminal(STDOUT_FILENO));
}

// Formats that are printed at the end, whole.
bool IsDocument(absl::string_view format) {
  return format == "json" || format == "csv";
}

class Supervisor {
 public:
  Supervisor(const Options& options, std::vector<std::unique_ptr<Row>> rows)
      : options_(options),
        rows_(std::move(rows)),
        file_(options.benchmark),
        trace_(options.trace),
        colour_(Coloured(options.benchmark.colour)),
        progress_in_place_(IsTerminal(STDERR_FILENO)) {
    for (const auto& row : rows_) left_.insert(row->name().ToString());
    total_ = left_.size();
    for (const auto& [key, value] : Facts(ReadHostState()))
      host_facts_[key] = value;
    file_.SetFirstContext(FirstContext());
  }

  int Run() {
    if (absl::Status s = file_.CheckWritable(); !s.ok()) return Fail(s);
    if (absl::Status s = trace_.CheckWritable(); !s.ok()) return Fail(s);
    if (options_.benchmark.format.empty()) Print(TableHeader());
    const absl::Status status = options_.isolate ? RunIsolated() : RunHere();
    return Finish(status);
  }

 private:
  int Finish(const absl::Status& status) {
    const std::string& format = options_.benchmark.format;
    if (IsDocument(format)) Print(file_.ToText(format));
    // Neither file is lost with the other. An interrupt before the first row
    // leaves what was there.
    absl::Status written;
    if (!(interrupted && file_.empty())) written = Kept(file_.Write());
    written.Update(trace_.Write());
    if (!written.ok()) return Fail(written);
    if (!status.ok()) return Fail(status);
    Progress(interrupted ? "interrupted" : "done", "");
    std::fprintf(stderr, "\n%zu rows: %zu measured, %zu skipped, %zu errors\n",
                 total_,
                 total_ - left_.size() - skipped_.size() - failed_.size(),
                 skipped_.size(), failed_.size());
    if (print_error_ != 0 && (!format.empty() || NothingIsKept()))
      return Fail(absl::UnavailableError(absl::StrCat(
          "cannot write to standard output: ", std::strerror(print_error_))));
    if (interrupted) {
      std::fprintf(stderr, "interrupted: %zu rows were not run\n",
                   left_.size());
      return 130;
    }
    return failed_.empty() ? 0 : 1;
  }

  static int Fail(const absl::Status& status) {
    std::fprintf(stderr, "seqmark_bench: %s\n",
                 std::string(status.message()).c_str());
    return 1;
  }

  // The context of a run whose workers die before they say theirs.
  Json FirstContext() const {
    char date[40] = {}, host[256] = {};
    const time_t now = time(nullptr);
    tm local{};
    localtime_r(&now, &local);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S%z", &local);
    gethostname(host, sizeof(host) - 1);
    Json context = {{"date", date},
                    {"host_name", host},
                    {"num_cpus", sysconf(_SC_NPROCESSORS_CONF)}};
    for (const auto& [key, value] : ProgramFacts(options_))
      context[key] = value;
    context.update(host_facts_);
    return context;
  }

  // A failure to write, and what of the results there is all the same.
  absl::Status Kept(const absl::Status& failure) const {
    return absl::Status(
        failure.code(),
        absl::StrCat(failure.message(), "; ",
                     saved_ == 0
                         ? std::string("no row is in it")
                         : absl::StrCat("the first ", saved_, " of ",
                                        file_.rows(), " rows are in it")));
  }

  bool NothingIsKept() const {
    return options_.benchmark.out.empty() && options_.trace.empty();
  }
  bool Stopped() const {
    return interrupted || (print_error_ != 0 && NothingIsKept());
  }

  // Google Benchmark cannot be told to stop: between two rows the process ends.
  absl::Status RunHere() {
    RunRows(options_, rows_, [this](const Json& event) {
      if (event.value("event", "") == "start" && Stopped())
        std::exit(Finish(absl::OkStatus()));
      Handle(event);
    });
    return absl::OkStatus();
  }

  absl::Status RunIsolated() {
    int fruitless = 0;
    bool first = true;
    while (!left_.empty() && !Stopped()) {
      std::vector<std::string> argv = options_.worker_argv;
      if (!first) argv.emplace_back("--recalibrate=false");
      first = false;
      std::string names;
      for (const auto& row : rows_)
        if (left_.contains(row->name().ToString()))
          absl::StrAppend(&names, row->name().ToString(), "\n");
      auto worker = WorkerProcess::Start(argv, names, options_.threads);
      if (!worker.ok()) return worker.status();
      const size_t before = left_.size();
      const std::string end = Follow(**worker);
      if (Stopped() || left_.empty()) break;
      if (!current_.empty())
        Lose(current_, note_.empty() ? end : absl::StrCat(end, "; ", note_));
      fruitless = left_.size() < before ? 0 : fruitless + 1;
      if (fruitless == kMostFruitlessWorkers) {
        for (const std::string& name : std::set<std::string>(left_))
          Lose(name, absl::StrCat("the worker ended before the row: ", end));
      }
    }
    return absl::OkStatus();
  }

  // Handles a worker's events until it ends; returns how it ended.
  std::string Follow(WorkerProcess& worker) {
    current_.clear();
    std::string line;
    while (true) {
      // Of the whole row, whatever it says of itself meanwhile.
      const double patience =
          current_.empty()
              ? kStartTimeout
              : std::max(0.0, options_.row_timeout - (Seconds() - row_start_));
      const WorkerProcess::Read read =
          print_error_ != 0 && Stopped()
              ? WorkerProcess::Read::kStopped
              : worker.NextLine(patience, interrupt_pipe[0], line);
      switch (read) {
        case WorkerProcess::Read::kLine: {
          const Json event = Json::parse(line, nullptr, false);
          // Half a line of a killed worker, or one that memory errors spoiled.
          if (!event.is_object()) continue;
          try {
            Handle(event);
          } catch (const Json::exception& error) {
            std::fprintf(stderr, "seqmark_bench: a worker said %s\n",
                         error.what());
          }
          continue;
        }
        case WorkerProcess::Read::kTimeout:
          worker.Kill();
          worker.Wait();
          if (current_.empty())
            return absl::StrCat("no word within ", kStartTimeout, " s");
          return absl::StrCat("no result within ", options_.row_timeout,
                              " s (--row_timeout)");
        case WorkerProcess::Read::kStopped:
          worker.Kill();
          worker.Wait();
          return "interrupted";
        case WorkerProcess::Read::kEnd:
          return worker.Wait();
      }
    }
  }

  void Handle(const Json& event) {
    const std::string kind = event.value("event", "");
    if (kind == "start") {
      current_ = event.value("name", "");
      note_.clear();
      row_start_ = Seconds();
      Progress(absl::StrCat(total_ - left_.size() + 1, "/", total_), current_);
      return;
    }
    if (kind == "note") {
      note_ = event.value("text", "");
      return;
    }
    if (kind == "trace") {
      trace_.Add(event);
      return;
    }
    if (kind == "end" && event.contains("context"))
      file_.AddContext(event["context"]);
    if (kind == "context") {
      // Another worker's header would stand in the middle of the table.
      if (have_context_) return;
      have_context_ = true;
      Json context = event["context"];
      context["command_line"] = options_.command_line;  // not the worker's
      context.update(host_facts_);
      file_.SetContext(context);
    }
    if (kind == "rows") {
      for (const Json& row : event["rows"]) Count(row);
      file_.AddRows(event["rows"]);
      current_.clear();
      Save();
    }
    file_.AddText(event.value("file", ""));
    Print(event.value("display", ""));
  }

  void Count(const Json& row) {
    const std::string run_name = row.value("run_name", "");
    const std::string name = run_name.substr(0, run_name.find("/iterations:"));
    left_.erase(name);
    if (row.value("error_occurred", false)) failed_.insert(name);
    if (row.value("skipped", false)) skipped_.insert(name);
    if (options_.benchmark.format.empty()) Print(TableLine(row, colour_));
  }

  void Lose(const std::string& name, const std::string& why) {
    left_.erase(name);
    failed_.insert(name);
    file_.AddLostRow(name, why);
    const std::string line = absl::StrFormat("%-84s ERROR %s\n", name, why);
    file_.AddText(line);
    if (!IsDocument(options_.benchmark.format)) Print(line);
    Save();
  }

  // Results so far, so that nothing is lost whatever happens later.
  void Save() {
    if (absl::Status s = file_.Write(); !s.ok()) {
      std::fprintf(stderr, "\nseqmark_bench: %s\n",
                   std::string(Kept(s).message()).c_str());
    } else {
      saved_ = file_.rows();
    }
  }

  void Print(const std::string& text) {
    if (text.empty()) return;
    if (progress_in_place_) std::fprintf(stderr, "\r\x1b[K");
    if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0)
      print_error_ = errno;
  }

  // Since the run began.
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                         start_)
        .count();
  }

  void Progress(const std::string& where, const std::string& name) {
    std::string text =
        absl::StrFormat("[%s, %.0f s] %s", where, Seconds(), name);
    if (progress_in_place_) {
      // A line that wraps could not be taken back.
      winsize size{};
      if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        text.resize(std::min<size_t>(text.size(), size.ws_col - 1));
      std::fprintf(stderr, "\r\x1b[K%s", text.c_str());
    } else {
      std::fprintf(stderr, "%s\n", text.c_str());
    }
    std::fflush(stderr);
  }

  const Options& options_;
  const std::vector<std::unique_ptr<Row>> rows_;
  ResultFile file_;
  TraceFile trace_;
  const bool colour_;
  const bool progress_in_place_;
  int print_error_ = 0;  // errno of a write to standard output that failed
  std::set<std::string> left_;  // rows without a result yet
  std::string current_;         // the row that a worker is at
  double row_start_ = 0;        // when it began, in Seconds()
  std::string note_;            // what to say of it if it does not end
  std::set<std::string> failed_, skipped_;
  size_t total_ = 0;
  size_t saved_ = 0;  // rows that the file holds
  bool have_context_ = false;
  Json host_facts_ = Json::object();  // before anything ran
  const std::chrono::steady_clock::time_point start_ =
      std::chrono::steady_clock::now();
};

}  // namespace

int Supervise(const Options& options, std::vector<std::unique_ptr<Row>> rows) {
  if (pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
    std::perror("seqmark_bench: pipe");
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  // Nobody else ends a row that runs in this process: the second one does.
  if (!options.isolate) action.sa_flags |= SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow: an error like others
  return Supervisor(options, std::move(rows)).Run();
}

}  // namespace seqmark
