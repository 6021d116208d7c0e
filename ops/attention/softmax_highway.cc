// SPDX-License-Identifier: Apache-2.0
//
// The online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et
// al. 2022, arXiv:2205.14135) on a tile that lies in L2. With AMX products the
// exponentials are most of the work, so a score is read twice (its maximum,
// then the rest) and each pass is unrolled to keep both vector ports busy.
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

#include "ops/attention/softmax_highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// body(i, n) over [begin, end) by vectors, four at a time while there are.
template <class Body>
HWY_INLINE void Unrolled(int64_t begin, int64_t end, int64_t lanes,
                         Body&& body) {
  int64_t i = begin;
  for (; i + 4 * lanes <= end; i += 4 * lanes) {
    body(i, 0);
    body(i + lanes, 1);
    body(i + 2 * lanes, 2);
    body(i + 3 * lanes, 3);
  }
  for (; i < end; i += lanes) body(i, 0);
}

template <class T>
HWY_INLINE void SoftmaxRow(const SoftmaxTile& t, int64_t row) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float* const s = t.scores + row * t.keys;
  T* const w = static_cast<T*>(t.weights) + row * t.keys;
  const int64_t seen_to = t.query + row / t.group + 1 - t.key;
  const int64_t high = std::min(t.keys, seen_to);
  const int64_t low = std::max<int64_t>(0, seen_to - t.span);
  if (low >= high) {
    std::memset(w, 0, t.keys * sizeof(T));
    return;
  }
  // Whole vectors [begin, end); what they hold beyond [low, high) is masked.
  const int64_t begin = low / lanes * lanes;
  const int64_t end = (high + lanes - 1) / lanes * lanes;
  std::fill(s + begin, s + low, -HUGE_VALF);
  std::fill(s + high, s + end, -HUGE_VALF);
  std::memset(w, 0, begin * sizeof(T));
  std::memset(w + end, 0, (t.keys - end) * sizeof(T));

  auto m0 = hn::Set(d, -HUGE_VALF), m1 = m0, m2 = m0, m3 = m0;
  Unrolled(begin, end, lanes, [&](int64_t i, int k) HWY_ATTR {
    const auto v = hn::LoadU(d, s + i);
    auto& m = k == 0 ? m0 : k == 1 ? m1 : k == 2 ? m2 : m3;
    m = hn::Max(m, v);
  });
  const float tile_greatest =
      hn::GetLane(hn::MaxOfLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
  const float before = t.greatest[row];
  const float greatest = std::max(before, tile_greatest * t.scale);
  t.greatest[row] = greatest;

  const auto scale = hn::Set(d, t.scale), shift = hn::Set(d, greatest);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  Unrolled(begin, end, lanes, [&](int64_t i, int k) HWY_ATTR {
    const auto e = Exp2(d, hn::MulSub(hn::LoadU(d, s + i), scale, shift));
    auto& sum = k == 0 ? s0 : k == 1 ? s1 : k == 2 ? s2 : s3;
    sum = hn::Add(sum, e);
    StoreF32(d, e, w + i);
  });
  const float sum =
      hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  if (greatest == before) {
    t.sums[row] += sum;
    return;
  }
  const float keep = std::exp2(before - greatest);  // 0 at the first tile
  t.sums[row] = t.sums[row] * keep + sum;
  const auto factor = hn::Set(d, keep);
  for (int64_t block = 0; block < t.blocks; ++block) {
    float* const o = t.outputs + (block * t.rows + row) * kAttentionOutputBlock;
    for (int64_t i = 0; i < kAttentionOutputBlock; i += lanes)
      hn::StoreU(hn::Mul(hn::LoadU(d, o + i), factor), d, o + i);
  }
}

void Softmax(const SoftmaxTile& t) {
  DispatchDType(t.weights_dtype, [&](auto tag) {
    for (int64_t row = 0; row < t.rows; ++row)
      SoftmaxRow<decltype(tag)>(t, row);
  });
}

void Load(DType from_dtype, const void* from, int64_t from_stride, int64_t rows,
          int64_t width, DType to_dtype, void* to, int64_t to_stride) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  DispatchDType(from_dtype, [&](auto from_tag) {
    DispatchDType(to_dtype, [&](auto to_tag) {
      using To = decltype(to_tag);
      const auto* in = static_cast<const decltype(from_tag)*>(from);
      auto* out = static_cast<To*>(to);
      for (int64_t r = 0; r < rows; ++r, in += from_stride, out += to_stride) {
        ForEachVector(width, lanes, [&](int64_t i, int64_t n) HWY_ATTR {
          StoreF32N(d, LoadF32N(d, in + i, n), out + i, n);
        });
        std::memset(out + width, 0, (to_stride - width) * sizeof(To));
      }
    });
  });
}

void Store(const SoftmaxTile& t, int64_t row, int64_t rows, int64_t width,
           DType dtype, void* to) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  DispatchDType(dtype, [&](auto tag) {
    auto* out = static_cast<decltype(tag)*>(to);
    for (int64_t r = row; r < row + rows; ++r, out += width) {
      const auto factor = hn::Set(d, 1.0f / t.sums[r]);
      for (int64_t at = 0; at < width; at += kAttentionOutputBlock) {
        const float* const o =
            t.outputs + at * t.rows + r * kAttentionOutputBlock;
        ForEachVector(std::min(kAttentionOutputBlock, width - at), lanes,
                      [&](int64_t i, int64_t n) HWY_ATTR {
                        StoreF32N(d, hn::Mul(LoadF32N(d, o + i, n), factor),
                                  out + at + i, n);
                      });
      }
    }
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

void AttentionLoad(DType from_dtype, const void* from, int64_t from_stride,
                   int64_t rows, int64_t width, DType to_dtype, void* to,
                   int64_t to_stride) {
  HWY_DYNAMIC_DISPATCH(Load)
  (from_dtype, from, from_stride, rows, width, to_dtype, to, to_stride);
}

void AttentionStore(const SoftmaxTile& tile, int64_t row, int64_t rows,
                    int64_t width, DType dtype, void* to) {
  HWY_DYNAMIC_DISPATCH(Store)(tile, row, rows, width, dtype, to);
}

}  // namespace seqmark
#endif
