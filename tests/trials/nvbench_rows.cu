// SPDX-License-Identifier: Apache-2.0
//
// NVBench's own time of rows: the same tensors, the same plan and so the same
// kernels as in seqmark_bench, timed by NVIDIA's benchmark library.
//
//   seqmark_bench --benchmark_list_tests ... |
//     seqmark_nvbench_rows --json nvbench.json --min-samples 200
//
// Takes NVBench's flags. The library is that of the Python package cuda-bench:
// -DSEQMARK_NVBENCH=<site-packages>/cuda/bench/cu13/nvbench.
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fixtures/device.h"
#include "fixtures/row.h"
#include "nvbench/nvbench.cuh"
#include "tests/trials/trial_rows.h"

namespace seqmark {
namespace {

std::map<std::string, std::unique_ptr<Row>>& Rows() {
  static auto* const rows = new std::map<std::string, std::unique_ptr<Row>>();
  return *rows;
}

Device& Gpu() {
  static auto* const device =
      new absl::StatusOr<std::unique_ptr<Device>>(MakeCudaDevice());
  if (!device->ok())
    throw std::runtime_error(std::string(device->status().message()));
  return ***device;
}

void Check(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

void Time(nvbench::state& state) {
  const Row& row = *Rows().at(state.get_string("row"));
  const auto instance = row.Instantiate(Gpu(), {.seed = 1});
  Check(instance.status());
  Check((*instance)->launch()(Gpu().stream()));  // loads what it needs
  Check(Gpu().Synchronize());
  state.exec([&](nvbench::launch& launch) {
    Check((*instance)->launch()(launch.get_stream().get_stream()));
  });
}

struct TimeRow {
  void operator()(nvbench::state& state, nvbench::type_list<>) { Time(state); }
};

int Main(int argc, char** argv) {
  auto rows = ReadRows(std::cin);
  Check(rows.status());
  std::vector<std::string> names;
  for (auto& row : *rows) {
    names.push_back(row->name().ToString());
    Rows()[names.back()] = std::move(row);
  }
  nvbench::benchmark_manager::get()
      .add(std::make_unique<nvbench::benchmark<TimeRow>>())
      .set_name("rows")
      .add_string_axis("row", names);
  nvbench::benchmark_manager::get().initialize();
  nvbench::option_parser parser;
  parser.parse(std::vector<std::string>(argv, argv + argc));
  nvbench::detail::main_print_preamble(parser);
  nvbench::detail::main_run_benchmarks(parser);
  nvbench::detail::main_print_epilogue(parser);
  nvbench::detail::main_print_results(parser);
  return 0;
}

}  // namespace
}  // namespace seqmark

int main(int argc, char** argv) {
  try {
    return seqmark::Main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "seqmark_nvbench_rows: " << error.what() << "\n";
    return 1;
  }
}
