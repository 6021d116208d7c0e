// SPDX-License-Identifier: Apache-2.0
//
// Another device's memory, with a count of the allocations.
#pragma once

#include "fixtures/forwarding_device.h"

namespace seqmark {

class CountingDevice final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  int allocations = 0;

  absl::StatusOr<Buffer> Allocate(size_t bytes,
                                  MemoryClass memory_class) override {
    ++allocations;
    return ForwardingDevice::Allocate(bytes, memory_class);
  }
};

}  // namespace seqmark
