// SPDX-License-Identifier: Apache-2.0
#include "bench/worker.h"

#include <benchmark/benchmark.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "bench/context.h"
#include "bench/row_runner.h"
#include "bench/selection.h"
#include "bench/trace.h"

namespace seqmark {
namespace {

// Text that Google Benchmark's JSON reporter printed, as JSON. It spells
// non-finite numbers as Python does (a coefficient of variation of zeros is
// NaN), which JSON has no word for: they become null, and WithoutNulls leaves
// them out.
Json ParseReporterText(std::string text) {
  absl::StrReplaceAll({{": NaN", ": null"},
                       {": -NaN", ": null"},
                       {": Infinity", ": null"},
                       {": -Infinity", ": null"}},
                      &text);
  return Json::parse(text);
}

Json WithoutNulls(const Json& row) {
  Json kept = Json::object();
  for (const auto& [key, value] : row.items())
    if (!value.is_null()) kept[key] = value;
  return kept;
}

// Runs three of Google Benchmark's reporters at once, each into a string.
class EventReporter final : public benchmark::BenchmarkReporter {
 public:
  EventReporter(const Options& options, const EventSink& sink,
                std::map<std::string, std::string>& skips)
      : sink_(sink), skips_(skips) {
    if (options.benchmark.format == "console")
      Attach(Keep(benchmark::CreateDefaultDisplayReporter()), display_);
    if (!options.benchmark.out.empty() &&
        options.benchmark.out_format == "console")
      Attach((console_ = std::make_unique<benchmark::ConsoleReporter>(
                  benchmark::ConsoleReporter::OO_None))
                 .get(),
             file_);
    Attach(&json_, json_text_);
  }

  bool ReportContext(const Context& context) override {
    for (BenchmarkReporter* reporter : reporters_)
      reporter->ReportContext(context);
    const Json document =
        ParseReporterText(absl::StrCat(Take(json_text_), "]}"));
    sink_({{"event", "context"},
           {"context", document["context"]},
           {"display", Take(display_)},
           {"file", Take(file_)}});
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (BenchmarkReporter* reporter : reporters_) reporter->ReportRuns(runs);
    std::string text = Take(json_text_);
    // The reporter puts a comma before every group of rows but the first.
    text.erase(0, text.find('{'));
    Json rows = ParseReporterText(absl::StrCat("[", text, "]"));
    for (Json& row : rows) {
      row = WithoutNulls(row);
      MarkSkip(row);
    }
    sink_({{"event", "rows"},
           {"rows", rows},
           {"display", Take(display_)},
           {"file", Take(file_)}});
  }

 private:
  // The library owned its default reporter up to 1.9.5, and gives it away
  // since.
  static BenchmarkReporter* Keep(BenchmarkReporter* reporter) {
    return reporter;
  }
  BenchmarkReporter* Keep(std::unique_ptr<BenchmarkReporter> reporter) {
    kept_ = std::move(reporter);
    return kept_.get();
  }
  void Attach(BenchmarkReporter* reporter, std::ostringstream& text) {
    reporter->SetOutputStream(&text);
    reporter->SetErrorStream(&ignored_);
    reporters_.push_back(reporter);
  }
  static std::string Take(std::ostringstream& text) {
    std::string taken = text.str();
    text.str("");
    return taken;
  }
  // Before 1.8 the library has no skipped rows: they are reported as errors,
  // and turned into the later form here, the same for every version.
  void MarkSkip(Json& row) const {
    const auto skip = skips_.find(row.value("run_name", ""));
    if (skip == skips_.end()) return;
    row.erase("error_occurred");
    row.erase("error_message");
    row["skipped"] = true;
    row["skip_message"] = skip->second;
  }

  const EventSink& sink_;
  std::map<std::string, std::string>& skips_;
  benchmark::JSONReporter json_;
  std::unique_ptr<BenchmarkReporter> kept_;
  std::unique_ptr<benchmark::ConsoleReporter> console_;
  std::vector<BenchmarkReporter*> reporters_;
  std::ostringstream json_text_, display_, file_, ignored_;
};

std::vector<DeviceKind> DevicesOf(
    const std::vector<std::unique_ptr<Row>>& rows) {
  std::set<DeviceKind> kinds;
  for (const auto& row : rows) kinds.insert(row->name().device);
  return {kinds.begin(), kinds.end()};
}

}  // namespace

void RunRows(const Options& options,
             const std::vector<std::unique_ptr<Row>>& rows,
             const EventSink& sink) {
  RowRunner runner(options);
  std::map<std::string, std::string> skips;  // run_name -> reason
  for (const auto& [key, value] : runner.Facts(DevicesOf(rows)))
    benchmark::AddCustomContext(key, value);
  for (const auto& [key, value] : ProgramFacts(options))
    benchmark::AddCustomContext(key, value);

  for (const auto& owned : rows) {
    const Row* const row = owned.get();
    const std::string name = row->name().ToString();
    benchmark::RegisterBenchmark(
        name.c_str(),
        [&options, &runner, &skips, &sink, row, name](benchmark::State& state) {
          sink({{"event", "start"}, {"name", name}});
          const absl::StatusOr<RowResult> result =
              runner.Run(*row, [&sink](const std::string& text) {
                sink({{"event", "note"}, {"text", text}});
              });
          if (!result.ok()) {
            const std::string message(result.status().message());
            if (IsSkip(result.status()))
              skips[BenchmarkName(row->name())] = message;
            state.SkipWithError(
                (message.empty() ? result.status().ToString() : message)
                    .c_str());
          }
          for (auto _ : state) state.SetIterationTime(result->seconds);
          if (!result.ok()) return;
          if (!options.trace.empty()) sink(TraceEvent(row->name(), *result));
          if (!result->label.empty()) state.SetLabel(result->label);
          for (const auto& [counter, value] : result->counters)
            state.counters[counter] = value;
        })
        ->UseManualTime()
        ->Iterations(1);
  }
  EventReporter reporter(options, sink, skips);
  benchmark::RunSpecifiedBenchmarks(&reporter, ".");
  Json after = Json::object();
  for (const auto& [key, value] : runner.FactsAfter()) after[key] = value;
  sink({{"event", "end"}, {"context", after}});
}

int WorkerMain(const Options& options) {
  std::map<std::string, bool> wanted;
  for (std::string line; std::getline(std::cin, line);) wanted[line] = true;
  std::vector<std::unique_ptr<Row>> rows =
      MakeRows(RowSet::kSweep, options.sweep);
  std::erase_if(rows, [&](const std::unique_ptr<Row>& row) {
    return !wanted.contains(row->name().ToString());
  });
  RunRows(options, rows, [&](const Json& event) {
    const std::string line = absl::StrCat(
        event.dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
    for (size_t at = 0; at < line.size();) {
      const ssize_t n =
          write(options.worker_fd, line.data() + at, line.size() - at);
      if (n <= 0) _exit(3);  // the supervisor is gone
      at += static_cast<size_t>(n);
    }
    if (event["event"] == "rows")
      for (const Json& row : event["rows"])
        if (row.value("error_occurred", false)) _exit(0);
  });
  return 0;
}

}  // namespace seqmark
