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
  auto linear = DnnlLinear::Make(p.rows(), a.x, a.weight, a.bias, a.y, device);
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
