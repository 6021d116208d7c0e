// SPDX-License-Identifier: Apache-2.0
//
// Selective scan on the CPU: lanes are channels, threads take (batch, block of
// channels), and split time too where those are fewer than threads. It is
// bound by arithmetic: an exponential and three multiplications or additions
// for each state, about 15 vector instructions. So eight states stay in
// registers over a tile of time, B and C are broadcast from the tile, and the
// tile (steps, inputs, outputs, B, C in f32) stays in L1.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/selective_scan/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "hwy/cache_control.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan/time_split.h"

#ifndef SEQMARK_SELECTIVE_SCAN_HIGHWAY_ONCE
#define SEQMARK_SELECTIVE_SCAN_HIGHWAY_ONCE
namespace seqmark {

inline constexpr int64_t kScanTile = 64;      // steps in L1 at a time
inline constexpr int64_t kScanRegisters = 8;  // states in registers

// States of a channel, padded: those beyond d_state have A = B = C = 0.
inline int64_t PaddedStates(const SelectiveScan::Problem& p) {
  return (p.d_state + kScanRegisters - 1) / kScanRegisters * kScanRegisters;
}

// Workspace of a plan. All f32.
struct ScanWork {
  TimeSplit split;
  // Blocks that a thread takes together, tile by tile, so that cache lines and
  // pages are used whole: rows are pages apart.
  int64_t together = 1;
  int64_t lanes = 0;         // of a vector: channels of a block
  int64_t blocks = 0;        // of channels
  float* scratch = nullptr;  // (threads, scratch_stride): see ScanScratch
  int64_t scratch_stride = 0;
  // End states of segments 0 .. n-2, then, after the chain, those from the
  // true initial state. (segments - 1, batch, blocks, states, lanes)
  float* ends = nullptr;
  float* sums = nullptr;  // (segments - 1, batch, blocks, lanes): of dt'
};

// Floats of one thread's ScanScratch, below.
inline int64_t ScanScratchSize(int64_t lanes, int64_t states,
                               int64_t together) {
  return kScanTile * (3 * lanes + 2 * states) + together * 2 * states * lanes;
}

}  // namespace seqmark
#endif

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// One thread's arrays.
struct ScanScratch {
  ScanScratch(float* base, int64_t lanes, int64_t states)
      : step(base),
        input(step + kScanTile * lanes),
        sum(input + kScanTile * lanes),
        bc(sum + kScanTile * lanes),
        blocks(bc + kScanTile * 2 * states),
        block_size(2 * states * lanes) {}
  // Of the `v`th block, A log2(e) and h: (states, lanes).
  float* decay(int64_t v) const { return blocks + v * block_size; }
  float* state(int64_t v) const { return decay(v) + block_size / 2; }

  float* step;    // (tile, lanes): dt'
  float* input;   // (tile, lanes): dt' x
  float* sum;     // (tile, lanes): D x + C h
  float* bc;      // (tile, 2, states): B, then C
  float* blocks;  // (together, 2, states, lanes)
  int64_t block_size;
};

template <class T>
const T* At(const Tensor& t, int64_t b, int64_t l) {
  return t.as<T>() + b * t.strides[0] + l * t.strides[1];
}

