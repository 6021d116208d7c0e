// SPDX-License-Identifier: Apache-2.0
//
// A library with NVML's interface and one GPU, whose answers come from the
// environment: FAKE_NVML="function=value function=value"; functions that are
// not named are not supported. For tests of what is asked and made of it.
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kSuccess = 0, kNotSupported = 3;
int gpu;

bool Answer(const char* function, unsigned long long& value) {
  const char* const all = std::getenv("FAKE_NVML");
  const std::string key = std::string(function) + "=";
  const char* const found =
      all == nullptr ? nullptr : std::strstr(all, key.c_str());
  if (found == nullptr) return false;
  value = std::strtoull(found + key.size(), nullptr, 0);
  return true;
}
template <class T>
int Give(const char* function, T* to) {
  unsigned long long value = 0;
  if (!Answer(function, value)) return kNotSupported;
  *to = static_cast<T>(value);
  return kSuccess;
}

}  // namespace

#define FAKE_GET(name, type) \
  int nvml##name(void*, type* to) { return Give(#name, to); }
#define FAKE_GET_OF(name) \
  int nvml##name(void*, int, unsigned* to) { return Give(#name, to); }
#define FAKE_MODE(name)                                         \
  int nvml##name(void*, unsigned* current, unsigned* pending) { \
    *pending = 0;                                               \
    return Give(#name, current);                                \
  }

extern "C" {

int nvmlInit_v2() {
  unsigned long long error = kSuccess;
  Answer("Init", error);
  return static_cast<int>(error);
}
int nvmlShutdown() { return kSuccess; }
const char* nvmlErrorString(int error) {
  return error == 18 ? "Driver/library version mismatch" : "an error";
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::strncpy(text, "999.1", size);
  return kSuccess;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 1;
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned, void** device) {
  *device = &gpu;
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char*, void** device) {
  *device = &gpu;
  return kSuccess;
}
int nvmlDeviceGetName(void*, char* text, unsigned size) {
  std::strncpy(text, "Fake GPU", size);
  return kSuccess;
}
FAKE_GET(DeviceGetEnforcedPowerLimit, unsigned)
FAKE_GET(DeviceGetPowerManagementDefaultLimit, unsigned)
FAKE_GET(DeviceGetPowerUsage, unsigned)
FAKE_GET(DeviceGetPersistenceMode, unsigned)
FAKE_GET(DeviceGetComputeMode, unsigned)
FAKE_GET(DeviceGetCurrPcieLinkWidth, unsigned)
FAKE_GET(DeviceGetMaxPcieLinkWidth, unsigned)
FAKE_GET(DeviceGetCurrentClocksThrottleReasons, unsigned long long)
FAKE_GET(DeviceGetTotalEnergyConsumption, unsigned long long)
FAKE_GET_OF(DeviceGetClockInfo)
FAKE_GET_OF(DeviceGetMaxClockInfo)
FAKE_GET_OF(DeviceGetApplicationsClock)
FAKE_GET_OF(DeviceGetDefaultApplicationsClock)
FAKE_GET_OF(DeviceGetTemperature)
FAKE_MODE(DeviceGetEccMode)
FAKE_MODE(DeviceGetMigMode)

struct Process {
  unsigned pid;
  unsigned long long bytes;
  unsigned instances[2];
};
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count,
                                            Process* infos) {
  unsigned long long processes = 0;
  if (!Answer("Processes", processes)) return kNotSupported;
  *count = static_cast<unsigned>(processes);
  for (unsigned i = 0; i < *count; ++i) infos[i] = {100 + i, 1 << 20, {0, 0}};
  return kSuccess;
}
struct Violation {
  unsigned long long reference, nanoseconds;
};
int nvmlDeviceGetViolationStatus(void*, int policy, Violation* to) {
  to->reference = 0;
  return Give(policy == 0 ? "PowerViolation" : "ThermalViolation",
              &to->nanoseconds);
}

}  // extern "C"
