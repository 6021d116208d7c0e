// SPDX-License-Identifier: Apache-2.0
//
// The program from outside: flags, failures, files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/csv.h"
#include "bench/table.h"
#include "fixtures/row.h"
#include "tests/bench_program.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST_F(BenchTest, ListsRowsThatParse) {
  const Outcome outcome =
      Bench("--preset=full --devices=cpu,cuda --benchmark_list_tests");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const std::vector<std::string> names =
      absl::StrSplit(outcome.out, '\n', absl::SkipEmpty());
  EXPECT_GT(names.size(), 100u);
  for (const std::string& name : names)
    EXPECT_TRUE(RowName::Parse(name).ok()) << name;
}

TEST_F(BenchTest, FiltersSeeTheWholeName) {
  const Outcome outcome = Bench(
      "--devices=cpu --benchmark_list_tests "
      "--benchmark_filter='^rmsnorm/highway/mamba-130m/.*seqlen:1024/'");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("/seqlen:1024/iterations:1/manual_time"));
}

TEST_F(BenchTest, BadFlagsSayWhatIsRight) {
  const std::pair<const char*, const char*> cases[] = {
      {"--no_such_flag=1", "no_such_flag"},
      {"--benchmark_no_such_flag=1", "benchmark_no_such_flag"},
      {"--seqlens=12,x", "1024..131072*2"},
      {"--seqlens=0", "positive"},
      {"--seqlens=8..4", "positive"},
      {"--seqlens=1..8*1", "1024..131072*2"},
      {"--batches=-1", "positive"},
      {"--dtypes=int8", "bf16, f16, f32"},
      {"--devices=tpu", "cpu, cuda"},
      {"--models=gpt-9", "qwen2.5-0.5b"},
      {"--providers=magic", "highway"},
      {"--preset=huge", "smoke, default or full"},
      {"--cache=warm", "hot, cold or dirty"},
      {"--noise=0", "positive"},
      {"--noise=nan", "positive"},
      {"--max_time=-3", "positive"},
      {"--energy_time=-1", "0 for no energy"},
      {"--energy_time=nan", "0 for no energy"},
      {"--threads=-1", "0 (all) to"},
      {"--threads=100000", "the CPUs that this process may use"},
      {"--memory_limit=many", "24GiB"},
      {"--memory_limit=0.5", "24GiB"},
      {"--seqlens=4294967297", "at most 4294967296"},
      {"--seqlens=1..9223372036854775807", "at most 4294967296"},
      {"--batches=2 --seqlens=4294967296", "2 x 4294967296 tokens"},
      {"--preset=smoke --seqlens=64", "--preset=smoke"},
      {"--benchmark_filter=nothing_has_this_name", "no row matches"},
      {"--benchmark_filter='('", "POSIX"},
      {"--benchmark_min_time=soon", "seconds"},
      {"--benchmark_min_warmup_time=-1", "seconds"},
      {"--benchmark_list_testsx", "benchmark_list_testsx"},
      {"--benchmark_time_unit=hours", "--help"},
      {"--benchmark_out_format=xml", "json, csv or console"},
      {"--benchmark_format=xml", "console, json or csv"},
      {"rmsnorm", "not a flag"},
      {"--preset=smoke --trace=/no/such/folder/x.json", "--trace: cannot"},
      {"--preset=smoke --benchmark_out=/no/such/folder/x.json", "cannot write"},
  };
  for (const auto& [flags, message] : cases) {
    const Outcome outcome = Bench(flags);
    EXPECT_NE(outcome.status, 0) << flags;
    EXPECT_LT(outcome.status, 128) << flags;
    EXPECT_THAT(outcome.err, HasSubstr(message)) << flags;
    EXPECT_THAT(outcome.out, IsEmpty()) << flags;
  }
}

TEST_F(BenchTest, HelpHasEveryFlag) {
  const Outcome outcome = Bench("--help");
  EXPECT_EQ(outcome.status, 0);
  for (const char* flag :
       {"--preset", "--devices", "--seqlens", "--noise=0.005", "--verify",
        "--verify_bytes", "--verify_memory", "--checkpoint",
        "--model_providers", "--benchmark_filter"})
    EXPECT_THAT(outcome.out, HasSubstr(flag));
  EXPECT_THAT(outcome.out, Not(HasSubstr("--worker_fd")));
}

