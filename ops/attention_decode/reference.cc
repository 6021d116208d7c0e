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
  std::vector<int64_t> counted;
  for (int64_t j = 0; j < p.seqlen; ++j)
    if (p.window == 0 || j >= p.seqlen - p.window || j < p.sink)
      counted.push_back(j);
  std::vector<Real> weight(counted.size());
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t g = h / p.group();
      Real greatest = -HUGE_VAL;
      for (size_t n = 0; n < counted.size(); ++n) {
        Real dot = 0;
        for (int64_t d = 0; d < p.head_dim; ++d)
          dot += q(b, h, d) * k(b, counted[n], g, d);
        weight[n] = dot * scale;
        if (weight[n] > greatest) greatest = weight[n];
      }
      Real sum = 0;
      std::vector<Real> mean(p.value_dim());
      for (size_t n = 0; n < counted.size(); ++n) {
        const Real e = Ref_exp(weight[n] - greatest);
        sum += e;
        for (int64_t d = 0; d < p.value_dim(); ++d)
          mean[d] += e * v(b, counted[n], g, d);
      }
      const Real normalise = Real(1.0) / sum;
      for (int64_t d = 0; d < p.value_dim(); ++d)
        o.Set(mean[d] * normalise, b, h, d);
    }
}

}  // namespace

SEQMARK_REFERENCE(AttentionDecode)

}  // namespace seqmark
