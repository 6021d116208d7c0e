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
#include "ops/thread_rows.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// R is the residual's type.
template <class T, class R>
void LayerNormRow(const LayerNorm::Problem& p, const T* HWY_RESTRICT x,
                  const R* residual, const T* HWY_RESTRICT weight,
                  const T* HWY_RESTRICT bias, T* HWY_RESTRICT y,
                  R* residual_out, float* HWY_RESTRICT u) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto width = static_cast<float>(p.width);
  // Rereading x is cheaper than keeping it in f32.
  const bool keep = residual != nullptr;
  const auto mean = hn::Set(d, RowSum(d, p.width, [&](int64_t i, int64_t n) {
                                 const auto v = AddResidual(d, x, residual,
                                                            residual_out, i, n);
                                 if (keep) StoreF32N(d, v, u + i, n);
                                 return v;
                               }) / width);
  const auto deviation = [&](int64_t i, int64_t n) {
    return hn::Sub(keep ? LoadF32N(d, u + i, n) : LoadF32N(d, x + i, n), mean);
  };
  const float squares = RowSum(d, p.width, [&](int64_t i, int64_t n) {
    const auto v = deviation(i, n);
    return hn::Mul(v, v);
  });
  const auto scale = hn::Set(d, 1.0f / std::sqrt(squares / width + p.epsilon));
  ForEachVector(p.width, lanes, [&](int64_t i, int64_t n) {
    const auto v =
        hn::MulAdd(hn::Mul(deviation(i, n), scale), LoadF32N(d, weight + i, n),
                   LoadF32N(d, bias + i, n));
    StoreF32N(d, v, y + i, n);
  });
}

template <class T, class R>
void LayerNormRows(const LayerNorm::Problem& p, const LayerNorm::Args& a,
                   const ThreadRows& scratch) {
#pragma omp parallel for schedule(static) if (p.rows() > 1)
  for (int64_t row = 0; row < p.rows(); ++row)
    LayerNormRow<T, R>(p, RowOf<T>(a.x, row), RowOf<R>(a.residual, row),
                       a.weight.as<T>(), a.bias.as<T>(), RowOf<T>(a.y, row),
                       RowOf<R>(a.residual_out, row),
                       scratch.of(omp_get_thread_num()));
}

void LayerNormCall(const LayerNorm::Problem& p, const LayerNorm::Args& a,
                   const ThreadRows& scratch) {
  DispatchDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    p.residual_f32 ? LayerNormRows<T, float>(p, a, scratch)
                   : LayerNormRows<T, T>(p, a, scratch);
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
                Device& device) -> absl::StatusOr<Launch> {
       auto scratch = ThreadRows::Allocate(p.width, device);
       if (!scratch.ok()) return scratch.status();
       return [p, a, scratch = *std::move(scratch)](Stream) {
         HWY_DYNAMIC_DISPATCH(LayerNormCall)(p, a, scratch);
         return absl::OkStatus();
       };
     }});

}  // namespace
}  // namespace seqmark
#endif