// Eight states over the tile's steps, in registers. kOutput: adds C h to sum.
template <bool kOutput>
HWY_NOINLINE void ScanStates(const ScanScratch& s, int64_t block, int64_t first,
                             int64_t states, int64_t steps) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* const decay = s.decay(block) + first * lanes;
  float* const state = s.state(block) + first * lanes;
  // Named, not an array: vectors may be of a size unknown to the compiler.
  auto h0 = hn::Load(d, state + 0 * lanes), h1 = hn::Load(d, state + 1 * lanes);
  auto h2 = hn::Load(d, state + 2 * lanes), h3 = hn::Load(d, state + 3 * lanes);
  auto h4 = hn::Load(d, state + 4 * lanes), h5 = hn::Load(d, state + 5 * lanes);
  auto h6 = hn::Load(d, state + 6 * lanes), h7 = hn::Load(d, state + 7 * lanes);
  for (int64_t t = 0; t < steps; ++t) {
    const auto step = hn::Load(d, s.step + t * lanes);
    const auto input = hn::Load(d, s.input + t * lanes);
    const float* const b = s.bc + t * 2 * states + first;
    const float* const c = b + states;
    const auto advance = [&](F32Vec& h, int64_t n) HWY_ATTR {
      const auto a =
          Exp2Decay(d, hn::Mul(step, hn::Load(d, decay + n * lanes)));
      h = hn::MulAdd(a, h, hn::Mul(input, hn::Set(d, b[n])));
      return kOutput ? hn::Mul(h, hn::Set(d, c[n])) : h;
    };
    const auto y0 = advance(h0, 0), y1 = advance(h1, 1);
    const auto y2 = advance(h2, 2), y3 = advance(h3, 3);
    const auto y4 = advance(h4, 4), y5 = advance(h5, 5);
    const auto y6 = advance(h6, 6), y7 = advance(h7, 7);
    if constexpr (kOutput) {
      const auto y = hn::Add(hn::Add(hn::Add(y0, y1), hn::Add(y2, y3)),
                             hn::Add(hn::Add(y4, y5), hn::Add(y6, y7)));
      float* const sum = s.sum + t * lanes;
      hn::Store(hn::Add(hn::Load(d, sum), y), d, sum);
    }
  }
  hn::Store(h0, d, state + 0 * lanes), hn::Store(h1, d, state + 1 * lanes);
  hn::Store(h2, d, state + 2 * lanes), hn::Store(h3, d, state + 3 * lanes);
  hn::Store(h4, d, state + 4 * lanes), hn::Store(h5, d, state + 5 * lanes);
  hn::Store(h6, d, state + 6 * lanes), hn::Store(h7, d, state + 7 * lanes);
}

// B and C of `steps` steps from l, as f32, to the tile.
template <class T, bool kOutput>
void LoadRows(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
              const ScanScratch& s, int64_t batch, int64_t l, int64_t steps) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t states = PaddedStates(p);
  for (int64_t t = 0; t < steps; ++t) {
    float* const to = s.bc + t * 2 * states;
    const T* const b = At<T>(a.B, batch, l + t);
    const T* const c = At<T>(a.C, batch, l + t);
    ForEachVector(p.d_state, lanes, [&](int64_t i, int64_t m) HWY_ATTR {
      StoreF32N(d, LoadF32N(d, b + i, m), to + i, m);
      if (kOutput) StoreF32N(d, LoadF32N(d, c + i, m), to + states + i, m);
    });
  }
}

// The tile of `steps` steps from l of the `v`th block, which is channels
// [channel, channel + n). Returns the sum of the steps. kOutput: writes y.
template <class T, bool kOutput>
F32Vec ScanTile(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
                const ScanScratch& s, int64_t v, int64_t batch, int64_t channel,
                int64_t n, int64_t l, int64_t steps, int64_t end) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t states = PaddedStates(p);
  const auto at = [&](const Tensor& t, int64_t step) {
    return At<T>(t, batch, step) + channel;
  };
  const auto optional = [&](bool has, const Tensor& t) HWY_ATTR {
    return has ? LoadF32N(d, t.as<float>() + channel, n) : hn::Zero(d);
  };
  const auto bias = optional(p.has_dt_bias, a.dt_bias);
  const auto skip = optional(p.has_d, a.D);
  auto total = hn::Zero(d);
  for (int64_t t = 0; t < steps; ++t) {
    // The next tile's rows, while this one is computed: no hardware prefetcher
    // follows rows that are pages apart.
    if (const int64_t next = l + t + kScanTile; next < end) {
      hwy::Prefetch(at(a.dt, next));
      hwy::Prefetch(at(a.x, next));
      if (kOutput) hwy::Prefetch(at(a.y, next));
      if (kOutput && p.has_z) hwy::Prefetch(at(a.z, next));
    }
    const auto step =
        Softplus(d, hn::Add(LoadF32N(d, at(a.dt, l + t), n), bias));
    const auto x = LoadF32N(d, at(a.x, l + t), n);
    hn::Store(step, d, s.step + t * lanes);
    hn::Store(hn::Mul(step, x), d, s.input + t * lanes);
    if (kOutput) hn::Store(hn::Mul(skip, x), d, s.sum + t * lanes);
    total = hn::Add(total, step);
  }
  for (int64_t i = 0; i < states; i += kScanRegisters)
    ScanStates<kOutput>(s, v, i, states, steps);
  if constexpr (kOutput)
    for (int64_t t = 0; t < steps; ++t) {
      auto y = hn::Load(d, s.sum + t * lanes);
      if (p.has_z) y = hn::Mul(y, Silu(d, LoadF32N(d, at(a.z, l + t), n)));
      StoreF32N(d, y, const_cast<T*>(at(a.y, l + t)), n);
    }
  return total;
}

