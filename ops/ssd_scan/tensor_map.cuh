// SPDX-License-Identifier: Apache-2.0
//
// How bulk copies of sm_90 see a tensor of 16-bit elements.
#pragma once

#include <cuda.h>

#include <span>

#include "absl/status/statusor.h"
#include "fixtures/cuda.h"

namespace seqmark::ssd {

// Extents from the innermost, strides in elements from the second on, and the
// box of one copy, whose rows are 128 bytes and permuted as Swizzled does.
template <class T>
absl::StatusOr<CUtensorMap> MakeTensorMap(const T* data,
                                          std::span<const int64_t> extents,
                                          std::span<const int64_t> strides,
                                          std::span<const uint32_t> box) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                     cudaEnableDefault, &result);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  if (encode == nullptr)
    return absl::UnimplementedError("the driver makes no tensor maps");
  cuuint64_t dims[5], bytes[5];
  cuuint32_t sizes[5], steps[5];
  for (size_t i = 0; i < extents.size(); ++i) {
    dims[i] = extents[i];
    sizes[i] = box[i];
    steps[i] = 1;
    if (i > 0) bytes[i - 1] = strides[i - 1] * sizeof(T);
  }
  CUtensorMap map;
  const CUresult result =
      encode(&map,
             std::is_same_v<T, __half> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             static_cast<cuuint32_t>(extents.size()), const_cast<T*>(data),
             dims, bytes, sizes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    return absl::InternalError(
        absl::StrCat("cuTensorMapEncodeTiled: ", static_cast<int>(result)));
  return map;
}

}  // namespace seqmark::ssd
