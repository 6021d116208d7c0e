// SPDX-License-Identifier: Apache-2.0
//
// The parts are defined by their own operators; the gate and the norm's part
// are here where there is a norm.
#include "fixtures/reference.h"

#include <vector>

#include "ops/mamba2_inner/mamba2_inner.h"

namespace seqmark {
namespace {

// y, not yet gated: gate, squares, weights.
template <class Real>
void GateAndWeigh(const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a) {
  const In<Real> z(a.z), weight(a.norm_weight);
  const Out<Real> y(a.y), squares(a.squares);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t l = 0; l < p.seqlen; ++l)
      for (int64_t part = 0; part < p.parts(); ++part) {
        Real sum = 0;
        for (int64_t i = part * p.part_width(); i < (part + 1) * p.part_width();
             ++i) {
          Real value = y(b, l, i);
          if (p.has_z) value *= RefSilu(z(b, l, i));
          sum += value * value;
          y.Set(value * weight(i), b, l, i);
        }
        squares.Set(sum, b, l, part);
      }
}

template <class Convolution, class Scan, class Last>
void Define(const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a,
            Convolution&& convolution, Scan&& scan, Last&& last) {
  std::vector<double> values(p.batch * p.seqlen * p.channels());
  const Tensor convolved(values.data(), DType::kF64,
                         {p.batch, p.seqlen, p.channels()});
  convolution(Mamba2Inner::Convolution(p),
              Mamba2Inner::ConvolutionArgs(a, convolved));
  scan(Mamba2Inner::Scan(p), Mamba2Inner::ScanArgs(p, a, convolved));
  if (p.norm) last(p, a);
}

}  // namespace

void Mamba2Inner::Reference(const Problem& p, const Args& a) {
  Define(p, a, CausalConv1d::Reference, SsdScan::Reference,
         GateAndWeigh<double>);
}

void Mamba2Inner::CountedReference(const Problem& p, const Args& a) {
  Define(p, a, CausalConv1d::CountedReference, SsdScan::CountedReference,
         GateAndWeigh<Counted>);
}

}  // namespace seqmark
