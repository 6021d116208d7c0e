// SPDX-License-Identifier: Apache-2.0
//
// The CPU's: its convolution and its scan, then the gate and the norm's part,
// threads over tokens.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/mamba2_inner/composed.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
#include "ops/norm/row_sum-inl.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "ops/mamba2_inner/shared_plans.h"
#include "ops/norm/norm.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

template <class T>
void GateRows(const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a) {
  const F32Tag d;
  const int64_t width = p.part_width();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < p.batch * p.seqlen; ++row) {
    T* const y = RowOf<T>(a.y, row);
    const T* const z = RowOf<T>(a.z, row);
    const T* const weight = a.norm_weight.as<T>();
    float* const squares = RowOf<float>(a.squares, row);
    for (int64_t part = 0; part < p.parts(); ++part) {
      const int64_t first = part * width;
      squares[part] = RowSum(d, width, [&](int64_t i, int64_t n) {
        auto v = LoadF32N(d, y + first + i, n);
        if (z != nullptr)
          v = hn::Mul(v, Silu(d, LoadF32N(d, z + first + i, n)));
        StoreF32N(d, hn::Mul(v, LoadF32N(d, weight + first + i, n)),
                  y + first + i, n);
        return hn::Mul(v, v);
      });
    }
  }
}

void GateCall(const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a) {
  DispatchDType(p.dtype, [&](auto tag) { GateRows<decltype(tag)>(p, a); });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(GateCall);
namespace {

absl::StatusOr<Launch> Gate(const Mamba2Inner::Problem& p,
                            const Mamba2Inner::Args& a, Device&) {
  return [p, a](Stream) {
    HWY_DYNAMIC_DISPATCH(GateCall)(p, a);
    return absl::OkStatus();
  };
}

const bool registered = AddProvider<Mamba2Inner>(
    {.name = "composed",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a,
                Device& device) { return PlanComposed(p, a, device, Gate); },
     .supports = HoldsItsOutput});

}  // namespace
}  // namespace seqmark
#endif
