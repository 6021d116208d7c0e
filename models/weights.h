// SPDX-License-Identifier: Apache-2.0
//
// A model's weights on a device: random by seed, or read from a checkpoint.
// All lie one after the other in memory that the model has.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "fixtures/device.h"
#include "models/checkpoint.h"
#include "models/config.h"
#include "models/layout.h"
#include "models/weight_list.h"

namespace seqmark {

class Weights {
 public:
  Weights() = default;
  // Where they would lie, with no memory behind: what a plan that measures or
  // counts reads.
  static Weights Placed(const ModelConfig& config, DType dtype);
  // `memory` is on the device and as large as Placed says.
  static absl::StatusOr<Weights> Random(const ModelConfig& config, DType dtype,
                                        uint64_t seed, void* memory,
                                        Device& device);
  // Elements are converted to the weight's dtype; an error names the tensor
  // that is missing or has another shape.
  static absl::StatusOr<Weights> Load(const ModelConfig& config, DType dtype,
                                      const Checkpoint& checkpoint,
                                      void* memory, Device& device);

  // The weight of that canonical name; none where the model has none.
  Tensor Find(absl::string_view name) const;
  size_t bytes() const { return bytes_; }

 private:
  Weights(const ModelConfig& config, DType dtype, Layout layout);

  std::map<std::string, Tensor> tensors_;
  size_t bytes_ = 0;
};

}  // namespace seqmark
