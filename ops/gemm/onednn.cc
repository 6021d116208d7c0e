// SPDX-License-Identifier: Apache-2.0
//
// The linear layer on the CPU by oneDNN: AMX tiles or dot-product
// instructions where the CPU has them. The weights are packed in the plan, as
// a model that keeps its weights would: twice the rate at one row, a tenth
// more at many.
#include <vector>

#include "fixtures/op_fixture.h"
#include "ops/gemm/gemm.h"
#include "ops/onednn_matmul.h"

namespace seqmark {
namespace {

absl::StatusOr<Launch> Plan(const Gemm::Problem& p, const Gemm::Args& a,
                            Device& device) {
  const auto x_stride = Gemm::RowStride(a.x), y_stride = Gemm::RowStride(a.y);
  if (!x_stride.ok()) return x_stride.status();
  if (!y_stride.ok()) return y_stride.status();
  auto linear = DnnlLinear::Make(p.rows(), a.x, *x_stride, a.weight, a.bias,
                                 a.y, *y_stride, device);
  if (!linear.ok()) return linear.status();
  return [linear = *std::move(linear)](Stream) { return linear->Run(); };
}

// What this version of the library has on this processor: bf16 needs AVX-512,
// f16 version 3.
std::vector<DType> DTypes() {
  std::vector<DType> dtypes = {DType::kBF16, DType::kF16, DType::kF32};
  std::erase_if(dtypes, [](DType t) { return !DnnlHasMatmul(t); });
  return dtypes;
}

const bool registered = AddProvider<Gemm>({.name = "onednn",
                                           .device = DeviceKind::kCpu,
                                           .dtypes = DTypes(),
                                           .plan = Plan});

}  // namespace
}  // namespace seqmark
