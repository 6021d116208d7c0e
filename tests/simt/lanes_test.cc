// SPDX-License-Identifier: Apache-2.0
//
// The selective scan's LaneKernel under random orders of its warps and lanes:
// against a scan in double, and that no order is a deadlock.
#include "ops/selective_scan/lanes.cuh"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace seqmark::selective_scan {
namespace {

struct Layout {
  int batch, seqlen, d_inner, groups, turns;
  bool all_options;  // z, D, dt_bias and an initial state, or none of them
  int padding;       // elements between the rows of a tensor, a multiple of 8
};

void PrintTo(const Layout& l, std::ostream* out) {
  *out << l.batch << " x " << l.seqlen << " x " << l.d_inner << ", " << l.groups
       << " groups, " << l.turns << " turns";
}

template <class T>
class Rows2d {  // (batch, seqlen, width), rows apart by some padding
 public:
  Rows2d(const Layout& l, int width, double scale, std::mt19937& random)
      : step_(width + l.padding),
        batch_(int64_t{l.seqlen} * step_),
        values_(l.batch * batch_) {
    std::normal_distribution<float> normal;
    for (T& v : values_)
      v = FromFloat<T>(static_cast<float>(scale) * normal(random));
  }
  View<const T> view() const { return {values_.data(), batch_, step_}; }
  View<T> view() { return {values_.data(), batch_, step_}; }
  double At(int b, int l, int i) const {
    return ToFloat(values_[b * batch_ + int64_t{l} * step_ + i]);
  }

 private:
  int step_;
  int64_t batch_;
  std::vector<T> values_;
};

template <class T>
void Check(const Layout& l, uint64_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform;
  std::normal_distribution<float> normal;
  Rows2d<T> x(l, l.d_inner, 1, random), dt(x), z(x), y(x);
  dt = Rows2d<T>(l, l.d_inner, seed % 2 == 0 ? 1 : 20, random);
  z = Rows2d<T>(l, l.d_inner, 1, random);
  const Rows2d<T> B(l, kStates, 1, random), C(l, kStates, 1, random);
  const size_t states = size_t{kStates} * l.d_inner;
  std::vector<float> A(states), D(l.d_inner), bias(l.d_inner);
  std::vector<float> initial(l.batch * states);
  for (float& a : A) a = -0.1f - 16 * uniform(random);
  for (float& d : D) d = normal(random);
  for (float& b : bias) b = normal(random) - 2;
  for (float& h : initial) h = normal(random);
  std::vector<float> last(initial.size(),
                          std::numeric_limits<float>::quiet_NaN());

  Params<T> p;
  p.batch = l.batch, p.seqlen = l.seqlen;
  p.d_inner = l.d_inner, p.d_state = kStates;
  const auto& in = [](const Rows2d<T>& rows) { return rows.view(); };
  p.x = in(x), p.dt = in(dt), p.B = in(B), p.C = in(C), p.y = y.view();
  p.A = A.data(), p.final_state = last.data();
  if (l.all_options) {
    p.z = in(z), p.D = D.data(), p.dt_bias = bias.data();
    p.initial_state = initial.data();
  }
  const int of_entry = (l.d_inner / kGroup + l.groups - 1) / l.groups;
  for (int block = 0; block < l.batch * of_entry; ++block)
    ASSERT_TRUE(simt::Block::Run(block, (l.groups * l.turns + 1) * simt::kLanes,
                                 seed + block,
                                 [&] {
                                   const LaneGrid grid{l.groups, l.turns};
                                   if (l.all_options)
                                     LaneKernel<T, true>(p, grid);
                                   else
                                     LaneKernel<T, false>(p, grid);
                                 }))
        << "a deadlock in block " << block;

  // One rounding to T of what is summed, and of f32 on the way.
  const double epsilon = sizeof(T) == 2 ? 1.0 / 256 : 1e-5;
  for (int b = 0; b < l.batch; ++b)
    for (int d = 0; d < l.d_inner; ++d) {
      const size_t row = (size_t(b) * l.d_inner + d) * kStates;
      double h[kStates] = {};
      for (int n = 0; n < kStates && l.all_options; ++n)
        h[n] = initial[row + n];
      for (int t = 0; t < l.seqlen; ++t) {
        const double v = dt.At(b, t, d) + (l.all_options ? bias[d] : 0);
        const double step = v > 30 ? v : std::log1p(std::exp(v));
        const double input = x.At(b, t, d);
        double sum = l.all_options ? D[d] * input : 0, size = std::fabs(sum);
        for (int n = 0; n < kStates; ++n) {
          h[n] = std::exp(step * A[size_t(d) * kStates + n]) * h[n] +
                 step * B.At(b, t, n) * input;
          sum += C.At(b, t, n) * h[n];
          size += std::fabs(C.At(b, t, n) * h[n]);
        }
        const double gate =
            l.all_options ? z.At(b, t, d) / (1 + std::exp(-z.At(b, t, d))) : 1;
        ASSERT_NEAR(y.At(b, t, d), sum * gate,
                    epsilon * size * std::fabs(gate) + 1e-6)
            << "y of entry " << b << ", step " << t << ", channel " << d;
      }
      for (int n = 0; n < kStates; ++n)
        ASSERT_NEAR(last[row + n], h[n], 1e-4 * (1 + std::fabs(h[n])))
            << "state " << n << " of channel " << d;
    }
}

class Lanes : public testing::TestWithParam<Layout> {};

TEST_P(Lanes, AreAScanInAnyOrder) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE(seed);
    Check<__nv_bfloat16>(GetParam(), seed);
    if (HasFatalFailure()) return;
    Check<float>(GetParam(), seed + 10);
    if (HasFatalFailure()) return;
  }
}

// The ring of B and C has 128 steps; 15 turns of 8 steps come to 120.
INSTANTIATE_TEST_SUITE_P(All, Lanes,
                         testing::Values(Layout{1, 1, 8, 1, 2, true, 0},
                                         Layout{2, 9, 24, 2, 7, true, 8},
                                         Layout{1, 31, 40, 5, 3, false, 16},
                                         Layout{1, 32, 16, 1, 15, true, 8},
                                         Layout{1, 121, 56, 7, 2, false, 0},
                                         Layout{1, 129, 8, 1, 15, false, 0},
                                         Layout{2, 129, 24, 2, 7, true, 0},
                                         Layout{1, 300, 40, 5, 3, true, 8},
                                         Layout{1, 517, 24, 3, 5, true, 0}));

}  // namespace
}  // namespace seqmark::selective_scan
