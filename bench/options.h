// SPDX-License-Identifier: Apache-2.0
//
// The command line: Google Benchmark's own flags, which keep their meaning,
// and the suite's, which choose rows and say how to sample them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "fixtures/device.h"
#include "fixtures/dtype.h"
#include "fixtures/row.h"

namespace seqmark {

enum class Preset : uint8_t { kSmoke, kDefault, kFull };
enum class Colour : uint8_t { kAuto, kAlways, kNever };  // auto: on a terminal

// Of all sequences of a row together. Far more than fits anywhere, and few
// enough that no count of bytes overflows.
inline constexpr int64_t kMostTokens = int64_t{1} << 32;

// Flags of Google Benchmark that the suite carries out itself, because rows
// run in worker processes and are sampled by the suite's own sampler.
struct BenchmarkFlags {
  std::string out;  // --benchmark_out
  std::string out_format = "json";
  std::string format;  // --benchmark_format; empty: our table
  std::string filter;  // --benchmark_filter
  Colour colour = Colour::kAuto;
  bool list_tests = false;
  double min_time = 0.1;  // seconds of samples, at least
  int samples = 0;        // --benchmark_min_time=<N>x: just so many
  double min_warmup_time = 0;
};

struct Options {
  BenchmarkFlags benchmark;
  Preset preset = Preset::kDefault;
  std::vector<DeviceKind> devices;  // empty: what the machine has
  std::vector<std::string> models;
  std::vector<std::string> providers;
  SweepOverrides sweep;
  std::optional<CacheState> cache;  // none: GPU cold, CPU hot
  double noise = 0.005;
  double max_time = 5;
  double energy_time = 0.2;  // seconds; 0: no energy
  double row_timeout = 600;
  std::string trace;  // a file for the rows' launches; empty: none
  size_t memory_limit = 0;
  int threads = 0;
  uint64_t seed = 1;
  bool recalibrate = false;
  bool isolate = true;
  bool verify = false;
  bool verify_bytes = false;
  bool verify_memory = false;
  bool doctor = false;
  std::string machine_root;  // where --doctor finds /proc and /sys
  std::string nvml_library;
  // Whole models' rows.
  std::string model_providers;       // attention:native,gemm:cublaslt
  int64_t prefill_chunk = 0;         // tokens of a sequence; 0: by default
  bool all_logits = false;           // of every position, not the last alone
  std::vector<std::string> configs;  // models to add: config.json's
  std::vector<std::string> checkpoints;  // and folders with weights
  int worker_fd = -1;  // a worker's end of the pipe to its supervisor

  // What to start a worker with. It takes its rows from the supervisor and
  // leaves files and the filter to it.
  std::vector<std::string> worker_argv;
  std::string command_line;
};

// Reads argv, hands Google Benchmark its flags and Abseil the rest. Exits with
// a message on an unknown flag (as Abseil does); InvalidArgument on a bad
// value, saying what would be right.
absl::StatusOr<Options> ParseOptions(int argc, char** argv);

// "1024,4096" or "1024..131072*2" (from, to, factor), any mix by commas.
absl::StatusOr<std::vector<int64_t>> ParseIntegerList(absl::string_view flag,
                                                      absl::string_view text);
// "24GiB", "512MB", "1000": bytes.
absl::StatusOr<size_t> ParseBytes(absl::string_view flag,
                                  absl::string_view text);

}  // namespace seqmark