TEST_F(BenchTest, WhatIsSaidTwiceIsOneRow) {
  const Outcome outcome = Bench(
      "--devices=cpu --dtypes=bf16,bf16 --batches=2,1..2 --seqlens=64,64 "
      "--benchmark_list_tests");
  std::vector<std::string> names =
      absl::StrSplit(outcome.out, '\n', absl::SkipEmpty());
  EXPECT_GT(names.size(), 100u);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

// Google Benchmark reads its flags from there too.
TEST_F(BenchTest, TheEnvironmentHoldsGoogleBenchmarksFlags) {
  const std::string env = "BENCHMARK_FILTER=fine ";
  Outcome outcome =
      Run(absl::StrCat(env, "BENCHMARK_LIST_TESTS=true ", SEQMARK_FAULT_BENCH),
          "--preset=full");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("a_fine"), Not(HasSubstr("hangs"))));
  for (const char* isolate : {"true", "false"}) {
    outcome = Run(absl::StrCat(env, "BENCHMARK_OUT=", Path("x.json"), " ",
                               SEQMARK_FAULT_BENCH),
                  absl::StrCat("--max_time=0.05 --isolate=", isolate));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    const Json document = ReadJson("x.json");
    EXPECT_EQ(document["benchmarks"].size(), 2u);
    EXPECT_TRUE(document["context"].contains("host_load"));  // our own file
    std::remove(Path("x.json").c_str());
  }
}

TEST_F(BenchTest, MeasuresRowsIntoValidJson) {
  const Outcome outcome =
      Bench(absl::StrCat("--preset=smoke --devices=cpu --max_time=0.2 "
                         "--benchmark_filter='^rmsnorm'"
                         " --benchmark_out=",
                         Path("x.json")));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const Json document = ReadJson("x.json");
  for (const char* key :
       {"commit", "dirty", "command_line", "compiler", "cpu_model",
        "cpu_ceilings", "seqmark_schema", "cpu_cache", "cpu_slowdowns_before",
        "cpu_slowdowns_after"})
    EXPECT_TRUE(document["context"].contains(key)) << key;
  ASSERT_FALSE(document["benchmarks"].empty());
  for (const Json& row : document["benchmarks"]) {
    EXPECT_GT(row["real_time"], 0) << row;
    for (const char* counter :
         {"samples", "noise", "time_p10", "time_p90", "bytes_moved",
          "bytes_per_second", "flops", "flops_per_second", "sol", "peak_memory",
          "plan_seconds"}) {
      ASSERT_TRUE(row.contains(counter)) << counter;
      EXPECT_TRUE(std::isfinite(row[counter].get<double>())) << counter;
    }
    EXPECT_LE(row["sol"], 1.02);
    EXPECT_LE(row["time_p10"], row["time_p90"]);
  }
}

// Machines with a counter and without: rows have energy, or the context says
// why they have none.
TEST_F(BenchTest, EnergyIsThereOrTheReasonIs) {
  for (const char* flags : {"", "--energy_time=0"}) {
    const Outcome outcome =
        Bench(absl::StrCat("--preset=smoke --devices=cpu --max_time=0.1 ",
                           "--benchmark_filter='^rmsnorm' ", flags,
                           " --benchmark_out=", Path("x.json")));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    const Json document = ReadJson("x.json");
    const Json& context = document["context"];
    const bool measured = context.contains("cpu_energy_window_seconds");
    for (const char* fact :
         {"cpu_energy_update_seconds", "cpu_energy_window_error",
          "cpu_energy_lead_in_seconds"})
      EXPECT_EQ(context.contains(fact), measured) << fact;
    EXPECT_EQ(context.contains("cpu_idle_power_watts"), measured);
    EXPECT_FALSE(context.value("cpu_energy", "").empty());
    if (*flags != 0) {
      EXPECT_FALSE(measured);
      EXPECT_THAT(context.value("cpu_energy", ""), HasSubstr(flags));
    }
    ASSERT_FALSE(document["benchmarks"].empty());
    for (const Json& row : document["benchmarks"])
      for (const char* counter : {"energy", "energy_per_token", "power"})
        EXPECT_EQ(row.value(counter, 0.0) > 0, measured) << row;
  }
}

