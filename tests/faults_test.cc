// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong around a run: killed processes, full disks, folders that
// cannot be written, interrupts, broken caches, wrong outputs. Each leaves a
// valid file, or none, and a message that says why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/bench_program.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

// A program that runs while the test does something to it, in a process group
// of its own, as a shell's job is.
class Job {
 public:
  explicit Job(const std::string& command) : pid_(fork()) {
    if (pid_ != 0) return;
    setpgid(0, 0);
    const std::string line = absl::StrCat("exec ", command);
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  ~Job() {
    if (!waited_) {
      kill(-pid_, SIGKILL);
      Wait();
    }
  }
  pid_t pid() const { return pid_; }
  // The shell's way of saying it: 128 and the signal.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    waited_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // Its child, or 0.
  pid_t Child() const {
    std::ifstream file(
        absl::StrCat("/proc/", pid_, "/task/", pid_, "/children"));
    pid_t child = 0;
    file >> child;
    return child;
  }

 private:
  pid_t pid_;
  bool waited_ = false;
};

bool Within(double seconds, const std::function<bool()>& condition) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

class FaultTest : public BenchTest {
 protected:
  // Rows `filter`, in the background, with results in x.json.
  std::string Command(const std::string& filter,
                      const std::string& flags = "") const {
    return absl::StrCat(SEQMARK_FAULT_BENCH, " --max_time=0.05 ", flags,
                        " --benchmark_filter='", filter,
                        "' --benchmark_out=", Path("x.json"), " >", Path("out"),
                        " 2>", Path("err"), " </dev/null");
  }
  // Waits until a row hangs that comes after one that was measured.
  ::testing::AssertionResult Hangs() const {
    if (Within(120, [this] {
          return ReadFile(Path("err")).find("hangs") != std::string::npos;
        }))
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << ReadFile(Path("err"));
  }
  // The file is a result file, and nothing is left beside it.
  Json ReadValid() const {
    Json document = Json::parse(ReadFile(Path("x.json")), nullptr, false);
    EXPECT_FALSE(document.is_discarded()) << ReadFile(Path("x.json"));
    if (document.is_discarded()) return {};
    for (const char* key : {"date", "num_cpus", "seqmark_schema", "commit",
                            "dirty", "command_line"})
      EXPECT_TRUE(document["context"].contains(key)) << key;
    EXPECT_FALSE(document["benchmarks"].empty());
    for (const Json& row : document["benchmarks"])
      for (const char* key : {"name", "run_name", "run_type", "real_time"})
        EXPECT_TRUE(row.contains(key)) << key;
    return document;
  }
  // The start of a shell's line within quotes, on a machine of its own where
  // `folder` is a tmpfs; empty where none may be mounted, not even by who is
  // root in a name space alone.
  std::string WithTmpfs(const std::string& options,
                        const std::string& folder) const {
    for (const char* flags : {"-m", "-rm"}) {
      std::string shell =
          absl::StrCat("unshare ", flags, " sh -c 'mount -t tmpfs -o ", options,
                       " tmpfs ", folder, " && ");
      if (Run(shell + "true'", "").status == 0) return shell;
    }
    return "";
  }
  bool HasLitter() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      if (entry.path().extension() == ".tmp") return true;
    return false;
  }
};

TEST_F(FaultTest, AKilledWorkerLosesItsRow) {
  Job job(Command("a_fine|hangs|z_fine"));
  ASSERT_TRUE(Hangs());
  const pid_t worker = job.Child();
  ASSERT_GT(worker, 0);
  kill(worker, SIGKILL);
  EXPECT_EQ(job.Wait(), 1);
  const Json document = ReadValid();
  EXPECT_THAT(RowOf(document, "hangs").value("error_message", ""),
              HasSubstr("killed by signal 9"));
  for (const char* fine : {"a_fine", "z_fine"})
    EXPECT_GT(RowOf(document, fine).value("real_time", 0.0), 0);
  EXPECT_FALSE(HasLitter());
}

