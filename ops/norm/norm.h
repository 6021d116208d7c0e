// SPDX-License-Identifier: Apache-2.0
//
// What RmsNorm and LayerNorm share on the host: the residual stream they may
// update and the rows that they walk over.
//
//   u = x                      or  u = x + residual, and residual_out = u
//
// residual_out may be the same memory as residual. Both are of the row's dtype,
// or f32 whatever it is (residual_f32), as models keep sums over many layers.
#pragma once

#include "fixtures/op.h"

namespace seqmark {

struct NormAxes : ProblemAxes {
  int64_t width = 0;
  bool residual = false;
  bool residual_f32 = false;
  float epsilon = 1e-5f;

  int64_t rows() const { return batch * seqlen; }
  DType residual_dtype() const { return residual_f32 ? DType::kF32 : dtype; }
};

// Row `row` of batch * seqlen of a (batch, seqlen, width) tensor with any
// strides of axes 0 and 1; null where there is none.
template <class T>
T* RowOf(const Tensor& t, int64_t row) {
  if (!t) return nullptr;
  const int64_t seqlen = t.dims[1];
  return t.as<T>() + row / seqlen * t.strides[0] + row % seqlen * t.strides[1];
}

// Whether the rows of a (batch, seqlen, width) tensor, or of none, follow each
// other without a gap.
inline bool HasAdjacentRows(const Tensor& t) {
  if (!t) return true;
  return (t.dims[1] == 1 || t.strides[1] == t.dims[2]) &&
         (t.dims[0] == 1 || t.strides[0] == t.dims[1] * t.dims[2]);
}

}  // namespace seqmark
