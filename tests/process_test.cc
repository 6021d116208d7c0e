// SPDX-License-Identifier: Apache-2.0
#include "bench/process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace seqmark {
namespace {

// The pipe for events of a worker that this program was started as; else -1.
int WorkerFd() {
  std::ifstream file("/proc/self/cmdline");
  const std::string line((std::istreambuf_iterator<char>(file)), {});
  constexpr char kFlag[] = "--worker_fd=";
  const size_t at = line.find(kFlag);
  return at == line.npos ? -1 : std::atoi(&line[at + sizeof(kFlag) - 1]);
}

TEST(WorkerProcess, WhatHasComeIsReadWithNoTimeLeft) {
  if (const int fd = WorkerFd(); fd >= 0) {
    ASSERT_EQ(write(fd, "done\n", 5), 5);
    sleep(60);  // until the test below kills it
    return;
  }
  auto worker = WorkerProcess::Start(
      {"seqmark_test", "--gtest_filter=WorkerProcess.WhatHasCome*"}, "", 1);
  ASSERT_TRUE(worker.ok()) << worker.status();
  std::string line;
  WorkerProcess::Read read = WorkerProcess::Read::kTimeout;
  const auto start = std::chrono::steady_clock::now();
  while (read == WorkerProcess::Read::kTimeout &&
         std::chrono::steady_clock::now() - start < std::chrono::seconds(20)) {
    usleep(10'000);
    read = (*worker)->NextLine(0, -1, line);
  }
  EXPECT_EQ(read, WorkerProcess::Read::kLine);
  EXPECT_EQ(line, "done");
}

}  // namespace
}  // namespace seqmark
