// SPDX-License-Identifier: Apache-2.0
#include "bench/options.h"

#include <benchmark/benchmark.h>
#include <omp.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <map>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "fixtures/nvml.h"

ABSL_FLAG(
    std::string, preset, "",
    "Which rows: smoke (seconds), default (a chosen few, minutes) or full "
    "(everything). With a --benchmark_filter or a sweep flag: full.");
ABSL_FLAG(std::string, devices, "",
          "Comma list of cpu, cuda; empty: what is there.");
ABSL_FLAG(std::string, dtypes, "", "Comma list of bf16, f16, f32.");
ABSL_FLAG(std::string, models, "", "Comma list of models whose layers to run.");
ABSL_FLAG(std::string, providers, "", "Comma list of providers.");
ABSL_FLAG(std::string, batches, "",
          "Batch sizes in place of the sweep's: 1,8 or 1..64*2.");
ABSL_FLAG(std::string, seqlens, "",
          "Lengths in place of the sweep's: 1024,4096 or 1024..131072*2.");
ABSL_FLAG(std::string, cache, "auto",
          "State of the caches before a call: hot, cold, dirty (cold, and full "
          "of what must be written to memory first), or auto (cuda cold, cpu "
          "hot).");
ABSL_FLAG(
    double, noise, 0.005,
    "Stop when the 95 % interval of the median has this relative half-width.");
ABSL_FLAG(double, max_time, 5, "Most seconds to sample one row.");
ABSL_FLAG(double, energy_time, 0.2,
          "Seconds, at most --max_time, in which a row's energy is measured, "
          "where something counts it; 0: not at all.");
ABSL_FLAG(double, row_timeout, 600,
          "Seconds after which a row without a result is given up.");
ABSL_FLAG(
    std::string, memory_limit, "",
    "Rows that need more device memory are skipped: 24GiB, 512MiB, bytes.");
ABSL_FLAG(std::string, trace, "",
          "A file to write the rows' launches to, each with its time, for "
          "ui.perfetto.dev or chrome://tracing.");
ABSL_FLAG(int, threads, 0, "Threads of CPU rows; 0: all the process may use.");
ABSL_FLAG(uint64_t, seed, 1, "Seed of the inputs.");
ABSL_FLAG(
    bool, recalibrate, false,
    "Measure this machine's ceilings again instead of reading the cache.");
ABSL_FLAG(
    bool, isolate, true,
    "Run rows in worker processes, so that one that dies loses only itself.");
ABSL_FLAG(bool, verify, false,
          "Compare each row's outputs with the reference before it is timed, "
          "of long rows parts of them; a wrong row is an error.");
ABSL_FLAG(bool, verify_bytes, false,
          "After each row was timed, run it once more and count the bytes that "
          "the device's memory read and wrote, where its hardware counters may "
          "be read.");
ABSL_FLAG(bool, verify_memory, false,
          "Before each row of a GPU is timed, compare what it counts as its "
          "memory with what the driver says is gone; more than a granule that "
          "is not explained is an error.");
ABSL_FLAG(bool, doctor, false,
          "Print what on this machine would hurt a measurement and how to mend "
          "it, change nothing, and exit: 1 if there is something.");
ABSL_FLAG(std::string, machine_root, "/",
          "Internal: where --doctor finds /proc and /sys.");
ABSL_FLAG(std::string, nvml_library, seqmark::Nvml::kLibrary,
          "Internal: the library that --doctor asks about GPUs.");
ABSL_FLAG(std::string, model_providers, "",
          "Providers inside whole models: attention:cudnn,gemm:cublaslt; "
          "others take the fastest.");
ABSL_FLAG(int64_t, prefill_chunk, 0,
          "Tokens of each sequence in a chunk of a prompt; 0: 32768 together.");
ABSL_FLAG(std::string, logits, "last",
          "Logits that a prompt makes: last (of the last position) or all.");
ABSL_FLAG(std::string, config, "",
          "Comma list of config.json files whose models to add, with random "
          "weights.");
ABSL_FLAG(std::string, checkpoint, "",
          "Comma list of folders with config.json and safetensors whose models "
          "to add.");
ABSL_FLAG(int, worker_fd, -1, "Internal: the pipe of a worker process.");

namespace seqmark {
namespace {

absl::Status Wrong(absl::string_view flag, absl::string_view value,
                   absl::string_view right) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, ": expected ", right));
}

std::vector<std::string> SplitList(absl::string_view text) {
  return absl::StrSplit(text, ',', absl::SkipWhitespace());
}

// Each value once, in the order in which they were said: a row said twice
// would be two rows of one name.
template <class T>
void AddOnce(const T& value, std::vector<T>& values) {
  if (std::find(values.begin(), values.end(), value) == values.end())
    values.push_back(value);
}