// One segment of the blocks [block, block + together) of a batch entry.
template <class T, bool kOutput>
void ScanSegment(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
                 const ScanWork& work, int64_t segment, int64_t batch,
                 int64_t block) {
  const F32Tag d;
  const int64_t lanes = work.lanes, states = PaddedStates(p);
  const ScanScratch s(work.scratch + omp_get_thread_num() * work.scratch_stride,
                      lanes, states);
  const int64_t count = std::min(work.together, work.blocks - block);
  const int64_t last = work.split.segments - 1;
  const auto unit = [&](int64_t of, int64_t v) {
    return (of * p.batch + batch) * work.blocks + block + v;
  };
  const auto channel = [&](int64_t v) { return (block + v) * lanes; };
  const auto width = [&](int64_t v) {
    return std::min(lanes, p.d_inner - channel(v));
  };
  // Of a block's first channel, in (batch, d_inner, d_state).
  const auto row = [&](int64_t v) {
    return (batch * p.d_inner + channel(v)) * p.d_state;
  };
  for (int64_t v = 0; v < count; ++v) {
    const float* const decay = a.A.as<float>() + channel(v) * p.d_state;
    const float* const initial =
        p.has_initial_state ? a.initial_state.as<float>() + row(v) : nullptr;
    const float* const end_before =
        segment > 0 && kOutput
            ? work.ends + unit(segment - 1, v) * states * lanes
            : nullptr;
    for (int64_t i = 0; i < states; ++i)
      for (int64_t c = 0; c < lanes; ++c) {
        const bool real = i < p.d_state && c < width(v);
        const int64_t at = i * lanes + c, from = c * p.d_state + i;
        s.decay(v)[at] = real ? decay[from] * kLog2E : 0.0f;
        float h = 0.0f;
        if (end_before != nullptr)
          h = end_before[at];
        else if (segment == 0 && initial != nullptr && real)
          h = initial[from];
        s.state(v)[at] = h;
      }
    if (segment < last)
      std::fill_n(work.sums + unit(segment, v) * lanes, lanes, 0.0f);
  }
  // The padding of B and C; the rest of a tile is written before it is read.
  std::fill_n(s.bc, kScanTile * 2 * states, 0.0f);

  const int64_t end = work.split.End(segment);
  for (int64_t l = work.split.Begin(segment); l < end; l += kScanTile) {
    const int64_t steps = std::min(kScanTile, end - l);
    LoadRows<T, kOutput>(p, a, s, batch, l, steps);
    for (int64_t v = 0; v < count; ++v) {
      const auto total = ScanTile<T, kOutput>(p, a, s, v, batch, channel(v),
                                              width(v), l, steps, end);
      // A sum of tiles' sums, so that its error does not grow with length.
      if (segment < last) {
        float* const sum = work.sums + unit(segment, v) * lanes;
        hn::StoreU(hn::Add(hn::LoadU(d, sum), total), d, sum);
      }
    }
  }

  for (int64_t v = 0; v < count; ++v) {
    if (segment == last) {
      float* const final_state = a.final_state.as<float>() + row(v);
      for (int64_t c = 0; c < width(v); ++c)
        for (int64_t i = 0; i < p.d_state; ++i)
          final_state[c * p.d_state + i] = s.state(v)[i * lanes + c];
    } else if (segment == 0 || !kOutput) {
      std::copy_n(s.state(v), states * lanes,
                  work.ends + unit(segment, v) * states * lanes);
    }
  }
}

