// SPDX-License-Identifier: Apache-2.0
#include "bench/trace.h"

#include "absl/strings/str_cat.h"
#include "bench/atomic_file.h"

namespace seqmark {
namespace {

constexpr absl::string_view kFlag = "trace";
constexpr double kMicroseconds = 1e6;

// Who took the time of a launch, in words.
absl::string_view ClockOf(DeviceKind kind) {
  return kind == DeviceKind::kCpu
             ? "the host's clock around each launch"
             : "device events around each launch; the host's time is not in it";
}

// A process of the trace: its number and its name.
int ProcessOf(absl::string_view device) { return device == "cpu" ? 1 : 2; }
absl::string_view ProcessName(absl::string_view device) {
  return device == "cpu" ? "cpu (host time)" : "cuda (device time)";
}

Json Slice(const std::string& name, const std::string& category, double start,
           double seconds, const Json& args) {
  return {{"name", name},
          {"cat", category},
          {"ph", "X"},
          {"ts", start * kMicroseconds},
          {"dur", seconds * kMicroseconds},
          {"args", args}};
}

// What work was done in `seconds`, and at which rate.
Json Work(double bytes, double flops, double seconds) {
  Json work = {{"bytes", bytes}, {"flops", flops}};
  if (seconds > 0) {
    work["bytes_per_second"] = bytes / seconds;
    work["flops_per_second"] = flops / seconds;
  }
  return work;
}

Json Metadata(const char* what, int process, int track, Json value) {
  return {{"name", what},
          {"ph", "M"},
          {"pid", process},
          {"tid", track},
          {"args", {{"name", std::move(value)}}}};
}

}  // namespace

Json TraceEvent(const RowName& name, const RowResult& result) {
  const auto counter = [&](const char* which) {
    const auto it = result.counters.find(which);
    return it == result.counters.end() ? 0.0 : it->second;
  };
  double sum = 0;
  for (const TimedPart& part : result.parts) sum += part.seconds;
  Json args = Work(counter("bytes_moved"), counter("flops"), result.seconds);
  args["seconds"] = result.seconds;
  args["seconds_of"] =
      result.replayed_as_graph
          ? "median of the whole call, replayed as a graph where there are any"
          : "median of the whole call";
  if (const double host = counter("host_time"); host > 0)
    args["host_seconds"] = host;
  if (!result.parts.empty()) args["launches_timed_by"] = ClockOf(name.device);
  // Not in braces: what that makes of one value depends on the compiler.
  Json slices = Json::array();
  slices.push_back(Slice(name.ToString(), "row", 0,
                         result.parts.empty() ? result.seconds : sum, args));
  double start = 0;
  for (const TimedPart& part : result.parts) {
    Json work = {{"class", part.op_class}};
    work.update(Work(part.bytes, part.flops, part.seconds));
    slices.push_back(
        Slice(part.name, part.op_class, start, part.seconds, work));
    start += part.seconds;
  }
  return {{"event", "trace"},
          {"row", name.ToString()},
          {"device", Name(name.device)},
          {"slices", slices}};
}

absl::Status TraceFile::CheckWritable() const {
  if (path_.empty()) return absl::OkStatus();
  return seqmark::CheckWritable(kFlag, path_);
}

void TraceFile::Add(const Json& event) {
  rows_[event.value("row", "")] = event;
}

std::string TraceFile::ToText() const {
  Json events = Json::array();
  int track = 0;
  for (const auto& [name, row] : rows_) {
    const std::string device = row.value("device", "");
    const int process = ProcessOf(device);
    ++track;
    events.push_back(
        Metadata("process_name", process, track, ProcessName(device)));
    events.push_back(Metadata("thread_name", process, track, name));
    for (Json slice : row["slices"]) {
      slice["pid"] = process;
      slice["tid"] = track;
      events.push_back(std::move(slice));
    }
  }
  return absl::StrCat(
      Json{{"displayTimeUnit", "ns"}, {"traceEvents", events}}.dump(
          -1, ' ', false, Json::error_handler_t::replace),
      "\n");
}

absl::Status TraceFile::Write() const {
  if (path_.empty()) return absl::OkStatus();
  return WriteAtomically(kFlag, path_, ToText());
}

}  // namespace seqmark
