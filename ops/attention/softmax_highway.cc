// SPDX-License-Identifier: Apache-2.0
//
// The online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et
// al. 2022, arXiv:2205.14135) on a tile that lies in L2. With AMX products the
// exponentials are most of the work: the polynomial is as short as 16-bit
// weights allow, and rows are rescaled only when they must be.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/softmax_highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "hwy/cache_control.h"
#include "ops/attention/softmax_highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// 2^x for weights of 16 bits, within 3e-6, for |x| < 2^22; 2^-126 below -126.
// x + 1.5 * 2^23 has the nearest integer to x in its low bits, and a minimax
// polynomial does the fraction.
HWY_INLINE F32Vec Weight(F32Tag d, F32Vec x, uint16_t) {
  const hn::RebindToSigned<F32Tag> di;
  const auto magic = hn::Set(d, 12582912.0f);
  x = hn::Max(x, hn::Set(d, -126.0f));
  const auto n = hn::Add(x, magic);
  const auto f = hn::Sub(x, hn::Sub(n, magic));
  auto p = hn::Set(d, 9.57010191e-3f);
  p = hn::MulAdd(p, f, hn::Set(d, 5.59178603e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.40247448e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.93121815e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.99999261e-1f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, n));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
}
HWY_INLINE F32Vec Weight(F32Tag d, F32Vec x, float) { return Exp2(d, x); }

// Two vectors of finite positive values, rounded to nearest.
template <class T>
HWY_INLINE void StorePair(F32Tag d, F32Vec a, F32Vec b, T* to) {
  StoreF32(d, a, to);
  StoreF32(d, b, to + hn::Lanes(d));
}
#if HWY_TARGET != HWY_SCALAR
// The rounded value is the upper half of the bits; ties go up, as weights of
// exactly half a step are one in 65536.
HWY_INLINE void StorePair(F32Tag d, F32Vec a, F32Vec b, BF16* to) {
  const hn::RebindToUnsigned<F32Tag> d32;
  const hn::Repartition<uint16_t, F32Tag> d16;
  const auto half = hn::Set(d32, 0x8000u);
  const auto low = hn::BitCast(d16, hn::Add(hn::BitCast(d32, a), half));
  const auto high = hn::BitCast(d16, hn::Add(hn::BitCast(d32, b), half));
  hn::StoreU(hn::ConcatOdd(d16, high, low), d16,
             reinterpret_cast<uint16_t*>(to));
}
#endif

// The columns of a row that are worked on: those of seen keys and what lies
// between, rounded out to pairs of vectors.
struct Columns {
  int64_t sink;        // 0 .. sink are seen
  int64_t low, high;   // and these; none if low == high
  int64_t begin, end;  // worked on
};

HWY_INLINE Columns ColumnsOf(const SoftmaxTile& t, int64_t row) {
  const auto pair = static_cast<int64_t>(2 * hn::Lanes(F32Tag()));
  const int64_t seen_to = t.query + row / t.group + 1 - t.key;
  Columns c;
  c.high = std::clamp<int64_t>(seen_to, 0, t.keys);
  c.sink = std::clamp<int64_t>(t.sink - t.key, 0, c.high);
  c.low = std::max(c.sink, seen_to - t.reach);
  if (c.low >= c.high) c.low = c.high = c.sink;
  c.begin = c.sink > 0 ? 0 : c.low / pair * pair;
  c.end = (c.high + pair - 1) / pair * pair;
  return c;
}

// Masks the row and takes its maximum into `greatest`; returns the factor by
// which sums and outputs so far shrink. A maximum that grows by less than 2^8
// leaves `greatest` alone: weights may be that much above 1, as in
// FlashAttention-4, and most tiles then rescale nothing.
HWY_INLINE float UpdateGreatest(const SoftmaxTile& t, int64_t row,
                                const Columns& c) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float* const s = t.scores + row * t.keys;
  std::fill(s + std::max(c.begin, c.sink), s + c.low, -HUGE_VALF);
  std::fill(s + c.high, s + c.end, -HUGE_VALF);
  auto m0 = hn::Set(d, -HUGE_VALF), m1 = m0;
  for (int64_t i = c.begin; i < c.end; i += 2 * lanes) {
    m0 = hn::Max(m0, hn::LoadU(d, s + i));
    m1 = hn::Max(m1, hn::LoadU(d, s + i + lanes));
  }
  const float tile_greatest =
      t.scale * hn::GetLane(hn::MaxOfLanes(d, hn::Max(m0, m1)));
  const float before = t.greatest[row];
  if (!(tile_greatest > before + 8.0f)) return 1.0f;
  t.greatest[row] = tile_greatest;
  return std::exp2(before - tile_greatest);  // 0 at the first tile
}

