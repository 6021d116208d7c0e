// SPDX-License-Identifier: Apache-2.0
//
// seqmark_bench: chooses rows, then lists them, or runs them as a supervisor
// of worker processes; a worker is this same program.
#include <cstdio>

#include "bench/doctor.h"
#include "bench/options.h"
#include "bench/selection.h"
#include "bench/setup.h"
#include "bench/supervisor.h"
#include "bench/worker.h"
#include "fixtures/plant.h"

namespace seqmark {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "seqmark_bench: %s\n",
               std::string(status.message()).c_str());
  return 1;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<Options> options = ParseOptions(argc, argv);
  if (!options.ok()) return Fail(options.status());
  if (options->doctor)
    return Doctor(options->machine_root, options->nvml_library.c_str());
  if (absl::Status s = RunSetups(*options); !s.ok()) return Fail(s);
  const auto plant = PlantOfThisBuild();
  if (!plant.ok()) return Fail(plant.status());
  if (*plant && options->worker_fd < 0)
    std::fprintf(stderr,
                 "seqmark_bench: a build for trials, with a slowdown planted "
                 "(%s): its times are not to be kept\n",
                 (*plant)->ToString().c_str());
  if (options->worker_fd >= 0) return WorkerMain(*options);
  auto rows = SelectRows(*options);
  if (!rows.ok()) return Fail(rows.status());
  if (options->benchmark.list_tests) {
    for (const auto& row : *rows)
      std::printf("%s\n", BenchmarkName(row->name()).c_str());
    return 0;
  }
  return Supervise(*options, *std::move(rows));
}

}  // namespace
}  // namespace seqmark

int main(int argc, char** argv) { return seqmark::Main(argc, argv); }
