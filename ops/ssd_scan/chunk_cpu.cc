// SPDX-License-Identifier: Apache-2.0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/ssd_scan/chunk_cpu.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
// clang-format on

#include <type_traits>

#include "ops/ssd_scan/chunk_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

using ssd::ChunkMath;
using ssd::ChunkPlace;

// body(T(), M()): the storage types of the tensors and of matrix operands.
template <class Body>
HWY_INLINE void DispatchTypes(const ChunkMath& m, Body&& body) {
  DispatchDType(m.p.dtype, [&](auto t) {
    if constexpr (std::is_same_v<decltype(t), BF16>)
      if (m.bf16) return body(t, BF16());
    body(t, float());
  });
}

// The address of a tensor's (batch, token, inner index).
template <class T>
HWY_INLINE T* At(const Tensor& t, int64_t batch, int64_t token, int64_t inner) {
  return t.as<T>() + batch * t.strides[0] + token * t.strides[1] + inner;
}

// to[i] = from[i] * scale, converted.
template <class T, class M>
HWY_INLINE void ScaleRow(const T* HWY_RESTRICT from, float scale,
                         M* HWY_RESTRICT to, int64_t n) {
  const F32Tag d;
  const auto s = hn::Set(d, scale);
  ForEachVector(n, hn::Lanes(d), [&](int64_t i, int64_t k) {
    StoreF32N(d, hn::Mul(LoadF32N(d, from + i, k), s), to + i, k);
  });
}

template <class T, class M>
HWY_INLINE void TransposeRows(const T* from, int64_t stride, int64_t rows,
                              int64_t columns, M* to) {
  constexpr int64_t kBlock = 16;  // rows of a cache line's columns at a time
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; r += kBlock)
      for (int64_t i = r; i < std::min(rows, r + kBlock); ++i)
        to[c * rows + i] = from[i * stride + c];
}

template <class T>
HWY_INLINE void Steps(const ChunkMath& m, const ChunkPlace& at) {
  const F32Tag d;
  const auto& b = m.buffers;
  for (int64_t h0 = 0; h0 < at.heads; h0 += hn::Lanes(d)) {
    const int64_t n =
        std::min<int64_t>(at.heads - h0, static_cast<int64_t>(hn::Lanes(d)));
    const int64_t head = at.first_head + h0;
    const auto bias = m.a.dt_bias
                          ? LoadF32N(d, m.a.dt_bias.as<float>() + head, n)
                          : hn::Zero(d);
    HWY_ALIGN float step[hn::MaxLanes(F32Tag())];
    double sum[hn::MaxLanes(F32Tag())] = {};
    for (int64_t l = 0; l < at.tokens; ++l) {
      const T* dt = At<T>(m.a.dt, at.batch, at.token + l, head);
      const auto soft = Softplus(d, hn::Add(LoadF32N(d, dt, n), bias));
      hn::Store(hn::Max(soft, hn::Set(d, m.p.dt_min)), d, step);
      for (int64_t h = 0; h < n; ++h) {
        const int64_t i = (h0 + h) * ssd::kMaxChunk + l;
        sum[h] += static_cast<double>(step[h]) * m.a.A.as<float>()[head + h];
        b.step[i] = step[h];
        b.sum_high[i] = static_cast<float>(sum[h]);
        b.sum_low[i] = static_cast<float>(sum[h] - b.sum_high[i]);
      }
    }
  }
}

// One head's sums of exponents within a chunk.
struct Sums {
  const float* high;
  const float* low;
  HWY_INLINE float Difference(int64_t i, int64_t j) const {
    return (high[i] - high[j]) + (low[i] - low[j]);
  }
  // From each of the vector's tokens j.. to token i.
  HWY_INLINE F32Vec Difference(F32Tag d, int64_t i, int64_t j) const {
    return hn::Add(hn::Sub(hn::Set(d, high[i]), hn::LoadU(d, high + j)),
                   hn::Sub(hn::Set(d, low[i]), hn::LoadU(d, low + j)));
  }
};
HWY_INLINE Sums HeadSums(const ChunkMath& m, int64_t head) {
  return {m.buffers.sum_high + head * ssd::kMaxChunk,
          m.buffers.sum_low + head * ssd::kMaxChunk};
}

