// SPDX-License-Identifier: Apache-2.0
//
// Another user of the GPU: takes all of its memory but so many bytes, says so,
// and keeps it until its input ends.
//
//   seqmark_gpu_hog 3221225472
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "fixtures/device.h"

int main(int argc, char** argv) {
  const size_t leave = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 0;
  const auto device = seqmark::MakeCudaDevice();
  if (!device.ok()) {
    std::puts("none");
    return 0;
  }
  const auto free = (*device)->FreeBytes();
  if (!free.ok() || *free <= leave) {
    std::puts("full already");
    return 1;
  }
  const auto buffer = (*device)->Allocate(*free - leave);
  std::puts(buffer.ok() ? "taken" : "refused");
  std::fflush(stdout);
  std::cin.get();
  return buffer.ok() ? 0 : 1;
}
