// SPDX-License-Identifier: Apache-2.0
#include "models/weights.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "fixtures/inputs.h"

namespace seqmark {
namespace {

// Axes of 1 count for nothing.
Dims Squeezed(const Dims& dims) {
  Dims squeezed;
  for (int64_t extent : dims)
    if (extent != 1) squeezed.push_back(extent);
  return squeezed;
}

double Transformed(Transform transform, double x) {
  switch (transform) {
    case Transform::kPlain:
      return x;
    case Transform::kNegExp:
      return -std::exp(x);
    case Transform::kPlusOne:
      return 1 + x;
  }
  return x;
}

// Appends a source's rows to `host`, as elements of `dtype`, from `element` on.
absl::Status Append(const WeightSource& source, const Checkpoint& checkpoint,
                    DType dtype, int64_t& element,
                    std::vector<std::byte>& host) {
  const auto stored = checkpoint.Find(source.name);
  if (!stored.ok()) return stored.status();
  if (!stored->dtype)
    return absl::InvalidArgumentError(
        absl::StrCat(stored->file, ": tensor ", source.name, " is ",
                     stored->dtype_name, "; weights are BF16, F16 or F32"));
  if (Squeezed(stored->dims) != Squeezed(source.dims))
    return absl::InvalidArgumentError(
        absl::StrCat(stored->file, ": tensor ", source.name, " is (",
                     absl::StrJoin(stored->dims, ", "), "); the config needs (",
                     absl::StrJoin(source.dims, ", "), ")"));
  const int64_t row = NumElements(source.dims) / source.dims[0];
  const int64_t first = source.row_begin * row, count = source.rows * row;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i)
    StoreElement(dtype, host.data(), element + i,
                 source.scale *
                     Transformed(source.transform,
                                 LoadElement(*stored->dtype,
                                             stored->bytes.data(), first + i)));
  element += count;
  return absl::OkStatus();
}

}  // namespace

Tensor Weights::Find(absl::string_view name) const {
  const auto it = tensors_.find(std::string(name));
  return it == tensors_.end() ? Tensor() : it->second;
}

Weights::Weights(const ModelConfig& config, DType dtype, Layout layout) {
  for (const WeightSpec& spec : WeightList(config, dtype))
    tensors_[spec.name] = layout.Place(spec.dtype, spec.dims);
  bytes_ = layout.bytes();
}

Weights Weights::Placed(const ModelConfig& config, DType dtype) {
  return Weights(config, dtype, Layout());
}

absl::StatusOr<Weights> Weights::Random(const ModelConfig& config, DType dtype,
                                        uint64_t seed, void* memory,
                                        Device& device) {
  Weights weights(config, dtype, Layout(memory));
  for (const WeightSpec& spec : WeightList(config, dtype))
    if (absl::Status s = Fill({spec.name, spec.role, spec.dtype, spec.dims},
                              weights.Find(spec.name), seed, device);
        !s.ok())
      return s;
  return weights;
}

absl::StatusOr<Weights> Weights::Load(const ModelConfig& config, DType dtype,
                                      const Checkpoint& checkpoint,
                                      void* memory, Device& device) {
  if (config.format == CheckpointFormat::kNone)
    return absl::InvalidArgumentError(
        absl::StrCat(config.name, " has no checkpoint format"));
  Weights weights(config, dtype, Layout(memory));
  for (const WeightSpec& spec : WeightList(config, dtype)) {
    const Tensor tensor = weights.Find(spec.name);
    std::vector<std::byte> host(tensor.bytes());
    int64_t element = 0;
    for (const WeightSource& source : spec.sources)
      if (absl::Status s =
              Append(source, checkpoint, spec.dtype, element, host);
          !s.ok())
        return s;
    if (element != tensor.size())
      return absl::InternalError(absl::StrCat(spec.name, ": its sources have ",
                                              element, " of its elements"));
    if (absl::Status s =
            device.CopyToDevice(tensor.data, host.data(), host.size());
        !s.ok())
      return s;
  }
  return weights;
}

}  // namespace seqmark
