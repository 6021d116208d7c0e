// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm on the CPU: threads over rows, one row a thread, two passes over a
// row (each group of it) that stays in L1 between them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rmsnorm/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
#include "ops/norm/row_sum-inl.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "ops/rmsnorm/rmsnorm.h"
#include "ops/thread_rows.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// What is left of the norm before: a factor of row `row`.
float RowScale(const RmsNorm::Problem& p, const RmsNorm::Args& a, int64_t row) {
  const F32Tag d;
  const float* const squares = RowOf<float>(a.squares, row);
  if (squares == nullptr) return 1;
  const float sum = RowSum(d, p.scale_parts, [&](int64_t i, int64_t n) {
    return LoadF32N(d, squares + i, n);
  });
  return 1.0f /
         std::sqrt(sum / static_cast<float>(p.scale_width) + p.scale_epsilon);
}

// `width` elements that share a mean, those of x times `factor`. R is the
// residual's type.
template <class T, class R>
void RmsNormGroup(const RmsNorm::Problem& p, int64_t width, float factor,
                  const T* HWY_RESTRICT x, const R* residual,
                  const T* HWY_RESTRICT gate, const T* HWY_RESTRICT weight,
                  T* HWY_RESTRICT y, R* residual_out, float* HWY_RESTRICT u) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Rereading x is cheaper than keeping it in f32.
  const bool keep =
      residual != nullptr || p.gate == NormGate::kBefore || p.scale_parts > 0;
  const auto first_scale = hn::Set(d, factor);
  const float squares = RowSum(d, width, [&](int64_t i, int64_t n) {
    auto v = LoadF32N(d, x + i, n);
    if (p.scale_parts > 0) v = hn::Mul(v, first_scale);
    v = AddResidualTo(d, v, residual, residual_out, i, n);
    if (p.gate == NormGate::kBefore)
      v = hn::Mul(v, Silu(d, LoadF32N(d, gate + i, n)));
    if (keep) StoreF32N(d, v, u + i, n);
    return hn::Mul(v, v);
  });
  const auto scale = hn::Set(
      d, 1.0f / std::sqrt(squares / static_cast<float>(width) + p.epsilon));
  ForEachVector(width, lanes, [&](int64_t i, int64_t n) {
    const auto kept = keep ? LoadF32N(d, u + i, n) : LoadF32N(d, x + i, n);
    auto v = hn::Mul(hn::Mul(kept, scale), LoadF32N(d, weight + i, n));
    if (p.gate == NormGate::kAfter)
      v = hn::Mul(v, Silu(d, LoadF32N(d, gate + i, n)));
    StoreF32N(d, v, y + i, n);
  });
}

template <class T, class R>
void RmsNormRows(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                 const ThreadRows& scratch) {
  const int64_t width = p.group_width();
#pragma omp parallel for schedule(static) if (p.rows() > 1)
  for (int64_t row = 0; row < p.rows(); ++row) {
    float* const u = scratch.of(omp_get_thread_num());
    const float factor = RowScale(p, a, row);
    for (int64_t first = 0; first < p.width; first += width) {
      const auto at = [&](auto tag, const Tensor& t) {
        auto* const start = RowOf<decltype(tag)>(t, row);
        return start == nullptr ? nullptr : start + first;
      };
      RmsNormGroup<T, R>(p, width, factor, at(T(), a.x), at(R(), a.residual),
                         at(T(), a.gate), a.weight.as<T>() + first,
                         at(T(), a.y), at(R(), a.residual_out), u);
    }
  }
}

void RmsNormCall(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                 const ThreadRows& scratch) {
  DispatchDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    p.residual_f32 ? RmsNormRows<T, float>(p, a, scratch)
                   : RmsNormRows<T, T>(p, a, scratch);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(RmsNormCall);
namespace {

absl::StatusOr<Launch> Plan(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                            Device& device) {
  auto scratch = ThreadRows::Allocate(p.group_width(), device);
  if (!scratch.ok()) return scratch.status();
  return [p, a, scratch = *std::move(scratch)](Stream) {
    HWY_DYNAMIC_DISPATCH(RmsNormCall)(p, a, scratch);
    return absl::OkStatus();
  };
}

const bool registered =
    AddProvider<RmsNorm>({.name = "highway",
                          .device = DeviceKind::kCpu,
                          .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                          .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
