// SPDX-License-Identifier: Apache-2.0
//
// LayerNorm on the CPU: threads over rows, one row a thread, three passes over
// a row that stays in L1 between them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/layernorm/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
#include "ops/norm/row_sum-inl.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "ops/layernorm/layernorm.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

template <class T>
void LayerNormRow(const LayerNorm::Problem& p, const T* HWY_RESTRICT x,
                  const T* HWY_RESTRICT weight, const T* HWY_RESTRICT bias,
                  T* HWY_RESTRICT y) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto width = static_cast<float>(p.width);
  const auto mean = hn::Set(d, RowSum(d, p.width, [&](int64_t i, int64_t n) {
                                 return LoadF32N(d, x + i, n);
                               }) / width);
  const float squares = RowSum(d, p.width, [&](int64_t i, int64_t n) {
    const auto deviation = hn::Sub(LoadF32N(d, x + i, n), mean);
    return hn::Mul(deviation, deviation);
  });
  const auto scale = hn::Set(d, 1.0f / std::sqrt(squares / width + p.epsilon));
  ForEachVector(p.width, lanes, [&](int64_t i, int64_t n) {
    const auto deviation = hn::Sub(LoadF32N(d, x + i, n), mean);
    const auto v =
        hn::MulAdd(hn::Mul(deviation, scale), LoadF32N(d, weight + i, n),
                   LoadF32N(d, bias + i, n));
    StoreF32N(d, v, y + i, n);
  });
}

void LayerNormCall(const LayerNorm::Problem& p, const LayerNorm::Args& a) {
  DispatchDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
#pragma omp parallel for schedule(static) if (p.rows() > 1)
    for (int64_t row = 0; row < p.rows(); ++row)
      LayerNormRow<T>(p, a.x.as<T>() + row * p.width, a.weight.as<T>(),
                      a.bias.as<T>(), a.y.as<T>() + row * p.width);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(LayerNormCall);
namespace {

const bool registered = AddProvider<LayerNorm>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const LayerNorm::Problem& p, const LayerNorm::Args& a,
                Device&) -> absl::StatusOr<Launch> {
       return [p, a](Stream) {
         HWY_DYNAMIC_DISPATCH(LayerNormCall)(p, a);
         return absl::OkStatus();
       };
     }});

}  // namespace
}  // namespace seqmark
#endif
