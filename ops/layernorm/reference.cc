// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/layernorm/layernorm.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const LayerNorm::Problem& p, const LayerNorm::Args& a) {
  const In<Real> x(a.x), residual(a.residual), weight(a.weight), bias(a.bias);
  const Out<Real> y(a.y), residual_out(a.residual_out);
  std::vector<Real> u(p.width);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l) {
      Real sum = 0;
      for (int64_t i = 0; i < p.width; ++i) {
        u[i] = x(b, l, i);
        if (p.residual) {
          u[i] += residual(b, l, i);
          residual_out.Set(u[i], b, l, i);
        }
        sum += u[i];
      }
      const Real mean = sum * Real(1.0 / p.width);
      Real squares = 0;
      for (int64_t i = 0; i < p.width; ++i) {
        u[i] = u[i] - mean;
        squares += u[i] * u[i];
      }
      const Real scale =
          Real(1.0) / Ref_sqrt(squares * Real(1.0 / p.width) + Real(p.epsilon));
      for (int64_t i = 0; i < p.width; ++i)
        y.Set(u[i] * scale * weight(i) + bias(i), b, l, i);
    }
}

}  // namespace

SEQMARK_REFERENCE(LayerNorm)

}  // namespace seqmark
