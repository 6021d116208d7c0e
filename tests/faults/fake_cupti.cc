// SPDX-License-Identifier: Apache-2.0
//
// A library with as much of CUPTI's interface as counting bytes and noting
// kernels' times take, which notes what it is asked and answers with numbers of
// its own. The environment says how: FAKE_CUPTI_PASSES=2,
// FAKE_CUPTI_FAILS=<function>=<CUptiResult>, FAKE_CUPTI_METRICS=<read>+<write>.
#include <cupti_activity.h>
#include <cupti_callbacks.h>
#include <cupti_profiler_host.h>
#include <cupti_profiler_target.h>
#include <cupti_range_profiler.h>
#include <cupti_result.h>
#include <cupti_target.h>
#include <cupti_version.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

namespace {

int object;  // stands for all of CUPTI's
int passes;
std::string calls;
CUpti_BuffersCallbackRequestFunc request;
CUpti_BuffersCallbackCompleteFunc complete;

CUptiResult Note(const char* call) {
  calls += std::string(call) + " ";
  const char* const fails = std::getenv("FAKE_CUPTI_FAILS");
  const std::string key = std::string(call) + "=";
  if (fails != nullptr && std::strncmp(fails, key.c_str(), key.size()) == 0)
    return static_cast<CUptiResult>(std::atoi(fails + key.size()));
  return CUPTI_SUCCESS;
}
template <class Object>
void Make(Object*& to) {
  to = reinterpret_cast<Object*>(&object);
}
template <class Object>
CUptiResult NoteWith(const char* call, Object* with) {
  return reinterpret_cast<int*>(with) == &object
             ? Note(call)
             : CUPTI_ERROR_INVALID_PARAMETER;
}
// The metrics asked for are the two that have answers below.
bool AreTheMetrics(const char** names, size_t count) {
  const char* const given = std::getenv("FAKE_CUPTI_METRICS");
  return count == 2 &&
         std::string(names[0]) + "+" + names[1] ==
             (given == nullptr ? "dram__bytes_read.sum+dram__bytes_write.sum"
                               : given);
}

}  // namespace

