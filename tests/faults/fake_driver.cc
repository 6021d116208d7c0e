// SPDX-License-Identifier: Apache-2.0
//
// A CUDA driver of years ago: it says its version, and has nothing that the
// runtime needs.
#include <cstring>

namespace {

constexpr int kSuccess = 0, kNotFound = 500;

template <class Function>
void* Address(Function* function) {
  return reinterpret_cast<void*>(function);
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int* version) {
  *version = 11080;
  return kSuccess;
}
// Called with a fifth argument too by those that know a later one. Of no name:
// whether it gives addresses at all.
int cuGetProcAddress(const char* name, void** function, int,
                     unsigned long long) {
  *function = nullptr;
  if (*name == 0 || std::strcmp(name, "cuInit") == 0)
    *function = Address(cuInit);
  if (std::strcmp(name, "cuGetProcAddress") == 0)
    *function = Address(cuGetProcAddress);
  if (std::strcmp(name, "cuDriverGetVersion") == 0)
    *function = Address(cuDriverGetVersion);
  return *function == nullptr ? kNotFound : kSuccess;
}

}  // extern "C"
