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
  std::vector<Real> weight(p.span());  // of the keys first..last
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.seqlen; ++i) {
      const int64_t last = p.past + i;
      const int64_t first = std::max<int64_t>(0, last + 1 - p.span());
      for (int64_t h = 0; h < p.heads; ++h) {
        Real greatest = -HUGE_VAL;
        for (int64_t j = first; j <= last; ++j) {
          Real dot = 0;
          for (int64_t d = 0; d < p.head_dim; ++d)
            dot += q(b, i, h, d) * k(b, j, h / group, d);
          weight[j - first] = dot * scale;
          if (weight[j - first] > greatest) greatest = weight[j - first];
        }
        Real sum = 0;
        std::vector<Real> mean(p.head_dim);
        for (int64_t j = first; j <= last; ++j) {
          const Real e = Ref_exp(weight[j - first] - greatest);
          sum += e;
          for (int64_t d = 0; d < p.head_dim; ++d)
            mean[d] += e * v(b, j, h / group, d);
        }
        const Real normalise = Real(1.0) / sum;
        for (int64_t d = 0; d < p.head_dim; ++d)
          o.Set(mean[d] * normalise, b, i, h, d);
      }
    }
}

}  // namespace

SEQMARK_REFERENCE(Attention)

}  // namespace seqmark
