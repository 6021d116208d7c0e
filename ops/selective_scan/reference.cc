// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/selective_scan/selective_scan.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const SelectiveScan::Problem& p, const SelectiveScan::Args& a) {
  const In<Real> x(a.x), dt(a.dt), A(a.A), B(a.B), C(a.C), D(a.D), z(a.z),
      dt_bias(a.dt_bias), initial_state(a.initial_state);
  const Out<Real> y(a.y), final_state(a.final_state);
  std::vector<Real> h(p.d_state);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t d = 0; d < p.d_inner; ++d) {
      for (int64_t n = 0; n < p.d_state; ++n)
        h[n] = p.has_initial_state ? initial_state(b, d, n) : Real(0.0);
      for (int64_t l = 0; l < p.seqlen; ++l) {
        Real step = dt(b, l, d);
        if (p.has_dt_bias) step += dt_bias(d);
        step = RefSoftplus(step);
        const Real input = step * x(b, l, d);
        Real value = p.has_d ? D(d) * x(b, l, d) : Real(0.0);
        for (int64_t n = 0; n < p.d_state; ++n) {
          h[n] = Ref_exp(step * A(d, n)) * h[n] + input * B(b, l, n);
          value += C(b, l, n) * h[n];
        }
        if (p.has_z) value *= RefSilu(z(b, l, d));
        y.Set(value, b, l, d);
      }
      for (int64_t n = 0; n < p.d_state; ++n) final_state.Set(h[n], b, d, n);
    }
}

}  // namespace

SEQMARK_REFERENCE(SelectiveScan)

}  // namespace seqmark
