// SPDX-License-Identifier: Apache-2.0
//
// Activations on the CPU: threads over blocks of rows and columns, one pass.
// Exponentials and divisions limit it in cache, memory beyond.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/activation/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include <algorithm>

#include "fixtures/op_fixture.h"
#include "ops/activation/activation.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// x Phi(x): of the normal distribution's tail Phi(-|x|), the exponential is
// apart and a polynomial takes the rest (Abramowitz and Stegun 7.1.26, within
// 0.75e-7; coefficients halved).
HWY_INLINE F32Vec Gelu(F32Tag d, F32Vec x) {
  const auto one = hn::Set(d, 1.0f);
  const auto a = hn::Abs(x);
  const auto t =
      hn::Div(one, hn::MulAdd(a, hn::Set(d, 0.3275911f * 0.70710678f), one));
  auto p = hn::Set(d, 0.5f * 1.061405429f);
  p = hn::MulAdd(p, t, hn::Set(d, 0.5f * -1.453152027f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.5f * 1.421413741f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.5f * -0.284496736f));
  p = hn::MulAdd(p, t, hn::Set(d, 0.5f * 0.254829592f));
  const auto e =
      Exp2Decay(d, hn::Mul(hn::Mul(a, a), hn::Set(d, -0.5f * kLog2E)));
  const auto tail = hn::Mul(hn::Mul(p, t), e);
  return hn::NegMulAdd(a, tail, hn::Max(x, hn::Zero(d)));
}

// (1 + tanh z) / 2 = 1 / (1 + e^-2z)
HWY_INLINE F32Vec GeluTanh(F32Tag d, F32Vec x) {
  constexpr float kScale = -2 * 0.79788456f * kLog2E;
  const auto slope = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.044715f * kScale),
                                hn::Set(d, kScale));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), Exp2(d, hn::Mul(x, slope))));
}

HWY_INLINE F32Vec Relu2(F32Tag d, F32Vec x) {
  const auto positive = hn::Max(x, hn::Zero(d));
  return hn::Mul(positive, positive);
}

template <class T, class Function>
void ActivateRows(const Activation::Problem& p, const Activation::Args& a,
                  Function&& function) {
  constexpr int64_t kBlock = 2048;  // columns
  const int64_t blocks = (p.width + kBlock - 1) / kBlock;
#pragma omp parallel for collapse(2) \
    schedule(static) if (p.rows() * p.width > 4 * kBlock)
  for (int64_t row = 0; row < p.rows(); ++row)
    for (int64_t block = 0; block < blocks; ++block) {
      const F32Tag d;
      const int64_t begin = block * kBlock;
      const T* const gate = a.x.as<T>() + row / p.seqlen * a.x.strides[0] +
                            row % p.seqlen * a.x.strides[1] + begin;
      T* const y = a.y.as<T>() + row * p.width + begin;
      ForEachVector(std::min(kBlock, p.width - begin),
                    static_cast<int64_t>(hn::Lanes(d)),
                    [&](int64_t i, int64_t n) {
                      auto v = function(d, LoadF32N(d, gate + i, n));
                      if (p.gated)
                        v = hn::Mul(v, LoadF32N(d, gate + p.width + i, n));
                      StoreF32N(d, v, y + i, n);
                    });
    }
}

void ActivationCall(const Activation::Problem& p, const Activation::Args& a) {
  DispatchDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    switch (p.function) {
      case ActivationFunction::kSilu:
        return ActivateRows<T>(p, a,
                               [](F32Tag d, F32Vec x) { return Silu(d, x); });
      case ActivationFunction::kGelu:
        return ActivateRows<T>(p, a,
                               [](F32Tag d, F32Vec x) { return Gelu(d, x); });
      case ActivationFunction::kGeluTanh:
        return ActivateRows<T>(
            p, a, [](F32Tag d, F32Vec x) { return GeluTanh(d, x); });
      case ActivationFunction::kRelu2:
        return ActivateRows<T>(p, a,
                               [](F32Tag d, F32Vec x) { return Relu2(d, x); });
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(ActivationCall);
namespace {

const bool registered = AddProvider<Activation>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const Activation::Problem& p, const Activation::Args& a,
                Device&) -> absl::StatusOr<Launch> {
       return [p, a](Stream) {
         HWY_DYNAMIC_DISPATCH(ActivationCall)(p, a);
         return absl::OkStatus();
       };
     }});

}  // namespace
}  // namespace seqmark
#endif
