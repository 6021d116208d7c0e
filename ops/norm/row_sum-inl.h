// SPDX-License-Identifier: Apache-2.0
//
// What norms on the CPU start from: the residual added, and the sum over a row.
// Include as fixtures/simd-inl.h is.
#if defined(SEQMARK_OPS_NORM_ROW_SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQMARK_OPS_NORM_ROW_SUM_INL_H_
#undef SEQMARK_OPS_NORM_ROW_SUM_INL_H_
#else
#define SEQMARK_OPS_NORM_ROW_SUM_INL_H_
#endif

#include "fixtures/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// The sum of term(i, n), n terms from i whose other lanes are ignored, over
// [0, count). Four sums at once: one would wait for each addition.
template <class Term>
HWY_INLINE float RowSum(F32Tag d, int64_t count, Term&& term) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    sum0 = hn::Add(sum0, term(i, lanes));
    sum1 = hn::Add(sum1, term(i + lanes, lanes));
    sum2 = hn::Add(sum2, term(i + 2 * lanes, lanes));
    sum3 = hn::Add(sum3, term(i + 3 * lanes, lanes));
  }
  for (; i + lanes <= count; i += lanes) sum0 = hn::Add(sum0, term(i, lanes));
  if (i < count)
    sum1 = hn::Add(
        sum1, hn::IfThenElseZero(hn::FirstN(d, count - i), term(i, count - i)));
  const auto sum = hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3));
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// u = v + residual, n elements of it from i, or v where there is no residual;
// residual_out, which may be residual, is u.
template <class R>
HWY_INLINE F32Vec AddResidualTo(F32Tag d, F32Vec v, const R* residual,
                                R* residual_out, int64_t i, int64_t n) {
  if (residual == nullptr) return v;
  const auto u = hn::Add(v, LoadF32N(d, residual + i, n));
  StoreF32N(d, u, residual_out + i, n);
  return u;
}

// The same of x.
template <class T, class R>
HWY_INLINE F32Vec AddResidual(F32Tag d, const T* x, const R* residual,
                              R* residual_out, int64_t i, int64_t n) {
  return AddResidualTo(d, LoadF32N(d, x + i, n), residual, residual_out, i, n);
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#endif