// Likewise of hardware's count of the memory's traffic.
TEST_F(BenchTest, DramBytesAreThereOrTheReasonIs) {
  for (const bool asked : {true, false}) {
    const Outcome outcome = Bench(absl::StrCat(
        "--preset=smoke --devices=cpu --max_time=0.1 ",
        "--energy_time=0 --benchmark_filter='^rmsnorm' ",
        asked ? "--verify_bytes" : "", " --benchmark_out=", Path("x.json")));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    const Json document = ReadJson("x.json");
    const std::string how = document["context"].value("cpu_dram_counters", "");
    constexpr char kNot[] = "not measured: ";
    const bool measured = how.rfind(kNot, 0) != 0;
    if (!asked) {
      EXPECT_EQ(how, absl::StrCat(kNot, "--verify_bytes=false"));
    }
    EXPECT_GT(how.size(), sizeof(kNot)) << how;
    ASSERT_FALSE(document["benchmarks"].empty());
    for (const Json& row : document["benchmarks"])
      for (const char* counter : {"dram_bytes", "dram_bytes_over_minimum"})
        if (!measured) {
          EXPECT_FALSE(row.contains(counter)) << row;
        } else if (row.contains(counter)) {  // a hot set may need no memory
          EXPECT_GT(row[counter], 0) << row;
        }
  }
}

// A host's memory cannot be told by the row: the reason is there.
TEST_F(BenchTest, DriverMemoryIsOfDevicesThatLendInGranules) {
  for (const bool asked : {true, false}) {
    const Outcome outcome = Faults(absl::StrCat(
        "--benchmark_filter=a_fine --benchmark_out=", Path("x.json"),
        asked ? " --verify_memory" : ""));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    const Json document = ReadJson("x.json");
    EXPECT_THAT(document["context"].value("cpu_driver_memory", ""),
                HasSubstr(asked ? "not measured: memory is lent page by page"
                                : "not measured: --verify_memory=false"));
    const Json row = RowOf(document, "a_fine");
    EXPECT_GT(row.value("peak_memory", 0.0), 0);
    EXPECT_FALSE(row.contains("driver_memory")) << row;
  }
}

TEST_F(BenchTest, FailingRowsLoseOnlyThemselves) {
  const Outcome outcome = Faults(
      absl::StrCat("--preset=full --row_timeout=5 --benchmark_filter=-wrong",
                   " --benchmark_out=", Path("x.json")));
  EXPECT_EQ(outcome.status, 1);
  const Json document = ReadJson("x.json");
  EXPECT_EQ(document["benchmarks"].size(), 9u);
  const std::pair<const char*, const char*> errors[] = {
      {"aborts", "Aborted"},        {"crashes", "Segmentation fault"},
      {"fails", "planned to fail"}, {"hangs", "--row_timeout"},
      {"is_killed", "Killed"},
  };
  for (const auto& [provider, why] : errors) {
    const Json row = RowOf(document, provider);
    EXPECT_TRUE(row.value("error_occurred", false)) << provider << row;
    EXPECT_THAT(row.value("error_message", ""), HasSubstr(why));
  }
  const std::pair<const char*, const char*> skips[] = {
      {"too_large", "free"}, {"unsupported", "not this problem"}};
  for (const auto& [provider, why] : skips) {
    const Json row = RowOf(document, provider);
    EXPECT_TRUE(row.value("skipped", false)) << row;
    EXPECT_FALSE(row.contains("error_occurred")) << row;
    EXPECT_THAT(row.value("skip_message", ""), HasSubstr(why));
  }
  for (const char* provider : {"a_fine", "z_fine"})
    EXPECT_GT(RowOf(document, provider).value("real_time", 0.0), 0);
}

TEST_F(BenchTest, MemoryLimitSkipsWithNeededAndAllowed) {
  const Outcome outcome = Faults(absl::StrCat(
      "--benchmark_filter=a_fine --memory_limit=1KiB --benchmark_out=",
      Path("x.json")));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(RowOf(ReadJson("x.json"), "a_fine").value("skip_message", ""),
              AllOf(HasSubstr("1048576"), HasSubstr("1024")));
}