// Google Benchmark takes a flag's value from the environment too:
// BENCHMARK_FILTER for --benchmark_filter. Here it is said as a flag, before
// those of the command line, and no worker reads it again.
std::vector<std::string> WithEnvironment(int argc, char** argv) {
  std::vector<std::string> arguments(argv, argv + std::min(argc, 1));
  for (const char* flag :
       {"benchmark_filter", "benchmark_format", "benchmark_list_tests",
        "benchmark_min_time", "benchmark_min_warmup_time", "benchmark_out",
        "benchmark_out_format"}) {
    const std::string variable = absl::AsciiStrToUpper(flag);
    if (const char* value = getenv(variable.c_str()); value != nullptr) {
      arguments.push_back(absl::StrCat("--", flag, "=", value));
      unsetenv(variable.c_str());
    }
  }
  arguments.insert(arguments.end(), argv + std::min(argc, 1), argv + argc);
  return arguments;
}

// The suite's flags are those of this file.
void PrintHelp() {
  std::printf(
      "seqmark_bench times sequence-model operators and models as Google "
      "Benchmark rows.\n\nIts own flags:\n");
  std::map<std::string, const absl::CommandLineFlag*> flags;
  for (const auto& [name, flag] : absl::GetAllFlags())
    if (absl::EndsWith(flag->Filename(), "bench/options.cc") &&
        !absl::StartsWith(flag->Help(), "Internal"))
      flags.emplace(std::string(name), flag);
  for (const auto& [name, flag] : flags) {
    const std::string value = flag->DefaultValue();
    std::printf("  --%s%s%s\n      %s\n", name.c_str(),
                value.empty() ? "" : "=", value.c_str(), flag->Help().c_str());
  }
  std::printf("\nGoogle Benchmark's, with their usual meaning:\n");
  benchmark::PrintDefaultHelp();
}

// Google Benchmark would print its help and exit as if all were well.
void RefuseBenchmarkFlag() {
  std::fprintf(stderr,
               "seqmark_bench: a --benchmark_ flag has a value that it cannot "
               "have; --help shows those it can\n");
  std::exit(1);
}

// "0.5", "0.5s" or "20x".
absl::Status ParseMinTime(absl::string_view text, BenchmarkFlags& flags) {
  absl::string_view number = text;
  if (absl::ConsumeSuffix(&number, "x")) {
    if (absl::SimpleAtoi(number, &flags.samples) && flags.samples > 0)
      return absl::OkStatus();
  } else {
    absl::ConsumeSuffix(&number, "s");
    if (absl::SimpleAtod(number, &flags.min_time) &&
        std::isfinite(flags.min_time) && flags.min_time >= 0)
      return absl::OkStatus();
  }
  return Wrong("benchmark_min_time", text,
               "seconds (0.5 or 0.5s) or a number of samples (20x)");
}

bool ParseBool(absl::string_view text) {
  return text != "false" && text != "0" && text != "no" && text != "off";
}

Colour ParseColour(absl::string_view text) {
  if (text == "auto") return Colour::kAuto;
  return ParseBool(text) ? Colour::kAlways : Colour::kNever;
}

// Takes what the suite carries out itself out of `arguments`.
absl::StatusOr<BenchmarkFlags> TakeBenchmarkFlags(
    std::vector<std::string>& arguments) {
  BenchmarkFlags flags;
  std::vector<std::string> rest;
  absl::Status status;
  for (const std::string& argument : arguments) {
    absl::string_view text = argument;
    if (absl::ConsumePrefix(&text, "--benchmark_out=")) {
      flags.out = std::string(text);
    } else if (absl::ConsumePrefix(&text, "--benchmark_out_format=")) {
      flags.out_format = std::string(text);
      if (text != "json" && text != "csv" && text != "console")
        status = Wrong("benchmark_out_format", text, "json, csv or console");
    } else if (absl::ConsumePrefix(&text, "--benchmark_format=")) {
      flags.format = std::string(text);
      rest.push_back(argument);
      if (text != "json" && text != "csv" && text != "console")
        status = Wrong("benchmark_format", text, "console, json or csv");
    } else if (absl::ConsumePrefix(&text, "--benchmark_filter=")) {
      flags.filter = std::string(text);
    } else if (text == "--benchmark_list_tests") {
      flags.list_tests = true;
    } else if (absl::ConsumePrefix(&text, "--benchmark_list_tests=")) {
      flags.list_tests = ParseBool(text);
    } else if (absl::ConsumePrefix(&text, "--benchmark_color=")) {
      flags.colour = ParseColour(text);
      rest.push_back(argument);
    } else if (absl::ConsumePrefix(&text, "--benchmark_min_time=")) {
      status.Update(ParseMinTime(text, flags));
    } else if (absl::ConsumePrefix(&text, "--benchmark_min_warmup_time=")) {
      if (!absl::SimpleAtod(text, &flags.min_warmup_time) ||
          !std::isfinite(flags.min_warmup_time) || flags.min_warmup_time < 0)
        status = Wrong("benchmark_min_warmup_time", text, "seconds");
    } else {
      rest.push_back(argument);
    }
  }
  if (!status.ok()) return status;
  // What the environment said when the library was loaded is said above.
  rest.insert(rest.begin() + 1,
              {"--benchmark_out=", "--benchmark_list_tests=false"});
  arguments = std::move(rest);
  return flags;
}

