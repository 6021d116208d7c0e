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
  const auto rows = [](const Tensor& t) -> absl::StatusOr<DnnlLinear::Rows> {
    if (!t) return DnnlLinear::Rows{};
    const auto stride = Gemm::RowStride(t);
    if (!stride.ok()) return stride.status();
    return DnnlLinear::Rows{t, *stride};
  };
  const auto x = rows(a.x), addend = rows(a.addend), y = rows(a.y);
  for (const auto* operand : {&x, &addend, &y})
    if (!operand->ok()) return operand->status();
  auto linear =
      DnnlLinear::Make(p.rows(), *x, a.weight, a.bias, *addend, *y, device);
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
