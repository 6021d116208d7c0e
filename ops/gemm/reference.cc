// SPDX-License-Identifier: Apache-2.0
#include "fixtures/reference.h"

#include "ops/gemm/gemm.h"

namespace seqmark {
namespace {

template <class Real>
void Define(const Gemm::Problem& p, const Gemm::Args& a) {
  const In<Real> x(a.x), weight(a.weight), bias(a.bias), addend(a.addend);
  const Out<Real> y(a.y);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l)
      for (int64_t n = 0; n < p.out_features; ++n) {
        Real sum = 0;
        for (int64_t k = 0; k < p.in_features; ++k)
          sum += x(b, l, k) * weight(n, k);
        if (p.bias) sum += bias(n);
        if (p.addend) sum += addend(b, l, n);
        y.Set(sum, b, l, n);
      }
}

}  // namespace

SEQMARK_REFERENCE(Gemm)

}  // namespace seqmark