// Makes the end states of segments 1 .. n-2 those from the true initial state.
void ChainBlock(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
                const ScanWork& work, int64_t batch, int64_t block) {
  const F32Tag d;
  const int64_t lanes = work.lanes, states = PaddedStates(p);
  const int64_t channel = block * lanes;
  const int64_t n = std::min(lanes, p.d_inner - channel);
  const auto unit = [&](int64_t of) {
    return (of * p.batch + batch) * work.blocks + block;
  };
  HWY_ALIGN float decay[hn::MaxLanes(F32Tag())] = {};
  for (int64_t i = 0; i < p.d_state; ++i) {
    for (int64_t c = 0; c < n; ++c)
      decay[c] = a.A.as<float>()[(channel + c) * p.d_state + i] * kLog2E;
    const auto rate = hn::Load(d, decay);
    const auto end = [&](int64_t of) {
      return work.ends + (unit(of) * states + i) * lanes;
    };
    auto h = hn::LoadU(d, end(0));
    for (int64_t s = 1; s + 1 < work.split.segments; ++s) {
      const auto sum = hn::LoadU(d, work.sums + unit(s) * lanes);
      h = hn::MulAdd(Exp2Decay(d, hn::Mul(sum, rate)), h, hn::LoadU(d, end(s)));
      hn::StoreU(h, d, end(s));
    }
  }
}

template <class T>
void Scan(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
          const ScanWork& work) {
  const int64_t segments = work.split.segments;
  // body(segment, batch, block) of segments [from, to) and every `stride`th
  // block, over the threads.
  const auto for_each = [&](int64_t from, int64_t to, int64_t stride,
                            auto&& body) {
    const int64_t blocks = (work.blocks + stride - 1) / stride;
    const int64_t units = p.batch * blocks;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < (to - from) * units; ++i)
      body(from + i / units, i % units / blocks, i % blocks * stride);
  };
  for_each(0, std::max<int64_t>(1, segments - 1), work.together,
           [&](int64_t s, int64_t batch, int64_t block) {
             if (s == 0)
               ScanSegment<T, true>(p, a, work, s, batch, block);
             else
               ScanSegment<T, false>(p, a, work, s, batch, block);
           });
  if (segments == 1) return;
  for_each(0, 1, 1, [&](int64_t, int64_t batch, int64_t block) {
    ChainBlock(p, a, work, batch, block);
  });
  for_each(1, segments, work.together,
           [&](int64_t s, int64_t batch, int64_t block) {
             ScanSegment<T, true>(p, a, work, s, batch, block);
           });
}

void ScanCall(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
              const ScanWork& work) {
  DispatchDType(p.dtype, [&](auto tag) { Scan<decltype(tag)>(p, a, work); });
}

int64_t ScanLanes() { return static_cast<int64_t>(hn::Lanes(F32Tag())); }

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(ScanCall);
HWY_EXPORT(ScanLanes);
namespace {

absl::StatusOr<Launch> Plan(const SelectiveScan::Problem& p,
                            const SelectiveScan::Args& a, Device& device) {
  ScanWork work;
  work.lanes = HWY_DYNAMIC_DISPATCH(ScanLanes)();
  work.blocks = (p.d_inner + work.lanes - 1) / work.lanes;
  const int64_t units = p.batch * work.blocks;
  const int64_t states = PaddedStates(p);
  // Four blocks together, while that leaves each thread a few groups.
  work.together = std::clamp<int64_t>(units / (4 * device.threads()), 1, 4);
  work.split = ChooseTimeSplit(
      p.seqlen, units, device.threads(), kScanTile,
      // No C, z or y; a fork and join of the threads; 1/16 of a tile's work.
      {.state_step = 0.8, .per_split = 64, .per_segment = 4});
  // Cache lines of its own for each thread.
  work.scratch_stride =
      (ScanScratchSize(work.lanes, states, work.together) + 31) / 16 * 16;
  const int64_t scratch = device.threads() * work.scratch_stride;
  const int64_t ends = (work.split.segments - 1) * units * work.lanes;
  auto buffer = device.Allocate((scratch + ends * (states + 1)) * sizeof(float),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  work.scratch = static_cast<float*>(buffer->data());
  work.ends = work.scratch + scratch;
  work.sums = work.ends + ends * states;
  return [p, a, work,
          owner = std::make_shared<Buffer>(*std::move(buffer))](Stream) {
    HWY_DYNAMIC_DISPATCH(ScanCall)(p, a, work);
    return absl::OkStatus();
  };
}

const bool registered = AddProvider<SelectiveScan>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
