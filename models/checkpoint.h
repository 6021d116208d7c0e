// SPDX-License-Identifier: Apache-2.0
//
// The weights of a model as `save_pretrained` leaves them, mapped into memory:
// nothing is read before it is used.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "fixtures/dtype.h"
#include "fixtures/tensor.h"

namespace seqmark {

struct StoredTensor {
  std::string name;
  std::string file;
  std::string dtype_name;      // as in the file: "BF16", "I64", ...
  std::optional<DType> dtype;  // where the suite has it: BF16, F16, F32, F64
  Dims dims;                   // empty: a scalar
  // NumElements(dims) elements, little-endian, aligned to one, row-major. Live
  // as long as the Checkpoint.
  absl::Span<const std::byte> bytes;
};

class MappedFile;

class Checkpoint {
 public:
  // A safetensors file, or a folder with model.safetensors or with
  // model.safetensors.index.json and the files that it names. Every header is
  // checked here; an error names the file, and the tensor where it is one's.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& path);
  ~Checkpoint();

  // NotFoundError if there is none of that name.
  absl::StatusOr<StoredTensor> Find(absl::string_view name) const;
  std::vector<std::string> names() const;  // sorted

 private:
  explicit Checkpoint(std::string path);
  absl::Status AddFile(const std::string& path,
                       std::map<std::string, StoredTensor>& tensors);
  absl::Status AddShards(const std::string& folder, const std::string& index);

  std::string path_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace seqmark
