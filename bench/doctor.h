// SPDX-License-Identifier: Apache-2.0
//
// --doctor: what on this machine would hurt a measurement, and how to mend it.
// It reads and prints; it changes nothing.
#pragma once

#include <string>
#include <vector>

#include "fixtures/host.h"
#include "fixtures/nvml.h"

namespace seqmark {

struct Finding {
  bool hurts = true;  // false: worth knowing, no more
  std::string what;
  std::string mend;  // a command or what to do; empty: nothing can be done here
};

std::vector<Finding> Diagnose(const HostState& host);
std::vector<Finding> Diagnose(const GpuState& gpu);

// Prints all findings for the machine below `root` and its GPUs; 1 if any
// hurts.
int Doctor(const std::string& root, const char* nvml_library);

}  // namespace seqmark
