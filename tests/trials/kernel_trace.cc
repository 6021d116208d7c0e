// SPDX-License-Identifier: Apache-2.0
//
// A library that the CUDA driver loads into a program (CUDA_INJECTION64_PATH)
// and that writes what CUPTI says of each kernel, copy and fill, in the order
// they started, to the file in SEQMARK_KERNEL_TRACE:
//
//   <start ns> <end ns> <name, mangled; or memset, memcpy>
//
// CUPTI's activity records are the driver's own time stamps of a kernel's start
// and end: an opinion on a kernel's time that owes nothing to events, and needs
// no privileges. Kernels are not serialised for it.
#include <cupti.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Record {
  uint64_t start, end;
  std::string name;
};

std::mutex mutex;
std::vector<Record> records;

constexpr size_t kBufferBytes = size_t{8} << 20;
constexpr size_t kAlignment = 8;

void CUPTIAPI GiveBuffer(uint8_t** buffer, size_t* bytes, size_t* most) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kBufferBytes));
  *bytes = *buffer != nullptr ? kBufferBytes : 0;
  *most = 0;
}

void CUPTIAPI TakeBuffer(CUcontext, uint32_t, uint8_t* buffer, size_t,
                         size_t bytes) {
  const std::lock_guard lock(mutex);
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, bytes, &record) == CUPTI_SUCCESS) {
    switch (record->kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
      case CUPTI_ACTIVITY_KIND_KERNEL: {
        const auto* k = reinterpret_cast<CUpti_ActivityKernel10*>(record);
        records.push_back({k->start, k->end, k->name});
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMSET: {
        const auto* m = reinterpret_cast<CUpti_ActivityMemset4*>(record);
        records.push_back({m->start, m->end, "memset"});
        break;
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY: {
        const auto* m = reinterpret_cast<CUpti_ActivityMemcpy6*>(record);
        records.push_back({m->start, m->end, "memcpy"});
        break;
      }
      default:
        break;
    }
  }
  std::free(buffer);
}

void Write() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard lock(mutex);
  const char* path = std::getenv("SEQMARK_KERNEL_TRACE");
  if (records.empty() || path == nullptr) return;  // a supervisor, say
  std::sort(records.begin(), records.end(),
            [](const Record& a, const Record& b) { return a.start < b.start; });
  std::FILE* file = std::fopen(path, "w");
  if (file == nullptr) {
    std::perror(path);
    return;
  }
  for (const Record& record : records)
    std::fprintf(
        file, "%llu %llu %s\n", static_cast<unsigned long long>(record.start),
        static_cast<unsigned long long>(record.end), record.name.c_str());
  std::fclose(file);
}

bool Enable(CUpti_ActivityKind kind) {
  const CUptiResult result = cuptiActivityEnable(kind);
  if (result == CUPTI_SUCCESS) return true;
  const char* what = "?";
  cuptiGetResultString(result, &what);
  std::fprintf(stderr, "kernel_trace: cuptiActivityEnable(%d): %s\n", kind,
               what);
  return false;
}

}  // namespace

extern "C" int InitializeInjection() {
  if (cuptiActivityRegisterCallbacks(GiveBuffer, TakeBuffer) != CUPTI_SUCCESS)
    return 0;
  if (!Enable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) ||
      !Enable(CUPTI_ACTIVITY_KIND_MEMSET) ||
      !Enable(CUPTI_ACTIVITY_KIND_MEMCPY))
    return 0;
  std::atexit(Write);
  return 1;
}