TEST_F(FaultTest, AKilledParentLeavesItsRowsAndNoWorker) {
  Job job(Command("a_fine|hangs|z_fine"));
  ASSERT_TRUE(Hangs());
  const pid_t worker = job.Child();
  ASSERT_GT(worker, 0);
  kill(job.pid(), SIGKILL);
  EXPECT_EQ(job.Wait(), 128 + SIGKILL);
  EXPECT_GT(RowOf(ReadValid(), "a_fine").value("real_time", 0.0), 0);
  EXPECT_FALSE(HasLitter());
  // Gone, or dead and not yet collected by who inherited it.
  EXPECT_TRUE(Within(20, [worker] {
    const std::string stat = ReadFile(absl::StrCat("/proc/", worker, "/stat"));
    return stat.empty() || stat.find(") Z ") != std::string::npos ||
           stat.find(") X ") != std::string::npos;
  }));
}

TEST_F(FaultTest, AnInterruptFromATerminalReachesAll) {
  Job job(Command("a_fine|hangs|z_fine"));
  ASSERT_TRUE(Hangs());
  kill(-job.pid(), SIGINT);
  EXPECT_EQ(job.Wait(), 130);
  const Json document = ReadValid();
  EXPECT_EQ(document["benchmarks"].size(), 1u);
  EXPECT_GT(RowOf(document, "a_fine").value("real_time", 0.0), 0);
  EXPECT_THAT(ReadFile(Path("err")), HasSubstr("2 rows were not run"));
  EXPECT_FALSE(HasLitter());
}

TEST_F(FaultTest, AnInterruptToTheSupervisorAloneEndsItsWorker) {
  Job job(Command("a_fine|hangs|z_fine"));
  ASSERT_TRUE(Hangs());
  kill(job.pid(), SIGINT);
  EXPECT_EQ(job.Wait(), 130);
  EXPECT_EQ(ReadValid()["benchmarks"].size(), 1u);
  EXPECT_FALSE(HasLitter());
}

// Rows in the process itself: it ends before the next one.
TEST_F(FaultTest, AnInterruptEndsARunWithoutIsolation) {
  Job job(Command("fine", "--isolate=false --benchmark_repetitions=1000000"));
  ASSERT_TRUE(Within(120, [this] {
    return ReadFile(Path("err")).find("a_fine") != std::string::npos;
  }));
  kill(job.pid(), SIGINT);
  ASSERT_TRUE(Within(60, [this] {
    return ReadFile(Path("err")).find("rows were not run") != std::string::npos;
  })) << ReadFile(Path("err"));
  EXPECT_EQ(job.Wait(), 130);
}

TEST_F(FaultTest, AnInterruptBeforeTheFirstRowLeavesTheFileAsItWas) {
  for (const bool old_file : {false, true}) {
    if (old_file) std::ofstream(Path("x.json")) << "of another run";
    Job job(Command("hangs"));
    ASSERT_TRUE(Hangs());
    kill(-job.pid(), SIGINT);
    EXPECT_EQ(job.Wait(), 130);
    EXPECT_EQ(ReadFile(Path("x.json")), old_file ? "of another run" : "");
    EXPECT_EQ(Exists(Path("x.json")), old_file);
    std::remove(Path("err").c_str());
  }
}

TEST_F(FaultTest, WorkersThatNeverStartLeaveAValidFile) {
  // Without a cache of ceilings a start takes seconds: none is lived through.
  setenv("XDG_CACHE_HOME", Path("cache").c_str(), 1);
  Job job(Command("fine"));
  std::thread killer([&job] {
    pid_t last = 0;
    int killed = 0;
    Within(60, [&] {
      const pid_t worker = job.Child();
      if (worker <= 0 || worker == last) return false;
      kill(worker, SIGKILL);
      last = worker;
      return ++killed == 3;
    });
  });
  killer.join();
  EXPECT_EQ(job.Wait(), 1);
  const Json document = ReadValid();
  ASSERT_EQ(document["benchmarks"].size(), 2u);
  for (const Json& row : document["benchmarks"])
    EXPECT_THAT(row.value("error_message", ""),
                AllOf(HasSubstr("ended before the row"), HasSubstr("Killed")));
}

