// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const RmsNorm::Problem& p, const RmsNorm::Args& a) {
  const In<Real> x(a.x), residual(a.residual), gate(a.gate), weight(a.weight);
  const In<Real> squares(a.squares);
  const Out<Real> y(a.y), residual_out(a.residual_out);
  std::vector<Real> u(p.width);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l) {
      Real factor = 1;
      if (p.scale_parts > 0) {
        Real sum = 0;
        for (int64_t k = 0; k < p.scale_parts; ++k) sum += squares(b, l, k);
        const Real mean = sum * Real(1.0 / p.scale_width);
        factor = Real(1.0) / Ref_sqrt(mean + Real(p.scale_epsilon));
      }
      for (int64_t first = 0; first < p.width; first += p.group_width()) {
        const int64_t end = first + p.group_width();
        Real sum = 0;
        for (int64_t i = first; i < end; ++i) {
          u[i] = x(b, l, i);
          if (p.scale_parts > 0) u[i] *= factor;
          if (p.residual) {
            u[i] += residual(b, l, i);
            residual_out.Set(u[i], b, l, i);
          }
          if (p.gate == NormGate::kBefore) u[i] *= RefSilu(gate(b, l, i));
          sum += u[i] * u[i];
        }
        const Real mean = sum * Real(1.0 / p.group_width());
        const Real scale = Real(1.0) / Ref_sqrt(mean + Real(p.epsilon));
        for (int64_t i = first; i < end; ++i) {
          Real value = u[i] * scale * weight(i);
          if (p.gate == NormGate::kAfter) value *= RefSilu(gate(b, l, i));
          y.Set(value, b, l, i);
        }
      }
    }
}

}  // namespace

SEQMARK_REFERENCE(RmsNorm)

}  // namespace seqmark
