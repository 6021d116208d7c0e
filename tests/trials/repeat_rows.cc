// SPDX-License-Identifier: Apache-2.0
//
// Whether a row gives the same bits on the same inputs however often it runs: a
// race that errs once in a thousand launches is found by this and not by
// comparing one launch with a reference.
//
//   seqmark_bench --benchmark_list_tests ... | seqmark_repeat_rows 500 >
//   repeat.json
//
// The argument is how often each row runs.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixtures/device.h"
#include "fixtures/row.h"
#include "nlohmann/json.hpp"
#include "tests/trials/trial_rows.h"

namespace seqmark {
namespace {

using Json = nlohmann::json;

absl::StatusOr<Json> Repeat(const Row& row, Device& device, int runs) {
  const auto instance = row.Instantiate(device, {.seed = 1});
  if (!instance.ok()) return instance.status();
  const auto first = (*instance)->RunAndReadOutputs();
  if (!first.ok()) return first.status();
  Json different = Json::array();
  size_t bytes = 0;  // that differ, in the worst run
  for (int run = 1; run < runs; ++run) {
    const auto again = (*instance)->RunAndReadOutputs();
    if (!again.ok()) return again.status();
    if (*again == *first) continue;
    different.push_back(run);
    size_t count = 0;
    for (size_t i = 0; i < first->size(); ++i)
      count += (*first)[i] != (*again)[i];
    bytes = std::max(bytes, count);
  }
  return Json{{"row", row.name().ToString()},
              {"runs", runs},
              {"different", different},
              {"different_bytes", bytes},
              {"bytes", first->size()}};
}

// Whether all rows ran and no run differs.
absl::StatusOr<bool> Main(int runs) {
  const auto rows = ReadRows(std::cin);
  if (!rows.ok()) return rows.status();
  const auto device = MakeCudaDevice();
  if (!device.ok()) return device.status();
  Json context = Json::object();
  for (const auto& [key, value] : (*device)->facts()) context[key] = value;
  Json repeated = Json::array();
  bool same = true;
  for (const auto& row : *rows) {
    std::cerr << absl::StrCat("\r[", repeated.size() + 1, "/", rows->size(),
                              "] ", row->name().ToString(), "\x1b[K");
    auto result = Repeat(*row, **device, runs);
    if (!result.ok())
      result = Json{{"row", row->name().ToString()},
                    {"error", std::string(result.status().message())}};
    same &= result->contains("different") && (*result)["different"].empty();
    repeated.push_back(*std::move(result));
  }
  std::cerr << "\n";
  std::printf("%s\n",
              Json{{"context", context}, {"rows", repeated}}.dump(1).c_str());
  return same;
}

}  // namespace
}  // namespace seqmark

int main(int argc, char** argv) {
  const int runs = argc > 1 ? std::atoi(argv[1]) : 100;
  if (runs < 2) {
    std::cerr << "seqmark_repeat_rows: " << argv[1]
              << " runs compare nothing; say 2 or more\n";
    return 2;
  }
  const auto same = seqmark::Main(runs);
  if (same.ok()) return *same ? 0 : 1;
  std::cerr << "seqmark_repeat_rows: " << same.status().message() << "\n";
  return 2;
}
