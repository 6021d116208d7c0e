// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include "ops/copy/copy.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const Copy::Problem& p, const Copy::Args& a) {
  const In<Real> x(a.x);
  const Out<Real> y(a.y);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l)
      for (int64_t i = 0; i < p.width; ++i) y.Set(x(b, l, i), b, l, i);
}

}  // namespace

SEQMARK_REFERENCE(Copy)

}  // namespace seqmark
