// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include <vector>

#include "ops/attention_decode/attention_decode.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const AttentionDecode::Problem& p, const AttentionDecode::Args& a) {
  const In<Real> q(a.q), k(a.k), v(a.v);
  const Out<Real> o(a.o);
  const Real scale = 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  const int64_t first = p.first_key();
  std::vector<Real> weight(p.keys());
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t g = h / p.group();
      Real greatest = -HUGE_VAL;
      for (int64_t j = first; j < p.seqlen; ++j) {
        Real dot = 0;
        for (int64_t d = 0; d < p.head_dim; ++d)
          dot += q(b, h, d) * k(b, j, g, d);
        weight[j - first] = dot * scale;
        if (weight[j - first] > greatest) greatest = weight[j - first];
      }
      Real sum = 0;
      std::vector<Real> mean(p.head_dim);
      for (int64_t j = first; j < p.seqlen; ++j) {
        const Real e = Ref_exp(weight[j - first] - greatest);
        sum += e;
        for (int64_t d = 0; d < p.head_dim; ++d) mean[d] += e * v(b, j, g, d);
      }
      const Real normalise = Real(1.0) / sum;
      for (int64_t d = 0; d < p.head_dim; ++d)
        o.Set(mean[d] * normalise, b, h, d);
    }
}

}  // namespace

SEQMARK_REFERENCE(AttentionDecode)

}  // namespace seqmark
