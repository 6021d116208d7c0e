// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include "ops/causal_conv1d/causal_conv1d.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const CausalConv1d::Problem& p, const CausalConv1d::Args& a) {
  const In<Real> x(a.x), weight(a.weight), bias(a.bias);
  const In<Real> initial_state(a.initial_state);
  const Out<Real> y(a.y), final_state(a.final_state);
  const int64_t before = p.width - 1;
  // The input at time t >= -before.
  const auto input = [&](int64_t b, int64_t t, int64_t c) {
    if (t >= 0) return x(b, t, c);
    return p.initial_state ? initial_state(b, before + t, c) : Real(0.0);
  };
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t l = 0; l < p.seqlen; ++l)
      for (int64_t c = 0; c < p.channels; ++c) {
        Real sum = p.bias ? bias(c) : Real(0.0);
        for (int64_t w = 0; w < p.width; ++w)
          sum += weight(c, w) * input(b, l - before + w, c);
        y.Set(p.silu ? RefSilu(sum) : sum, b, l, c);
      }
    if (!p.final_state) continue;
    for (int64_t s = 0; s < before; ++s)
      for (int64_t c = 0; c < p.channels; ++c)
        final_state.Set(input(b, p.seqlen - before + s, c), b, s, c);
  }
}

}  // namespace

SEQMARK_REFERENCE(CausalConv1d)

}  // namespace seqmark