// The disk has no room for the file at all: a file system of a page, or where
// none may be mounted, a process whose files may hold nothing.
TEST_F(FaultTest, AFullDiskIsSaidAndLeavesNothingBroken) {
  const std::string disk = Path("disk");
  mkdir(disk.c_str(), 0755);
  std::string shell = WithTmpfs("size=4k", disk);
  const bool mounted = !shell.empty();
  if (!mounted) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
    GTEST_SKIP() << "ThreadSanitizer's own files do not fit";
#endif
    shell = "sh -c 'ulimit -f 0; ";
  }
  // What is said goes through a pipe, which no limit holds for.
  const Outcome outcome =
      Run(absl::StrCat(
              "{ { ", shell, SEQMARK_FAULT_BENCH,
              " --max_time=0.05 --benchmark_filter=fine --benchmark_out=", disk,
              "/x.json; echo status $?; ls -A ", disk, "'; } 2>&1 | cat; }"),
          "");
  EXPECT_THAT(
      outcome.out,
      AllOf(HasSubstr(mounted ? "No space left on device" : "File too large"),
            HasSubstr("no row is in it"),
            testing::EndsWith("status 1\n")));  // and no file
}

// It fills up between two rows: what was saved stays, whole.
TEST_F(FaultTest, ADiskThatFillsUpKeepsTheFirstRows) {
#ifdef ABSL_HAVE_THREAD_SANITIZER
  GTEST_SKIP() << "ThreadSanitizer's own files do not fit";
#endif
  ASSERT_EQ(Run(Command("a_fine"), "").status, 0);
  const size_t one_row = ReadFile(Path("x.json")).size();
  std::remove(Path("x.json").c_str());
  const size_t blocks = (one_row + 64) / 512 + 1;
  Job job(
      absl::StrCat("sh -c \"ulimit -f ", blocks, "; ", Command("fine"), "\""));
  EXPECT_EQ(job.Wait(), 1);
  EXPECT_THAT(ReadFile(Path("err")),
              AllOf(HasSubstr("File too large"),
                    HasSubstr("the first 1 of 2 rows are in it")));
  const Json document = ReadValid();
  EXPECT_EQ(document["benchmarks"].size(), 1u);
  EXPECT_FALSE(HasLitter());
}

TEST_F(FaultTest, AFolderThatCannotBeWrittenIsSaidFirst) {
  const std::string locked = Path("locked");
  mkdir(locked.c_str(), 0555);
  std::vector<std::string> shells = {"sh -c '"};
  if (geteuid() == 0) {  // whom no permission stops
    shells = {"setpriv --bounding-set=-dac_override,-dac_read_search sh -c '"};
    if (Run(shells[0] + "true'", "").status != 0) shells.clear();
  }
  if (const std::string shell = WithTmpfs("ro", locked); !shell.empty())
    shells.push_back(shell);
  if (shells.empty()) GTEST_SKIP() << "root may neither mount nor be less";
  for (const std::string& shell : shells) {
    SCOPED_TRACE(shell);
    const Outcome outcome =
        Run(absl::StrCat(shell, SEQMARK_FAULT_BENCH,
                         " --max_time=0.05 --benchmark_filter=fine ",
                         "--benchmark_out=", locked, "/x.json'"),
            "");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("cannot write"), HasSubstr(locked),
                                   AnyOf(HasSubstr("Permission denied"),
                                         HasSubstr("Read-only file system"))));
    EXPECT_THAT(outcome.out, testing::IsEmpty());  // no row was run
  }
}

// The measured ceilings, in a cache of the test's own.
class CacheFaultTest : public FaultTest {
 protected:
  void SetUp() override {
    FaultTest::SetUp();
    setenv("XDG_CACHE_HOME", Path("cache").c_str(), 1);
  }
  std::vector<std::string> CacheFiles() const {
    std::vector<std::string> files;
    for (const auto& entry :
         std::filesystem::directory_iterator(Path("cache/seqmark")))
      files.push_back(entry.path().string());
    return files;
  }
};

