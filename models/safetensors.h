// SPDX-License-Identifier: Apache-2.0
//
// The header of a safetensors file, and the index of a checkpoint in several
// such files, from bytes that nobody vouches for. The format
// (github.com/huggingface/safetensors): eight bytes, little-endian, the length
// n of the header; n bytes of JSON, {"<tensor>": {"dtype", "shape",
// "data_offsets": [begin, end]}, ..., "__metadata__": {string: string}}; then
// the data that the offsets count in, every byte of it in exactly one tensor.
//
// Stricter than the format in one point: a tensor starts at a multiple of its
// element's size in the file, so that its bytes can be read where they are
// mapped. Every writer since 2022 does so.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "fixtures/dtype.h"
#include "fixtures/tensor.h"

namespace seqmark {

// The format's own cap on a header; the same here for an index.
inline constexpr size_t kMaxHeaderBytes = 100'000'000;
inline constexpr size_t kMaxRank = 16;

struct HeaderTensor {
  std::string name;
  std::string dtype_name;      // as in the file: "BF16", "I64", ...
  std::optional<DType> dtype;  // where the suite has it: BF16, F16, F32, F64
  Dims dims;                   // empty: a scalar
  size_t begin = 0;            // bytes of the file, not of its data
  size_t end = 0;
};

// By place in the file. An InvalidArgumentError names the tensor; naming the
// file is the caller's part.
using ParsedHeader = std::vector<HeaderTensor>;
absl::StatusOr<ParsedHeader> ParseSafetensorsHeader(
    absl::Span<const std::byte> file);

// {"weight_map": {"<tensor>": "<file beside the index>"}}: tensor to file.
using ParsedIndex = std::map<std::string, std::string>;
absl::StatusOr<ParsedIndex> ParseSafetensorsIndex(absl::string_view text);

// A name from a file, quoted, its odd characters escaped, cut if it is long.
std::string Quoted(absl::string_view name);

}  // namespace seqmark
