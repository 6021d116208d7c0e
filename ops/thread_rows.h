// SPDX-License-Identifier: Apache-2.0
//
// Scratch of CPU providers.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "fixtures/device.h"

namespace seqmark {

// An f32 row for each thread of a CPU, on cache lines of its own.
class ThreadRows {
 public:
  static absl::StatusOr<ThreadRows> Allocate(int64_t width, Device& device) {
    ThreadRows rows;
    rows.stride_ = (width + 31) / 16 * 16;
    auto buffer =
        device.Allocate(device.threads() * rows.stride_ * sizeof(float),
                        MemoryClass::kWorkspace);
    if (!buffer.ok()) return buffer.status();
    rows.buffer_ = std::make_shared<Buffer>(*std::move(buffer));
    return rows;
  }
  float* of(int thread) const {
    return static_cast<float*>(buffer_->data()) + thread * stride_;
  }

 private:
  std::shared_ptr<Buffer> buffer_;
  int64_t stride_ = 0;
};

}  // namespace seqmark