TEST_F(BenchTest, GoogleBenchmarkFlagsWork) {
  const std::string row = "--benchmark_filter='[az]_fine' ";
  Outcome outcome = Faults(row + "--benchmark_format=json");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out)["benchmarks"].size(), 2u);

  outcome = Faults(row + "--benchmark_format=csv");
  EXPECT_THAT(outcome.out, HasSubstr("name,iterations,real_time"));
  outcome = Faults(row + "--benchmark_format=console");
  EXPECT_THAT(outcome.out, HasSubstr("Benchmark"));

  outcome = Faults(row + "--benchmark_format=json --benchmark_repetitions=3");
  Json document = Json::parse(outcome.out);
  EXPECT_EQ(document["benchmarks"].size(), 2 * (3 + 4u)) << outcome.out;

  outcome = Faults(row +
                   "--benchmark_format=json --benchmark_repetitions=3 "
                   "--benchmark_report_aggregates_only=true "
                   "--benchmark_enable_random_interleaving=true");
  EXPECT_EQ(Json::parse(outcome.out)["benchmarks"].size(), 2 * 4u);

  outcome = Faults(row + "--benchmark_format=json --benchmark_min_time=7x");
  EXPECT_EQ(Json::parse(outcome.out)["benchmarks"][0]["samples"], 7);

  outcome = Faults("--benchmark_filter=-fine --benchmark_list_tests");
  EXPECT_THAT(outcome.out, Not(HasSubstr("fine")));
  EXPECT_THAT(outcome.out, HasSubstr("aborts"));
}

// Rows with other counters, failed and skipped ones, of several workers.
TEST_F(BenchTest, CsvHasEveryRowUnderOneHeader) {
  const Outcome outcome = Faults(absl::StrCat(
      "--benchmark_filter='fine|aborts|too_large' --benchmark_format=csv "
      "--benchmark_out_format=csv --benchmark_out=",
      Path("x.csv")));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, ReadFile(Path("x.csv")));
  const std::vector<std::string> lines =
      absl::StrSplit(outcome.out, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 5u) << outcome.out;
  EXPECT_THAT(lines[0],
              testing::StartsWith("name,iterations,real_time,cpu_time,"));
  EXPECT_THAT(lines[1], testing::StartsWith("\"copy/a_fine/"));
  EXPECT_THAT(lines[2], AllOf(testing::StartsWith("\"copy/aborts/"),
                              HasSubstr(",true,\""), HasSubstr("Aborted")));
  EXPECT_THAT(lines[3], HasSubstr(",false,\""));
}

TEST(Csv, ColumnsAreThoseOfAllRows) {
  const auto rows = nlohmann::ordered_json::parse(R"([
    {"name": "a", "iterations": 1, "real_time": 2.5, "cpu_time": 1,
     "time_unit": "ns", "threads": 1, "label": "of \"x\"", "sol": 0.5},
    {"name": "b", "skipped": true, "skip_message": "no", "time_unit": "ns"},
    {"name": "c", "iterations": 1, "real_time": 0.25, "time_unit": "ns",
     "aggregate_unit": "percentage", "energy": 3}])");
  EXPECT_EQ(ToCsv(rows),
            "name,iterations,real_time,cpu_time,time_unit,bytes_per_second,"
            "items_per_second,label,error_occurred,error_message,"
            "\"energy\",\"sol\"\n"
            "\"a\",1,2.5,1,ns,,,\"of \"\"x\"\"\",,,,0.5\n"
            "\"b\",,,,,,,,false,\"no\",,\n"
            "\"c\",1,0.25,,,,,,,,3,\n");
}

// Whoever asked for a document on standard output must not think he has it.
TEST_F(BenchTest, ResultsThatCannotBePrintedAreSaid) {
  const std::string program =
      absl::StrCat(SEQMARK_FAULT_BENCH, " --max_time=0.05 ",
                   "--benchmark_filter=fine --benchmark_format=json ");
  const Outcome outcome =
      Run(absl::StrCat("sh -c '", program, " >/dev/full; echo status $?'"), "");
  EXPECT_THAT(outcome.out, HasSubstr("status 1"));
  EXPECT_THAT(outcome.err, HasSubstr("No space left on device"));
}

