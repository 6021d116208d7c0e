// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/ssd_scan/ssd_scan.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const SsdScan::Problem& p, const SsdScan::Args& args) {
  const In<Real> x(args.x), dt(args.dt), A(args.A), B(args.B), C(args.C);
  const In<Real> D(args.D), dt_bias(args.dt_bias), z(args.z);
  const In<Real> initial_state(args.initial_state);
  const Out<Real> y(args.y), final_state(args.final_state);
  std::vector<Real> state(p.head_dim * p.d_state);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t g = h / p.heads_per_group();
      for (int64_t i = 0; i < p.head_dim; ++i)
        for (int64_t n = 0; n < p.d_state; ++n)
          state[i * p.d_state + n] =
              p.has_initial_state ? initial_state(b, h, i, n) : Real(0.0);
      for (int64_t l = 0; l < p.seqlen; ++l) {
        Real step = dt(b, l, h);
        if (p.has_dt_bias) step += dt_bias(h);
        step = RefSoftplus(step);
        if (p.dt_min > 0 && step < Real(p.dt_min)) step = Real(p.dt_min);
        const Real decay = Ref_exp(step * A(h));
        for (int64_t i = 0; i < p.head_dim; ++i) {
          const Real input = step * x(b, l, h, i);
          Real sum = 0.0;
          for (int64_t n = 0; n < p.d_state; ++n) {
            Real& s = state[i * p.d_state + n];
            s = decay * s + input * B(b, l, g, n);
            sum += s * C(b, l, g, n);
          }
          if (p.has_d) sum += D(h) * x(b, l, h, i);
          if (p.has_z) sum *= RefSilu(z(b, l, h, i));
          y.Set(sum, b, l, h, i);
        }
      }
      for (int64_t i = 0; i < p.head_dim; ++i)
        for (int64_t n = 0; n < p.d_state; ++n)
          final_state.Set(state[i * p.d_state + n], b, h, i, n);
    }
}

}  // namespace

SEQMARK_REFERENCE(SsdScan)

}  // namespace seqmark