HWY_INLINE void FillDecays(const ChunkMath& m, const ChunkPlace& at) {
  const F32Tag d;
  for (int64_t h = 0; h < at.heads; ++h) {
    const Sums sums = HeadSums(m, h);
    const int64_t row = h * ssd::kMaxChunk;
    for (int64_t l = 0; l < at.tokens; l += hn::Lanes(d)) {
      const auto exponent =
          hn::Min(sums.Difference(d, at.tokens - 1, l), hn::Zero(d));
      hn::StoreU(FastExp(d, hn::LoadU(d, sums.high + l)), d,
                 m.buffers.from_start + row + l);
      hn::StoreU(
          hn::Mul(hn::LoadU(d, m.buffers.step + row + l), FastExp(d, exponent)),
          d, m.buffers.to_end + row + l);
    }
  }
}

void ChunkBegin(const ChunkMath& m, const ChunkPlace& at) {
  DispatchTypes(m, [&](auto t, auto tm) {
    using T = decltype(t);
    using M = decltype(tm);
    constexpr bool kConvert = !std::is_same_v<T, M>;
    const F32Tag d;
    const auto& p = m.p;
    const auto& b = m.buffers;
    const int64_t width = at.heads * p.head_dim;
    Steps<T>(m, at);
    const T* const B = At<T>(m.a.B, at.batch, at.token, at.group * p.d_state);
    const T* const C = At<T>(m.a.C, at.batch, at.token, at.group * p.d_state);
    if constexpr (kConvert) {
      for (int64_t l = 0; l < at.tokens; ++l) {
        ScaleRow(B + l * m.a.B.strides[1], 1.0f,
                 static_cast<M*>(b.B) + l * p.d_state, p.d_state);
        ScaleRow(C + l * m.a.C.strides[1], 1.0f,
                 static_cast<M*>(b.C) + l * p.d_state, p.d_state);
        ScaleRow(
            At<T>(m.a.x, at.batch, at.token + l, at.first_head * p.head_dim),
            1.0f, static_cast<M*>(b.x) + l * width, width);
      }
      TransposeRows(static_cast<const M*>(b.B), p.d_state, at.tokens, p.d_state,
                    static_cast<M*>(b.B_t));
    } else {
      TransposeRows(B, m.a.B.strides[1], at.tokens, p.d_state,
                    static_cast<M*>(b.B_t));
    }
    FillDecays(m, at);
    for (int64_t l = 0; l < at.tokens; ++l) {
      const T* x =
          At<T>(m.a.x, at.batch, at.token + l, at.first_head * p.head_dim);
      M* scaled = static_cast<M*>(b.x_scaled) + l * width;
      // Rows of x are too far apart for the hardware to see them coming.
      constexpr int64_t kAhead = 4, kLine = 64 / sizeof(T);
      if (at.token + l + kAhead < p.seqlen)
        for (int64_t i = 0; i < width; i += kLine)
          hwy::Prefetch(x + kAhead * m.a.x.strides[1] + i);
      for (int64_t h = 0; h < at.heads; ++h) {
        M* const copy = static_cast<M*>(b.x) + (h * at.tokens + l) * p.head_dim;
        const auto factor = hn::Set(d, b.to_end[h * ssd::kMaxChunk + l]);
        ForEachVector(p.head_dim, hn::Lanes(d), [&](int64_t i, int64_t n) {
          const auto v = LoadF32N(d, x + i, n);
          if constexpr (kConvert) StoreF32N(d, v, copy + i, n);
          StoreF32N(d, hn::Mul(v, factor), scaled + i, n);
        });
        if constexpr (!kConvert) std::copy_n(x, p.head_dim, copy);
        x += p.head_dim;
        scaled += p.head_dim;
      }
    }
  });
}