TEST_F(BenchTest, ARowThatDiesIsNotInTheMiddleOfADocument) {
  const Outcome outcome =
      Faults("--benchmark_filter='fine|aborts' --benchmark_format=json");
  EXPECT_EQ(outcome.status, 1);
  ASSERT_TRUE(Json::accept(outcome.out)) << outcome.out;
  EXPECT_EQ(Json::parse(outcome.out)["benchmarks"].size(), 3u);
}

TEST_F(BenchTest, RunsWithoutIsolation) {
  const Outcome outcome =
      Faults("--benchmark_filter=fine --isolate=false --benchmark_format=json");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out)["benchmarks"].size(), 2u);
}

std::vector<Json> SlicesOf(const Json& trace) {
  std::vector<Json> slices;
  for (const Json& event : trace["traceEvents"])
    if (event["ph"] == "X") slices.push_back(event);
  return slices;
}

TEST_F(BenchTest, TracesAModelsLaunches) {
  const Outcome outcome = Bench(absl::StrCat(
      "--devices=cpu --models=gpt-neo-125m --dtypes=bf16 --seqlens=8 "
      "--threads=1 --benchmark_filter=^prefill/ --max_time=0.5 --trace=",
      Path("trace.json"), " --benchmark_out=", Path("x.json")));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const Json row = RowOf(ReadJson("x.json"), "auto");
  const std::vector<Json> slices = SlicesOf(ReadJson("trace.json"));
  ASSERT_GT(slices.size(), 12u * 5);  // each of 12 layers has more launches
  EXPECT_EQ(slices[0]["cat"], "row");
  EXPECT_EQ(slices[1]["args"]["class"], "embedding");
  EXPECT_EQ(slices.back()["args"]["class"], "lm_head");
  double sum = 0, end = 0, flops = 0;
  std::map<std::string, double> by_class;
  for (size_t i = 1; i < slices.size(); ++i) {
    const Json& slice = slices[i];
    EXPECT_NEAR(slice["ts"], end, 1e-6 * end);  // in order, side by side
    EXPECT_THAT(slice["name"], HasSubstr("/"));
    EXPECT_GT(slice["args"]["bytes"], 0) << slice;
    end = slice["ts"].get<double>() + slice["dur"].get<double>();
    sum += slice["dur"].get<double>() * 1e-6;
    flops += slice["args"]["flops"].get<double>();
    by_class[slice["args"]["class"]] += slice["dur"].get<double>() * 1e-6;
  }
  // Least times of other passes, on a machine that may be busy with other
  // tests: near the row's time, or milliseconds were taken for microseconds.
  // One thread: several would wait for whichever has no core.
  const double seconds = row["real_time"].get<double>() * 1e-9;
  EXPECT_GT(sum, seconds / 10);
  EXPECT_LT(sum, seconds * 10);
  EXPECT_NEAR(flops, row["flops"], 1e-6 * flops);
  EXPECT_NEAR(by_class["gemm"] / sum, row["share_gemm"], 1e-6);
}

// Each failing row ends its worker: the trace has the rows of several.
TEST_F(BenchTest, TracesOfSeveralWorkersAreOneFile) {
  for (const char* isolate : {"true", "false"}) {
    const Outcome outcome = Faults(
        absl::StrCat("--trace=", Path("trace.json"), " --isolate=", isolate,
                     " --benchmark_filter='fails|fine'"));
    const std::vector<Json> slices = SlicesOf(ReadJson("trace.json"));
    ASSERT_EQ(slices.size(), 2u) << outcome.err;
    EXPECT_THAT(slices[0]["name"], HasSubstr("a_fine"));
    EXPECT_THAT(slices[1]["name"], HasSubstr("z_fine"));
    EXPECT_NE(slices[0]["tid"], slices[1]["tid"]);
    EXPECT_GT(slices[0]["dur"], 0);
  }
}

TEST(Table, SiPrefixes) {
  EXPECT_EQ(Si(0), "0 ");
  EXPECT_EQ(Si(1234567), "1.23 M");
  EXPECT_EQ(Si(999.9), "1.00 k");
  EXPECT_EQ(Si(4.277e12), "4.28 T");
  EXPECT_EQ(Si(2.5e-6), "2.50 u");
  EXPECT_EQ(Si(-50), "-50.0 ");
}

}  // namespace
}  // namespace seqmark
