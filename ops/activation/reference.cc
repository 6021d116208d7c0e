// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include "ops/activation/activation.h"

namespace seqmark {
namespace {

template <class Real>
Real Activate(ActivationFunction function, Real x) {
  switch (function) {
    case ActivationFunction::kSilu:
      return RefSilu(x);
    case ActivationFunction::kGelu:
      return Real(0.5) * x * (Real(1.0) + Ref_erf(Real(M_SQRT1_2) * x));
    case ActivationFunction::kGeluTanh: {
      const Real inner =
          Real(std::sqrt(2 / M_PI)) * (x + Real(0.044715) * x * x * x);
      return Real(0.5) * x * (Real(1.0) + Ref_tanh(inner));
    }
    case ActivationFunction::kRelu2: {
      const Real positive = x > Real(0.0) ? x : Real(0.0);
      return positive * positive;
    }
  }
  return x;
}

template <class Real>
void Define(const Activation::Problem& p, const Activation::Args& a) {
  const In<Real> x(a.x);
  const Out<Real> y(a.y);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l)
      for (int64_t i = 0; i < p.width; ++i) {
        Real value = Activate(p.function, x(b, l, i));
        if (p.gated) value *= x(b, l, p.width + i);
        y.Set(value, b, l, i);
      }
}

}  // namespace

SEQMARK_REFERENCE(Activation)

}  // namespace seqmark