// Columns in blocks of a vector. Below the diagonal block, a decay is the
// product of one from token j to its block's end and one from there to i, both
// at most 1: an exponential for each (i, block) and not for each (i, j).
template <class M>
void HeadScores(const ChunkMath& m, const ChunkPlace& at, int64_t head) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto& b = m.buffers;
  const Sums sums = HeadSums(m, head);
  const float* const step = b.step + head * ssd::kMaxChunk;
  M* const out = static_cast<M*>(b.scores) + head * at.tokens * at.tokens;
  const auto zero = hn::Zero(d);
  const int64_t blocks = (at.tokens + lanes - 1) / lanes;
  HWY_ALIGN float end_high[ssd::kMaxChunk] = {}, end_low[ssd::kMaxChunk] = {};
  HWY_ALIGN float from_end[ssd::kMaxChunk];
  for (int64_t k = 0; k < blocks; ++k) {
    const int64_t end = std::min(at.tokens, (k + 1) * lanes) - 1;
    end_high[k] = sums.high[end];
    end_low[k] = sums.low[end];
    const auto exponent = hn::Min(sums.Difference(d, end, k * lanes), zero);
    hn::StoreU(hn::Mul(hn::LoadU(d, step + k * lanes), FastExp(d, exponent)), d,
               b.to_block_end + k * lanes);
  }
  const auto index = hn::Iota(d, 0);
  for (int64_t i = 0; i < at.tokens; ++i) {
    const float* const cb = b.cb + i * at.tokens;
    M* const row = out + i * at.tokens;
    const int64_t diagonal = i / lanes;
    for (int64_t k = 0; k < diagonal; k += lanes) {
      const auto exponent =
          hn::Add(hn::Sub(hn::Set(d, sums.high[i]), hn::Load(d, end_high + k)),
                  hn::Sub(hn::Set(d, sums.low[i]), hn::Load(d, end_low + k)));
      hn::Store(FastExp(d, hn::Min(exponent, zero)), d, from_end + k);
    }
    for (int64_t k = 0; k < diagonal; ++k) {
      const auto decay = hn::Mul(hn::Set(d, from_end[k]),
                                 hn::LoadU(d, b.to_block_end + k * lanes));
      StoreF32(d, hn::Mul(hn::LoadU(d, cb + k * lanes), decay),
               row + k * lanes);
    }
    const int64_t j = diagonal * lanes;
    const int64_t n = std::min(lanes, at.tokens - j);
    const auto decay =
        hn::Mul(hn::LoadU(d, step + j),
                FastExp(d, hn::Min(sums.Difference(d, i, j), zero)));
    const auto causal = hn::Le(index, hn::Set(d, static_cast<float>(i - j)));
    StoreF32N(
        d, hn::IfThenElseZero(causal, hn::Mul(LoadF32N(d, cb + j, n), decay)),
        row + j, n);
    ForEachVector(at.tokens - j - n, lanes, [&](int64_t k, int64_t count) {
      StoreF32N(d, zero, row + j + n + k, count);
    });
  }
}

void ChunkScores(const ChunkMath& m, const ChunkPlace& at) {
  for (int64_t h = 0; h < at.heads; ++h)
    if (m.bf16)
      HeadScores<BF16>(m, at, h);
    else
      HeadScores<float>(m, at, h);
}

