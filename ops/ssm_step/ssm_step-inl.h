// SPDX-License-Identifier: Apache-2.0
//
// The step of a state space layer on the CPU. Lanes are states, which are what
// memory holds in order; threads share blocks of rows. Memory, or the cache
// that the states stay in, limits it, and for Mamba, which has an exponential
// for each state, arithmetic. So what a row needs once (softplus, D x, SiLU) is
// computed a vector of rows at a time before and after. Include as
// fixtures/simd-inl.h is.
#if defined(SEQMARK_OPS_SSM_STEP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQMARK_OPS_SSM_STEP_INL_H_
#undef SEQMARK_OPS_SSM_STEP_INL_H_
#else
#define SEQMARK_OPS_SSM_STEP_INL_H_
#endif

#include <algorithm>

#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "ops/norm/row_sum-inl.h"
#include "ops/ssm_step/ssm_step.h"
#include "ops/thread_rows.h"

#ifndef SEQMARK_OPS_SSM_STEP_ONCE
#define SEQMARK_OPS_SSM_STEP_ONCE
namespace seqmark {

inline constexpr int64_t kStepRows = 32;      // of a block
inline constexpr int64_t kFetchAhead = 1024;  // floats
inline constexpr int64_t kLine = 16;          // floats of a cache line

// Floats of a thread's scratch: B, C, dt', dt' x and C h.
inline int64_t StepScratch(const SsmStep& s) {
  return 2 * s.d_state + 3 * kStepRows;
}

}  // namespace seqmark
#endif

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// Rows [begin, end) of a slice of a batch entry.
template <class T, bool kRowDecay>
HWY_NOINLINE void StepBlock(const SsmStep& s, int64_t batch, int64_t slice,
                            int64_t begin, int64_t end, float* scratch) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float* const b = scratch;
  float* const c = b + s.d_state;
  float* const steps = c + s.d_state;
  float* const inputs = steps + kStepRows;
  float* const sums = inputs + kStepRows;
  const auto at = [batch](const SsmStep::View& view, int64_t i) {
    return static_cast<T*>(view.data) + batch * view.stride + i;
  };
  const int64_t row = slice * s.rows + begin;  // of the batch entry
  const int64_t group = slice / s.slices_per_group * s.d_state;
  ForEachVector(s.d_state, lanes, [&](int64_t i, int64_t n) HWY_ATTR {
    StoreF32N(d, LoadF32N(d, at(s.B, group + i), n), b + i, n);
    StoreF32N(d, LoadF32N(d, at(s.C, group + i), n), c + i, n);
  });
  // dt' and what else there is for each step: a row's, or in lane 0 a slice's.
  const auto step_of = [&](int64_t i, int64_t n) HWY_ATTR {
    auto step = LoadF32N(d, at(s.dt, i), n);
    if (s.dt_bias != nullptr)
      step = hn::Add(step, LoadF32N(d, s.dt_bias + i, n));
    return Softplus(d, step);
  };
  auto slice_step = hn::Zero(d), slice_decay = slice_step;
  auto slice_skip = slice_step;
  if constexpr (!kRowDecay) {
    slice_step = hn::Set(d, hn::GetLane(step_of(slice, 1)));
    slice_decay = FastExp(d, hn::Mul(slice_step, hn::Set(d, s.A[slice])));
    if (s.D != nullptr) slice_skip = hn::Set(d, s.D[slice]);
  }
  ForEachVector(end - begin, lanes, [&](int64_t i, int64_t n) HWY_ATTR {
    const auto step = kRowDecay ? step_of(begin + i, n) : slice_step;
    const auto x = LoadF32N(d, at(s.x, row + i), n);
    StoreF32N(d, hn::Mul(step, hn::Set(d, kLog2E)), steps + i, n);
    StoreF32N(d, hn::Mul(step, x), inputs + i, n);
  });

  for (int64_t i = 0; i < end - begin; ++i) {
    const int64_t first = ((batch * s.slices * s.rows) + row + i) * s.d_state;
    const float* const from = s.state + first;
    float* const to = s.state_out + first;
    const float* const rates = s.A + (begin + i) * s.d_state;
    const auto step = hn::Set(d, steps[i]), input = hn::Set(d, inputs[i]);
    // 25 % where Mamba-2's states are in memory; Mamba's arithmetic hides it.
    if constexpr (!kRowDecay)
      for (int64_t n = 0; n < s.d_state; n += kLine) {
        hwy::Prefetch(from + kFetchAhead + n);
        if (to != from) hwy::Prefetch(to + kFetchAhead + n);
      }
    // Inline: a call a vector would cost more than the vector.
    const auto advance = [&](int64_t n, int64_t m) HWY_ATTR
        __attribute__((always_inline)) {
      auto decay = slice_decay;
      if constexpr (kRowDecay)
        decay = Exp2Decay(d, hn::Mul(step, LoadF32N(d, rates + n, m)));
      const auto h = hn::MulAdd(decay, LoadF32N(d, from + n, m),
                                hn::Mul(input, LoadF32N(d, b + n, m)));
      StoreF32N(d, h, to + n, m);
      return hn::Mul(h, LoadF32N(d, c + n, m));
    };
    sums[i] = RowSum(d, s.d_state, advance);
  }

  ForEachVector(end - begin, lanes, [&](int64_t i, int64_t n) HWY_ATTR {
    auto y = LoadF32N(d, sums + i, n);
    if (s.D != nullptr) {
      const auto skip =
          kRowDecay ? LoadF32N(d, s.D + begin + i, n) : slice_skip;
      y = hn::MulAdd(skip, LoadF32N(d, at(s.x, row + i), n), y);
    }
    if (s.z.data != nullptr)
      y = hn::Mul(y, Silu(d, LoadF32N(d, at(s.z, row + i), n)));
    StoreF32N(d, y, at(s.y, row + i), n);
  });
}

template <bool kRowDecay>
void StepCall(DType dtype, const SsmStep& s, const ThreadRows& scratch) {
  DispatchDType(dtype, [&](auto tag) {
    const int64_t blocks = (s.rows + kStepRows - 1) / kStepRows;
#pragma omp parallel for collapse(3) schedule(static)
    for (int64_t batch = 0; batch < s.batch; ++batch)
      for (int64_t slice = 0; slice < s.slices; ++slice)
        for (int64_t block = 0; block < blocks; ++block)
          StepBlock<decltype(tag), kRowDecay>(
              s, batch, slice, block * kStepRows,
              std::min(s.rows, (block + 1) * kStepRows),
              scratch.of(omp_get_thread_num()));
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#endif