// Returns the sum of the row's weights.
template <class T>
HWY_INLINE float Exponentials(const SoftmaxTile& t, int64_t row,
                              const Columns& c) {
  const F32Tag d;
  using Kind = std::conditional_t<std::is_same_v<T, float>, float, uint16_t>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* const s = t.scores + row * t.keys;
  T* const w = static_cast<T*>(t.weights) + row * t.keys;
  if (c.begin > 0) std::memset(w, 0, c.begin * sizeof(T));
  if (c.end < t.keys) std::memset(w + c.end, 0, (t.keys - c.end) * sizeof(T));
  const auto scale = hn::Set(d, t.scale), shift = hn::Set(d, t.greatest[row]);
  auto sum0 = hn::Zero(d), sum1 = sum0;
  for (int64_t i = c.begin; i < c.end; i += 2 * lanes) {
    const auto a =
        Weight(d, hn::MulSub(hn::LoadU(d, s + i), scale, shift), Kind());
    const auto b = Weight(
        d, hn::MulSub(hn::LoadU(d, s + i + lanes), scale, shift), Kind());
    sum0 = hn::Add(sum0, a);
    sum1 = hn::Add(sum1, b);
    StorePair(d, a, b, w + i);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

HWY_INLINE void Rescale(const SoftmaxTile& t, int64_t row, float factor) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  t.sums[row] *= factor;
  for (int64_t block = 0; block < t.blocks; ++block) {
    float* const o = t.outputs + (block * t.rows + row) * kAttentionOutputBlock;
    for (int64_t i = 0; i < kAttentionOutputBlock; i += lanes)
      hn::StoreU(hn::Mul(hn::LoadU(d, o + i), hn::Set(d, factor)), d, o + i);
  }
}

// A few rows at a time: the chain of shuffles that ends each row's maximum
// overlaps the next row's.
template <class T>
void SoftmaxRows(const SoftmaxTile& t) {
  constexpr int64_t kAtOnce = 4;
  for (int64_t first = 0; first < t.rows; first += kAtOnce) {
    const int64_t count = std::min(kAtOnce, t.rows - first);
    Columns columns[kAtOnce];
    for (int64_t r = 0; r < count; ++r) {
      columns[r] = ColumnsOf(t, first + r);
      const float factor = UpdateGreatest(t, first + r, columns[r]);
      if (factor != 1.0f) Rescale(t, first + r, factor);
    }
    for (int64_t r = 0; r < count; ++r)
      t.sums[first + r] += Exponentials<T>(t, first + r, columns[r]);
  }
}

void Softmax(const SoftmaxTile& t) {
  DispatchDType(t.weights_dtype,
                [&](auto tag) { SoftmaxRows<decltype(tag)>(t); });
}

// row(r, pointer) for each row. A row's few lines lie pages apart, out of the
// hardware prefetcher's sight, so they are asked for ahead.
template <class T, class Row>
HWY_INLINE void ForEachRow(const TensorRows& t, Row&& row) {
  constexpr int64_t kAhead = 16;
  const auto at = [&](int64_t r) {
    return static_cast<T*>(t.data) + r / t.group * t.stride +
           r % t.group * t.width;
  };
  for (int64_t r = 0; r < t.rows; ++r) {
    if (r + kAhead < t.rows) {
      const T* const ahead = at(r + kAhead);
      for (int64_t i = 0; i < t.width; i += 64 / sizeof(T))
        hwy::Prefetch(ahead + i);
    }
    row(r, at(r));
  }
}

void Load(const TensorRows& from, DType to_dtype, void* to, int64_t width) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  DispatchDType(from.dtype, [&](auto from_tag) {
    DispatchDType(to_dtype, [&](auto to_tag) {
      using From = decltype(from_tag);
      using To = decltype(to_tag);
      To* out = static_cast<To*>(to);
      ForEachRow<From>(from, [&](int64_t, const From* in) {
        if constexpr (std::is_same_v<From, To>) {
          std::memcpy(out, in, from.width * sizeof(To));
        } else {
          ForEachVector(from.width, lanes, [&](int64_t i, int64_t n) {
            StoreF32N(d, LoadF32N(d, in + i, n), out + i, n);
          });
        }
        std::memset(out + from.width, 0, (width - from.width) * sizeof(To));
        out += width;
      });
    });
  });
}

void Store(const SoftmaxTile& t, const TensorRows& to) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  DispatchDType(to.dtype, [&](auto tag) {
    using T = decltype(tag);
    ForEachRow<T>(to, [&](int64_t r, T* out) {
      const auto factor = hn::Set(d, 1.0f / t.sums[r]);
      for (int64_t at = 0; at < to.width; at += kAttentionOutputBlock) {
        const float* const o =
            t.outputs + at * t.rows + r * kAttentionOutputBlock;
        ForEachVector(std::min(kAttentionOutputBlock, to.width - at), lanes,
                      [&](int64_t i, int64_t n) {
                        StoreF32N(d, hn::Mul(LoadF32N(d, o + i, n), factor),
                                  out + at + i, n);
                      });
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(Softmax);
HWY_EXPORT(Load);
HWY_EXPORT(Store);

void AttentionSoftmax(const SoftmaxTile& tile) {
  HWY_DYNAMIC_DISPATCH(Softmax)(tile);
}

void AttentionLoad(const TensorRows& from, DType to_dtype, void* to,
                   int64_t width) {
  HWY_DYNAMIC_DISPATCH(Load)(from, to_dtype, to, width);
}

void AttentionStore(const SoftmaxTile& from, const TensorRows& to) {
  HWY_DYNAMIC_DISPATCH(Store)(from, to);
}

}  // namespace seqmark
#endif