void ChunkEnd(const ChunkMath& m, const ChunkPlace& at) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto& p = m.p;
  const auto& b = m.buffers;
  const int64_t width = at.heads * p.head_dim;
  DispatchTypes(m, [&](auto t, auto tm) {
    using T = decltype(t);
    using M = decltype(tm);
    for (int64_t l = 0; l < at.tokens; ++l)
      for (int64_t h = 0; h < at.heads; ++h) {
        const int64_t head = at.first_head + h;
        const int64_t inner = head * p.head_dim;
        const auto skip = hn::Set(d, m.a.D ? m.a.D.as<float>()[head] : 0.0f);
        const auto from_start =
            hn::Set(d, b.from_start[h * ssd::kMaxChunk + l]);
        const float* const y_state = b.y_state + l * width + h * p.head_dim;
        const float* const y_token =
            b.y_token + (h * at.tokens + l) * p.head_dim;
        const T* const x = At<T>(m.a.x, at.batch, at.token + l, inner);
        const T* const z =
            m.a.z ? At<T>(m.a.z, at.batch, at.token + l, inner) : nullptr;
        T* const y = At<T>(m.a.y, at.batch, at.token + l, inner);
        ForEachVector(p.head_dim, lanes, [&](int64_t i, int64_t n) {
          auto v = hn::MulAdd(LoadF32N(d, y_state + i, n), from_start,
                              LoadF32N(d, y_token + i, n));
          v = hn::MulAdd(LoadF32N(d, x + i, n), skip, v);
          if (z != nullptr) v = hn::Mul(v, Silu(d, LoadF32N(d, z + i, n)));
          StoreF32N(d, v, y + i, n);
        });
      }
    for (int64_t s = 0; s < p.d_state; ++s)
      for (int64_t h = 0; h < at.heads; ++h) {
        const int64_t base = s * width + h * p.head_dim;
        const auto factor =
            hn::Set(d, b.from_start[h * ssd::kMaxChunk + at.tokens - 1]);
        M* const out = static_cast<M*>(b.state_m) + base;
        ForEachVector(p.head_dim, lanes, [&](int64_t i, int64_t n) {
          const auto v = hn::MulAdd(LoadF32N(d, b.state + base + i, n), factor,
                                    LoadF32N(d, b.added + base + i, n));
          StoreF32N(d, v, b.state + base + i, n);
          if constexpr (!std::is_same_v<M, float>) StoreF32N(d, v, out + i, n);
        });
      }
  });
}

void ChunkLoadState(const ChunkMath& m, const ChunkPlace& at) {
  const auto& p = m.p;
  const auto& b = m.buffers;
  const int64_t width = at.heads * p.head_dim;
  const float* const from =
      m.a.initial_state
          ? m.a.initial_state.as<float>() +
                (at.batch * p.heads + at.first_head) * p.head_dim * p.d_state
          : nullptr;
  if (from != nullptr)
    TransposeRows(from, p.d_state, width, p.d_state, b.state);
  else
    std::fill_n(b.state, width * p.d_state, 0.0f);
  if (m.bf16)
    ScaleRow(b.state, 1.0f, static_cast<BF16*>(b.state_m), width * p.d_state);
}

void ChunkStoreState(const ChunkMath& m, const ChunkPlace& at) {
  const auto& p = m.p;
  const int64_t width = at.heads * p.head_dim;
  TransposeRows(
      m.buffers.state, width, p.d_state, width,
      m.a.final_state.as<float>() +
          (at.batch * p.heads + at.first_head) * p.head_dim * p.d_state);
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(ChunkBegin);
HWY_EXPORT(ChunkScores);
HWY_EXPORT(ChunkEnd);
HWY_EXPORT(ChunkLoadState);
HWY_EXPORT(ChunkStoreState);

namespace ssd {
void ChunkMath::Begin(const ChunkPlace& at) const {
  HWY_DYNAMIC_DISPATCH(ChunkBegin)(*this, at);
}
void ChunkMath::Scores(const ChunkPlace& at) const {
  HWY_DYNAMIC_DISPATCH(ChunkScores)(*this, at);
}
void ChunkMath::End(const ChunkPlace& at) const {
  HWY_DYNAMIC_DISPATCH(ChunkEnd)(*this, at);
}
void ChunkMath::LoadState(const ChunkPlace& at) const {
  HWY_DYNAMIC_DISPATCH(ChunkLoadState)(*this, at);
}
void ChunkMath::StoreState(const ChunkPlace& at) const {
  HWY_DYNAMIC_DISPATCH(ChunkStoreState)(*this, at);
}
}  // namespace ssd
}  // namespace seqmark
#endif