extern "C" {

// What was called since the last time; the test's own notes too.
void FakeCuptiNote(const char* what) { Note(what); }
const char* FakeCuptiTake() {
  static std::string taken;
  taken = std::exchange(calls, "");
  return taken.c_str();
}

CUptiResult cuptiGetVersion(uint32_t* version) {
  *version = 130102;
  return CUPTI_SUCCESS;
}
CUptiResult cuptiGetResultString(CUptiResult, const char** text) {
  *text = "THE_ERROR";
  return CUPTI_SUCCESS;
}
CUptiResult cuptiDeviceGetChipName(CUpti_Device_GetChipName_Params* p) {
  p->pChipName = "GH100";
  return CUPTI_SUCCESS;
}
CUptiResult cuptiProfilerInitialize(CUpti_Profiler_Initialize_Params*) {
  passes = 0;
  return Note("ProfilerInitialize");
}
CUptiResult cuptiProfilerDeInitialize(CUpti_Profiler_DeInitialize_Params*) {
  return Note("ProfilerDeInitialize");
}
CUptiResult cuptiProfilerGetCounterAvailability(
    CUpti_Profiler_GetCounterAvailability_Params* p) {
  if (p->pCounterAvailabilityImage == nullptr)
    p->counterAvailabilityImageSize = 7;
  return CUPTI_SUCCESS;
}
CUptiResult cuptiProfilerHostInitialize(
    CUpti_Profiler_Host_Initialize_Params* p) {
  Make(p->pHostObject);
  return std::string(p->pChipName) == "GH100" ? Note("HostInitialize")
                                              : CUPTI_ERROR_INVALID_CHIP_NAME;
}
CUptiResult cuptiProfilerHostDeinitialize(
    CUpti_Profiler_Host_Deinitialize_Params* p) {
  return NoteWith("HostDeinitialize", p->pHostObject);
}
CUptiResult cuptiProfilerHostConfigAddMetrics(
    CUpti_Profiler_Host_ConfigAddMetrics_Params* p) {
  return AreTheMetrics(p->ppMetricNames, p->numMetrics)
             ? CUPTI_SUCCESS
             : CUPTI_ERROR_INVALID_METRIC_NAME;
}
CUptiResult cuptiProfilerHostGetConfigImageSize(
    CUpti_Profiler_Host_GetConfigImageSize_Params* p) {
  p->configImageSize = 11;
  return CUPTI_SUCCESS;
}
CUptiResult cuptiProfilerHostGetConfigImage(
    CUpti_Profiler_Host_GetConfigImage_Params* p) {
  std::memset(p->pConfigImage, 1, p->configImageSize);
  return CUPTI_SUCCESS;
}
CUptiResult cuptiProfilerHostEvaluateToGpuValues(
    CUpti_Profiler_Host_EvaluateToGpuValues_Params* p) {
  if (!AreTheMetrics(p->ppMetricNames, p->numMetrics))
    return CUPTI_ERROR_INVALID_METRIC_NAME;
  const bool call = p->rangeIndex == 1;
  p->pMetricValues[0] = call ? 100 : 1000;
  p->pMetricValues[1] = call ? 30 : 12;
  return CUPTI_SUCCESS;
}
CUptiResult cuptiRangeProfilerEnable(CUpti_RangeProfiler_Enable_Params* p) {
  Make(p->pRangeProfilerObject);
  return Note("Enable");
}
CUptiResult cuptiRangeProfilerDisable(CUpti_RangeProfiler_Disable_Params* p) {
  return NoteWith("Disable", p->pRangeProfilerObject);
}
CUptiResult cuptiRangeProfilerGetCounterDataSize(
    CUpti_RangeProfiler_GetCounterDataSize_Params* p) {
  p->counterDataSize = 13;
  return CUPTI_SUCCESS;
}
CUptiResult cuptiRangeProfilerCounterDataImageInitialize(
    CUpti_RangeProfiler_CounterDataImage_Initialize_Params* p) {
  std::memset(p->pCounterData, 2, p->counterDataSize);
  return CUPTI_SUCCESS;
}
CUptiResult cuptiRangeProfilerSetConfig(
    CUpti_RangeProfiler_SetConfig_Params* p) {
  const bool right = p->pConfig[10] == 1 && p->pCounterDataImage[12] == 2 &&
                     p->configSize == 11 && p->counterDataImageSize == 13 &&
                     p->range == CUPTI_UserRange &&
                     p->replayMode == CUPTI_UserReplay;
  return right ? CUPTI_SUCCESS : CUPTI_ERROR_INVALID_PARAMETER;
}
CUptiResult cuptiRangeProfilerStart(CUpti_RangeProfiler_Start_Params* p) {
  return NoteWith("Start", p->pRangeProfilerObject);
}
CUptiResult cuptiRangeProfilerPushRange(
    CUpti_RangeProfiler_PushRange_Params* p) {
  return NoteWith((std::string("<") + p->pRangeName).c_str(),
                  p->pRangeProfilerObject);
}
CUptiResult cuptiRangeProfilerPopRange(CUpti_RangeProfiler_PopRange_Params* p) {
  return NoteWith(">", p->pRangeProfilerObject);
}
CUptiResult cuptiRangeProfilerStop(CUpti_RangeProfiler_Stop_Params* p) {
  const char* const wanted = std::getenv("FAKE_CUPTI_PASSES");
  p->isAllPassSubmitted =
      ++passes >= (wanted == nullptr ? 1 : std::atoi(wanted));
  return NoteWith("Stop", p->pRangeProfilerObject);
}
CUptiResult cuptiRangeProfilerDecodeData(
    CUpti_RangeProfiler_DecodeData_Params* p) {
  return NoteWith("Decode", p->pRangeProfilerObject);
}
CUptiResult cuptiRangeProfilerGetCounterDataInfo(
    CUpti_RangeProfiler_GetCounterDataInfo_Params* p) {
  p->numTotalRanges = 2;
  return CUPTI_SUCCESS;
}
// Not in the order in which they were made.
CUptiResult cuptiRangeProfilerCounterDataGetRangeInfo(
    CUpti_RangeProfiler_CounterData_GetRangeInfo_Params* p) {
  p->rangeName = p->rangeIndex == 1 ? "call" : "rest";
  return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityRegisterCallbacks(
    CUpti_BuffersCallbackRequestFunc request_buffer,
    CUpti_BuffersCallbackCompleteFunc complete_buffer) {
  request = request_buffer;
  complete = complete_buffer;
  return Note("Register");
}
CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  return kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL
             ? Note("EnableActivity")
             : CUPTI_ERROR_INVALID_KIND;
}
CUptiResult cuptiActivityDisable(CUpti_ActivityKind) {
  return Note("DisableActivity");
}
// Three kernels, not in their order, and a fill.
CUptiResult cuptiActivityFlushAll(uint32_t) {
  uint8_t* buffer = nullptr;
  size_t bytes = 0, most = 0;
  request(&buffer, &bytes, &most);
  auto* const records = reinterpret_cast<CUpti_ActivityKernel9*>(buffer);
  constexpr size_t kRecords = 4;
  if (bytes < kRecords * sizeof(*records)) return CUPTI_ERROR_OUT_OF_MEMORY;
  std::memset(buffer, 0, kRecords * sizeof(*records));
  const auto kernel = [&](int i, const char* name, uint64_t start,
                          uint64_t end) {
    records[i].kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
    records[i].name = name;
    records[i].start = start;
    records[i].end = end;
  };
  kernel(0, "_Z7a_blockv", 5000, 7000);
  kernel(1, "_Z6other_v", 100, 200);
  records[2].kind = CUPTI_ACTIVITY_KIND_MEMSET;
  kernel(3, "_Z7a_blockv", 1000, 1500);
  complete(nullptr, 0, buffer, bytes, kRecords * sizeof(*records));
  return Note("FlushActivity");
}
CUptiResult cuptiActivityGetNextRecord(uint8_t* buffer, size_t bytes,
                                       CUpti_Activity** record) {
  auto* next = reinterpret_cast<uint8_t*>(*record);
  next = next == nullptr ? buffer : next + sizeof(CUpti_ActivityKernel9);
  if (next >= buffer + bytes) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = reinterpret_cast<CUpti_Activity*>(next);
  return CUPTI_SUCCESS;
}

}  // extern "C"
