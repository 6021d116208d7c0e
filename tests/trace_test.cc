// SPDX-License-Identifier: Apache-2.0
//
// The trace file of rows as workers report them.
#include "bench/trace.h"

#include <gtest/gtest.h>

namespace seqmark {
namespace {

RowName Named(const std::string& op, DeviceKind device) {
  return {.op = op, .provider = "auto", .shape = "tiny", .device = device};
}

std::vector<Json> Slices(const Json& trace, const std::string& row) {
  int process = 0, track = 0;
  std::vector<Json> slices;
  for (const Json& event : trace["traceEvents"]) {
    if (event["name"] == "thread_name" && event["args"]["name"] == row) {
      process = event["pid"];
      track = event["tid"];
    }
    if (event["ph"] == "X" && event["pid"] == process && event["tid"] == track)
      slices.push_back(event);
  }
  return slices;
}

TEST(Trace, AModelIsARowOfItsLaunches) {
  const RowName name = Named("prefill", DeviceKind::kCuda);
  const RowResult result = {
      .seconds = 9e-6,
      .counters = {{"bytes_moved", 600}, {"flops", 90}, {"host_time", 2e-5}},
      .parts = {{"embedding/native", "embedding", 2e-6, 0, 100},
                {"gemm/cublaslt", "gemm", 5e-6, 80, 400},
                {"gemm/cublaslt", "lm_head", 3e-6, 10, 100}}};
  TraceFile file("unused");
  file.Add(TraceEvent(name, result));
  const auto slices = Slices(Json::parse(file.ToText()), name.ToString());
  ASSERT_EQ(slices.size(), 4u);
  EXPECT_EQ(slices[0]["name"], name.ToString());
  EXPECT_DOUBLE_EQ(slices[0]["dur"], 10);
  EXPECT_DOUBLE_EQ(slices[0]["args"]["seconds"], 9e-6);
  EXPECT_DOUBLE_EQ(slices[0]["args"]["host_seconds"], 2e-5);
  EXPECT_DOUBLE_EQ(slices[0]["args"]["bytes"], 600);
  double end = 0;
  for (size_t i = 0; i < result.parts.size(); ++i) {
    const Json& slice = slices[i + 1];
    EXPECT_EQ(slice["name"], result.parts[i].name);
    EXPECT_EQ(slice["args"]["class"], result.parts[i].op_class);
    EXPECT_EQ(slice["args"]["bytes"], result.parts[i].bytes);
    EXPECT_EQ(slice["args"]["flops"], result.parts[i].flops);
    EXPECT_DOUBLE_EQ(slice["ts"], end);
    end += slice["dur"].get<double>();
  }
  EXPECT_DOUBLE_EQ(slices[2]["args"]["bytes_per_second"], 8e7);
  EXPECT_DOUBLE_EQ(slices[0]["dur"], end);
}

TEST(Trace, AnOperatorIsOneSlice) {
  const RowName name = Named("rmsnorm", DeviceKind::kCpu);
  TraceFile file("unused");
  file.Add(TraceEvent(name, {.seconds = 4e-6, .counters = {{"flops", 8}}}));
  const auto slices = Slices(Json::parse(file.ToText()), name.ToString());
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_DOUBLE_EQ(slices[0]["ts"], 0);
  EXPECT_DOUBLE_EQ(slices[0]["dur"], 4);
  EXPECT_DOUBLE_EQ(slices[0]["args"]["flops_per_second"], 2e6);
}

TEST(Trace, EachRowHasATrackOnItsDevicesProcess) {
  TraceFile file("unused");
  const RowName names[] = {Named("a", DeviceKind::kCpu),
                           Named("b", DeviceKind::kCuda),
                           Named("c", DeviceKind::kCpu)};
  for (const RowName& name : names) {
    file.Add(TraceEvent(name, {.seconds = 5e-6}));
    file.Add(TraceEvent(name, {.seconds = 1e-6}));  // measured again
  }
  const Json trace = Json::parse(file.ToText());
  std::map<int, std::string> processes;
  std::map<int, int> process_of_track;
  for (const Json& event : trace["traceEvents"]) {
    if (event["name"] == "process_name")
      processes[event["pid"]] = event["args"]["name"];
    if (event["ph"] != "X") continue;
    EXPECT_DOUBLE_EQ(event["dur"], 1);
    EXPECT_TRUE(process_of_track.emplace(event["tid"], event["pid"]).second);
  }
  EXPECT_EQ(process_of_track.size(), 3u);
  ASSERT_EQ(processes.size(), 2u);
  EXPECT_EQ(processes[1], "cpu (host time)");
  EXPECT_EQ(processes[2], "cuda (device time)");
}

TEST(Trace, WithoutRowsItIsStillATrace) {
  const Json trace = Json::parse(TraceFile("unused").ToText());
  EXPECT_TRUE(trace["traceEvents"].is_array());
  EXPECT_TRUE(trace["traceEvents"].empty());
}

}  // namespace
}  // namespace seqmark
