// SPDX-License-Identifier: Apache-2.0
//
// Runs rows through Google Benchmark and reports each as it is done, as events
// (one JSON object each) that a supervisor understands:
//
//   {"event": "context", "context": {...}}         once, first
//   {"event": "start", "name": "..."}              before a row
//   {"event": "trace", ...}                        with --trace (bench/trace.h)
//   {"event": "rows", "rows": [...], "display": "...", "file": "..."}
//   {"event": "end", "context": {...}}             once, last: facts after it
//
// `rows` are rows of Google Benchmark's JSON; `display` and `file` are what its
// own reporters would have printed, where another format was asked for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/options.h"
#include "fixtures/row.h"
#include "nlohmann/json.hpp"

namespace seqmark {

using Json = nlohmann::ordered_json;
using EventSink = std::function<void(const Json&)>;

// Runs `rows`, in Google Benchmark's order, in this process.
void RunRows(const Options& options,
             const std::vector<std::unique_ptr<Row>>& rows,
             const EventSink& sink);

// A worker process's main: reads row names from stdin until its end, runs
// them, writes events to the pipe. Never returns with a device error pending:
// after a row that failed it exits, since a GPU context may be broken, and the
// supervisor starts another worker for what is left.
int WorkerMain(const Options& options);

}  // namespace seqmark
