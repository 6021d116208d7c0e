// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/attention/attention.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const Attention::Problem& p, const Attention::Args& a) {
  const In<Real> q(a.q), k(a.k), v(a.v);
  const Out<Real> o(a.o);
  const int64_t group = p.heads / p.kv_heads;
  const Real scale = 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  std::vector<int64_t> seen;
  std::vector<Real> weight(p.span());  // of the keys seen
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.seqlen; ++i) {
      const int64_t last = p.past + i;
      seen.clear();
      for (int64_t j = 0; j <= last; ++j)
        if (j > last - p.reach() || j < p.sink) seen.push_back(j);
      for (int64_t h = 0; h < p.heads; ++h) {
        Real greatest = -HUGE_VAL;
        for (size_t n = 0; n < seen.size(); ++n) {
          Real dot = 0;
          for (int64_t d = 0; d < p.head_dim; ++d)
            dot += q(b, i, h, d) * k(b, seen[n], h / group, d);
          weight[n] = dot * scale;
          if (weight[n] > greatest) greatest = weight[n];
        }
        Real sum = 0;
        std::vector<Real> mean(p.value_dim());
        for (size_t n = 0; n < seen.size(); ++n) {
          const Real e = Ref_exp(weight[n] - greatest);
          sum += e;
          for (int64_t d = 0; d < p.value_dim(); ++d)
            mean[d] += e * v(b, seen[n], h / group, d);
        }
        const Real normalise = Real(1.0) / sum;
        for (int64_t d = 0; d < p.value_dim(); ++d)
          o.Set(mean[d] * normalise, b, i, h, d);
      }
    }
}

}  // namespace

SEQMARK_REFERENCE(Attention)

}  // namespace seqmark