absl::Status ReadPreset(Options& options) {
  const std::string text = absl::GetFlag(FLAGS_preset);
  const bool chosen =
      !options.benchmark.filter.empty() || !options.models.empty() ||
      !options.providers.empty() || !options.sweep.batches.empty() ||
      !options.sweep.seqlens.empty() || !options.sweep.dtypes.empty();
  if (text == "smoke")
    options.preset = Preset::kSmoke;
  else if (text == "default")
    options.preset = Preset::kDefault;
  else if (text == "full" || (text.empty() && chosen))
    options.preset = Preset::kFull;
  else if (!text.empty())
    return Wrong("preset", text, "smoke, default or full");
  return absl::OkStatus();
}

absl::Status ReadSweep(Options& options) {
  for (const std::string& name : SplitList(absl::GetFlag(FLAGS_dtypes))) {
    const auto dtype = ParseDType(name);
    if (!dtype) return Wrong("dtypes", name, "a comma list of bf16, f16, f32");
    AddOnce(*dtype, options.sweep.dtypes);
  }
  for (const std::string& name : SplitList(absl::GetFlag(FLAGS_devices))) {
    if (name != "cpu" && name != "cuda")
      return Wrong("devices", name, "a comma list of cpu, cuda");
    options.devices.push_back(name == "cpu" ? DeviceKind::kCpu
                                            : DeviceKind::kCuda);
  }
  options.models = SplitList(absl::GetFlag(FLAGS_models));
  options.providers = SplitList(absl::GetFlag(FLAGS_providers));
  auto batches = ParseIntegerList("batches", absl::GetFlag(FLAGS_batches));
  if (!batches.ok()) return batches.status();
  options.sweep.batches = *std::move(batches);
  auto seqlens = ParseIntegerList("seqlens", absl::GetFlag(FLAGS_seqlens));
  if (!seqlens.ok()) return seqlens.status();
  options.sweep.seqlens = *std::move(seqlens);
  const auto largest = [](const std::vector<int64_t>& values) {
    return values.empty() ? 1 : *std::max_element(values.begin(), values.end());
  };
  const int64_t batch = largest(options.sweep.batches);
  if (const int64_t seqlen = largest(options.sweep.seqlens);
      seqlen > kMostTokens / batch)
    return absl::InvalidArgumentError(
        absl::StrCat("--batches, --seqlens: ", batch, " x ", seqlen,
                     " tokens; at most ", kMostTokens));
  return absl::OkStatus();
}

