// SPDX-License-Identifier: Apache-2.0
//
// Runs the benchmark programs from outside, for tests.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace seqmark {

using Json = nlohmann::json;

struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class BenchTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/seqmark_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    folder_ = pattern;
    // One for all tests of a build: a sanitizer's ceilings are not another's.
    const std::string program = SEQMARK_FAULT_BENCH;
    setenv(
        "XDG_CACHE_HOME",
        absl::StrCat(program.substr(0, program.rfind('/')), "/cache").c_str(),
        1);
  }
  void TearDown() override {
    [[maybe_unused]] const int ignored =
        system(absl::StrCat("rm -rf ", folder_).c_str());
  }
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_, "/", name);
  }
  Outcome Run(const std::string& program, const std::string& flags) const {
    const int status =
        system(absl::StrCat(program, " ", flags, " >", Path("out"), " 2>",
                            Path("err"), " </dev/null")
                   .c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            ReadFile(Path("out")), ReadFile(Path("err"))};
  }
  Outcome Bench(const std::string& flags) const {
    return Run(SEQMARK_BENCH, flags);
  }
  Outcome Faults(const std::string& flags) const {
    return Run(SEQMARK_FAULT_BENCH, absl::StrCat(flags, " --max_time=0.05"));
  }
  // Ends the test, as an exception, where the program left no such file.
  Json ReadJson(const std::string& name) const {
    Json document = Json::parse(ReadFile(Path(name)), nullptr, false);
    if (document.is_discarded())
      throw std::runtime_error(absl::StrCat(
          name, " is no JSON; the program said: ", ReadFile(Path("err"))));
    return document;
  }
  std::string folder_;
};

inline Json RowOf(const Json& document, const std::string& provider) {
  for (const Json& row : document["benchmarks"])
    if (absl::StrSplit(row["name"].get<std::string>(), '/')
            .
            operator std::vector<std::string>()[1] == provider)
      return row;
  return {};
}

}  // namespace seqmark
