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
//
// Its samples hold more than kernels, as ours do, and other things. In a cold
// measurement (nvbench/detail/measure_cold.cuh) a call stands alone:
//
//   memset | host waits | hold | clock | event call event | clock | host waits
//
// With dirty caches ours do too (fixtures/sampler_cuda.cu), but
// - its memset is of the L2's size, ours of twice that;
// - its `hold` looks at the host's memory without a pause, ours sleeps between;
// - its `clock` is a block for each multiprocessor, of which one writes to the
//   host's memory: the first event is right behind it. Ours writes to the
//   GPU's.
//
// So that both can be set against each other, a kernel of known length is timed
// by NVBench too, before each row. How long it ran by itself is in the file's
// summary "seqmark/by_itself".
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fixtures/device.h"
#include "fixtures/row.h"
#include "fixtures/sampler.h"
#include "fixtures/timer_overhead_cuda.h"
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

void Time(const Row& row, nvbench::state& state) {
  const auto instance = row.Instantiate(Gpu(), {.seed = 1});
  Check(instance.status());
  Check((*instance)->launch()(Gpu().stream()));  // loads what it needs
  Check(Gpu().Synchronize());
  state.exec([&](nvbench::launch& launch) {
    Check((*instance)->launch()(launch.get_stream().get_stream()));
  });
}

// What NVBench does around a launch it does here in `start` and `stop`, between
// which is the same as for a row. Between samples, the kernel is asked.
void TimeKnownKernel(nvbench::state& state) {
  const auto kernel =
      SelfTimed::Get(static_cast<int>(state.get_device()->get_number_of_sms()));
  Check(kernel.status());
  std::vector<double> by_itself;
  state.exec(nvbench::exec_tag::timer,
             [&](nvbench::launch& launch, auto& timer) {
               timer.start();
               Check((*kernel)->Run(launch.get_stream().get_stream()));
               timer.stop();
               const auto seconds = (*kernel)->Seconds(Gpu());
               Check(seconds.status());
               by_itself.push_back(*seconds);
             });
  auto& summary = state.add_summary("seqmark/by_itself");
  summary.set_string("name", "By itself");
  summary.set_string("hint", "duration");
  summary.set_string("description", "How long the kernel ran by itself");
  summary.set_float64("value", GetMedianInterval(by_itself).median);
}

struct TimeState {
  void operator()(nvbench::state& state, nvbench::type_list<>) {
    const auto row = Rows().find(state.get_string("row"));
    if (row == Rows().end())
      TimeKnownKernel(state);
    else
      Time(*row->second, state);
  }
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
      .add(std::make_unique<nvbench::benchmark<TimeState>>())
      .set_name("rows")
      .add_string_axis("row", WithKnownKernels(names));
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