absl::Status ReadSampling(Options& options) {
  const std::string cache = absl::GetFlag(FLAGS_cache);
  for (const CacheState state :
       {CacheState::kHot, CacheState::kCold, CacheState::kDirty})
    if (cache == Name(state)) options.cache = state;
  if (!options.cache && cache != "auto")
    return Wrong("cache", cache, "auto, hot, cold or dirty");
  const auto positive = [](const absl::Flag<double>& flag,
                           absl::string_view name, double& value) {
    value = absl::GetFlag(flag);
    return std::isfinite(value) && value > 0
               ? absl::OkStatus()
               : Wrong(name, absl::StrCat(value), "a positive number");
  };
  absl::Status status = positive(FLAGS_noise, "noise", options.noise);
  status.Update(positive(FLAGS_max_time, "max_time", options.max_time));
  status.Update(
      positive(FLAGS_row_timeout, "row_timeout", options.row_timeout));
  options.energy_time = absl::GetFlag(FLAGS_energy_time);
  if (!std::isfinite(options.energy_time) || options.energy_time < 0)
    status.Update(Wrong("energy_time", absl::StrCat(options.energy_time),
                        "seconds, or 0 for no energy"));
  auto limit = ParseBytes("memory_limit", absl::GetFlag(FLAGS_memory_limit));
  if (!limit.ok()) return limit.status();
  options.memory_limit = *limit;
  options.trace = absl::GetFlag(FLAGS_trace);
  options.threads = absl::GetFlag(FLAGS_threads);
  // More would wait for each other, and for ever where they spin.
  if (const int cpus = omp_get_num_procs();
      options.threads < 0 || options.threads > cpus)
    return Wrong("threads", absl::StrCat(options.threads),
                 absl::StrCat("0 (all) to ", cpus,
                              ", the CPUs that this process may use"));
  options.seed = absl::GetFlag(FLAGS_seed);
  options.recalibrate = absl::GetFlag(FLAGS_recalibrate);
  options.isolate = absl::GetFlag(FLAGS_isolate);
  options.verify = absl::GetFlag(FLAGS_verify);
  options.verify_bytes = absl::GetFlag(FLAGS_verify_bytes);
  options.verify_memory = absl::GetFlag(FLAGS_verify_memory);
  options.doctor = absl::GetFlag(FLAGS_doctor);
  options.machine_root = absl::GetFlag(FLAGS_machine_root);
  options.nvml_library = absl::GetFlag(FLAGS_nvml_library);
  options.worker_fd = absl::GetFlag(FLAGS_worker_fd);
  options.model_providers = absl::GetFlag(FLAGS_model_providers);
  options.prefill_chunk = absl::GetFlag(FLAGS_prefill_chunk);
  if (options.prefill_chunk < 0)
    return Wrong("prefill_chunk", absl::StrCat(options.prefill_chunk),
                 "0 or more");
  const std::string logits = absl::GetFlag(FLAGS_logits);
  if (logits != "last" && logits != "all")
    return Wrong("logits", logits, "last or all");
  options.all_logits = logits == "all";
  options.configs = SplitList(absl::GetFlag(FLAGS_config));
  options.checkpoints = SplitList(absl::GetFlag(FLAGS_checkpoint));
  return status;
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> ParseIntegerList(absl::string_view flag,
                                                      absl::string_view text) {
  const std::string form = absl::StrCat(
      "positive integers such as 1024,4096 or a range 1024..131072*2, at most ",
      kMostTokens);
  std::vector<int64_t> values;
  for (const std::string& part : SplitList(text)) {
    const std::vector<absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits("..", 1));
    int64_t from = 0;
    if (!absl::SimpleAtoi(ends[0], &from) || from < 1 || from > kMostTokens)
      return Wrong(flag, part, form);
    if (ends.size() == 1) {
      AddOnce(from, values);
      continue;
    }
    const std::vector<absl::string_view> step =
        absl::StrSplit(ends[1], absl::MaxSplits('*', 1));
    int64_t to = 0, factor = 2;
    if (!absl::SimpleAtoi(step[0], &to) || to < from || to > kMostTokens ||
        (step.size() == 2 &&
         (!absl::SimpleAtoi(step[1], &factor) || factor < 2)))
      return Wrong(flag, part, form);
    for (int64_t v = from; v <= to; v *= factor) {
      AddOnce(v, values);
      if (v > to / factor) break;
    }
  }
  return values;
}

absl::StatusOr<size_t> ParseBytes(absl::string_view flag,
                                  absl::string_view text) {
  if (text.empty()) return 0;
  constexpr std::pair<const char*, double> kUnits[] = {
      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
      {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
      {"B", 1},        {"", 1}};
  for (const auto& [unit, scale] : kUnits) {
    absl::string_view number = text;
    if (!absl::ConsumeSuffix(&number, unit)) continue;
    double value = 0;
    if (!absl::SimpleAtod(absl::StripAsciiWhitespace(number), &value) ||
        !(value * scale >= 1) || value * scale > 0x1p60)
      break;
    return static_cast<size_t>(value * scale);
  }
  return Wrong(flag, text, "a size such as 24GiB, 512MiB or 1000000");
}

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  options.command_line =
      absl::StrJoin(std::vector<std::string>(argv, argv + argc), " ");
  // Google Benchmark keeps a pointer to argv[0] for ever.
  static auto* const kept = new std::deque<std::vector<std::string>>();
  std::vector<std::string>& arguments =
      kept->emplace_back(WithEnvironment(argc, argv));
  options.worker_argv = arguments;
  if (std::find(arguments.begin(), arguments.end(), "--help") !=
      arguments.end()) {
    PrintHelp();
    std::exit(0);
  }
  auto flags = TakeBenchmarkFlags(arguments);
  if (!flags.ok()) return flags.status();
  options.benchmark = *std::move(flags);

  std::vector<char*> pointers;
  pointers.reserve(arguments.size());
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data(), RefuseBenchmarkFlag);
  pointers.resize(count);
  const std::vector<char*> left = absl::ParseCommandLine(
      static_cast<int>(pointers.size()), pointers.data());
  if (left.size() > 1)
    return absl::InvalidArgumentError(absl::StrCat(
        "'", left[1], "' is not a flag; flags have the form --name=value"));
  absl::Status status = ReadSweep(options);
  status.Update(ReadSampling(options));
  status.Update(ReadPreset(options));
  if (!status.ok()) return status;
  return options;
}

}  // namespace seqmark