TEST_F(CacheFaultTest, ACorruptCacheIsMeasuredAnew) {
  ASSERT_EQ(Run(Command("a_fine"), "").status, 0);
  ASSERT_EQ(CacheFiles().size(), 1u);
  const std::string path = CacheFiles().front();
  const std::string text = ReadFile(path);
  const auto with = [&text](const char* from, const char* to) {
    return absl::StrReplaceAll(text, {{from, to}});
  };
  const std::string broken[] = {
      text.substr(0, text.size() / 2), std::string(4096, '\0'),
      with("\"schema\": ", "\"schema\": 9"),
      with("bytes_per_second\": ", "bytes_per_second\": -"),
      with("\"memory\": [", "\"memory\": [{}, ")};
  for (const std::string& cache : broken) {
    SCOPED_TRACE(cache.substr(0, 200));
    ASSERT_NE(cache, text);
    std::ofstream(path) << cache;
    ASSERT_EQ(Run(Command("a_fine"), "").status, 0);
    EXPECT_THAT(ReadFile(Path("err")),
                AllOf(HasSubstr("anew"), HasSubstr(path)));
    ReadValid();
    EXPECT_TRUE(Json::accept(ReadFile(path)));
  }
  ASSERT_EQ(Run(Command("a_fine"), "").status, 0);
  EXPECT_THAT(ReadFile(Path("err")), Not(HasSubstr("anew")));
}

TEST_F(CacheFaultTest, ACacheThatCannotBeWrittenIsSaid) {
  setenv("XDG_CACHE_HOME", "/dev/null", 1);
  EXPECT_EQ(Run(Command("a_fine"), "").status, 0);
  EXPECT_THAT(ReadFile(Path("err")), HasSubstr("are not kept"));
  ReadValid();
}

TEST_F(CacheFaultTest, TwoRunsAtOnceShareACacheAndAFile) {
  {
    Job one(Command("fine")), two(Command("fine"));
    EXPECT_EQ(one.Wait(), 0) << ReadFile(Path("err"));
    EXPECT_EQ(two.Wait(), 0) << ReadFile(Path("err"));
  }
  EXPECT_EQ(ReadValid()["benchmarks"].size(), 2u);
  EXPECT_FALSE(HasLitter());
  ASSERT_EQ(CacheFiles().size(), 1u);
  EXPECT_TRUE(Json::accept(ReadFile(CacheFiles().front())));
}

// The supervisor's wall clock and the worker's, while rows are measured.
TEST_F(FaultTest, AClockThatStepsBackDelaysAndSpoilsNothing) {
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = Run(
      absl::StrCat("LD_PRELOAD=", SEQMARK_STEP_CLOCK,
                   " ASAN_OPTIONS=\"$ASAN_OPTIONS:verify_asan_link_order=0\" ",
                   SEQMARK_FAULT_BENCH),
      absl::StrCat("--max_time=1 --benchmark_min_time=0.5 --noise=1e-6 ",
                   "--benchmark_filter=fine --benchmark_out=", Path("x.json")));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_LT(std::chrono::steady_clock::now() - start,
            std::chrono::seconds(120));
  const Json document = ReadValid();
  ASSERT_EQ(document["benchmarks"].size(), 2u);
  for (const Json& row : document["benchmarks"]) {
    EXPECT_GT(row.value("real_time", 0.0), 0) << row;
    for (const auto& [name, value] : row.items())
      if (value.is_number()) {
        EXPECT_GE(value.get<double>(), 0) << name;
      }
    // The two differ by what a busy machine makes of them, not by an hour.
    EXPECT_LT(row.value("time_p90", 0.0), 0.1) << row;
  }
  EXPECT_FALSE(HasLitter());
}

TEST_F(FaultTest, VerifyMakesAWrongRowAnError) {
  const std::string rows = "--benchmark_filter='a_fine|wrong' ";
  Outcome outcome =
      Faults("--benchmark_filter=wrong_last --benchmark_format=json");
  EXPECT_EQ(outcome.status, 0) << outcome.err;  // nobody looked
  EXPECT_EQ(RowOf(Json::parse(outcome.out), "wrong_last")
                .value("error_occurred", false),
            false);
  outcome = Faults(rows + "--verify --benchmark_format=json");
  EXPECT_EQ(outcome.status, 1);
  const Json document = Json::parse(outcome.out);
  EXPECT_THAT(RowOf(document, "wrong_last").value("error_message", ""),
              AllOf(HasSubstr("wrong output"), HasSubstr("max error"),
                    HasSubstr("[262143]")));
  EXPECT_THAT(RowOf(document, "wrong_stale").value("error_message", ""),
              HasSubstr("never written?"));
  const Json fine = RowOf(document, "a_fine");
  EXPECT_EQ(fine.value("verified", 0.0), 1);
  EXPECT_THAT(fine.value("label", ""), HasSubstr("verified: whole"));
}

}  // namespace
}  // namespace seqmark
