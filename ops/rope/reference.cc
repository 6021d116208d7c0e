// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/rope/rope.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const Rope::Problem& p, const Rope::Args& a) {
  const In<Real> q(a.q), k(a.k), v(a.v), frequency(a.inverse_frequency);
  const Out<Real> q_out(a.q_out), k_out(a.k_out), v_out(a.v_out);
  const int64_t half = p.rotary_dim / 2;
  std::vector<Real> cosine(half), sine(half);
  for (int64_t l = 0; l < p.seqlen; ++l) {
    for (int64_t i = 0; i < half; ++i) {
      const Real angle =
          Real(static_cast<double>(p.position + l)) * frequency(i);
      cosine[i] = Real(p.factor) * Ref_cos(angle);
      sine[i] = Real(p.factor) * Ref_sin(angle);
    }
    const auto write = [&](const In<Real>& x, const Out<Real>& out,
                           int64_t heads, int64_t rotary_dim) {
      for (int64_t b = 0; b < p.batch; ++b)
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t i = 0; i < rotary_dim / 2; ++i) {
            const Real x1 = x(b, l, h, i), x2 = x(b, l, h, i + half);
            out.Set(x1 * cosine[i] - x2 * sine[i], b, l, h, i);
            out.Set(x2 * cosine[i] + x1 * sine[i], b, l, h, i + half);
          }
          for (int64_t i = rotary_dim; i < p.head_dim; ++i)
            out.Set(x(b, l, h, i), b, l, h, i);
        }
    };
    write(q, q_out, p.heads, p.rotary_dim);
    write(k, k_out, p.kv_heads, p.rotary_dim);
    if (p.has_v) write(v, v_out, p.kv_heads, 0);
  }
}

}  // namespace

SEQMARK_REFERENCE(Rope)

}  // namespace seqmark
