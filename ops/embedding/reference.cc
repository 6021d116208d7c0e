// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include "ops/embedding/embedding.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const Embedding::Problem& p, const Embedding::Args& a) {
  const In<Real> tokens(a.tokens), table(a.table), positions(a.positions);
  const Out<Real> y(a.y);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l) {
      const auto token = static_cast<int64_t>(ValueOf(tokens(b, l)));
      for (int64_t i = 0; i < p.width; ++i) {
        Real value = table(token, i) * Real(p.scale);
        if (p.learned_positions) value += positions(p.position + l, i);
        y.Set(value, b, l, i);
      }
    }
}

}  // namespace

SEQMARK_REFERENCE(Embedding)

}  // namespace seqmark
