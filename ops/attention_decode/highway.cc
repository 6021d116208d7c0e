// SPDX-License-Identifier: Apache-2.0
//
// Attention of one token on the CPU, bound by memory: threads over pieces of
// the keys of a sequence, whose results are combined at the end. A piece is of
// all key heads where there are enough, so that memory is read in order; the
// next block of keys is asked for while one is worked on. A row of keys or
// values is widened once for up to four query heads of its group, in registers.
// A dot product's lanes are added up for as many keys at once as a vector has
// lanes.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_decode/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include <cmath>

#include "fixtures/op_fixture.h"
#include "hwy/cache_control.h"
#include "ops/attention_decode/attention_decode.h"

#ifndef SEQMARK_ATTENTION_DECODE_CALL_
#define SEQMARK_ATTENTION_DECODE_CALL_
namespace seqmark {

// A call and where its f32 scratch is.
struct AttentionDecodeCall {
  static constexpr int64_t kBlock = 64;  // keys between two rescalings
  static constexpr int64_t kLanes =
      64;  // rows are padded to; no vector is wider

  AttentionDecode::Problem p;
  AttentionDecode::Args a;
  int64_t splits = 1;         // pieces of the keys
  int64_t piece_heads = 1;    // key heads of a piece; divides kv_heads
  int64_t row = kLanes;       // floats: the greater head_dim, padded
  float* queries = nullptr;   // (batch, heads, row), scaled
  float* outputs = nullptr;   // (batch, kv_heads, splits, group, row)
  float* greatest = nullptr;  // (batch, kv_heads, splits, group)
  float* sums = nullptr;      // (batch, kv_heads, splits, group)
  float* threads = nullptr;   // (threads, thread_floats)
  // Of a thread: factors, scores of a block, lanes of dot products.
  int64_t padded_group() const { return (p.group() + 15) / 16 * 16; }
  int64_t thread_floats() const {
    return padded_group() + p.group() * kBlock + 4 * kLanes * kLanes;
  }
  // Neighbouring keys; no block has sinks and others.
  struct Block {
    int64_t first = 0, keys = 0;
  };
  int64_t sink_blocks() const { return (p.sinks() + kBlock - 1) / kBlock; }
  int64_t blocks() const {
    return sink_blocks() + (p.seqlen - p.first_key() + kBlock - 1) / kBlock;
  }
  Block BlockAt(int64_t i) const {
    const bool sink = i < sink_blocks();
    const int64_t first =
        sink ? i * kBlock : p.first_key() + (i - sink_blocks()) * kBlock;
    return {first, std::min(kBlock, (sink ? p.sinks() : p.seqlen) - first)};
  }
};

}  // namespace seqmark
#endif

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

constexpr int64_t kBlock = AttentionDecodeCall::kBlock;

// Lane i is the sum of the lanes of vector i of the kCount = Lanes(d) at
// `from`.
template <int kCount>
HWY_INLINE F32Vec LaneSums(F32Tag d, const float* from) {
  if constexpr (kCount == 1) {
    return hn::Load(d, from);
  } else {
#if HWY_TARGET == HWY_SCALAR
    HWY_ABORT("one lane");
#else
    const auto a = LaneSums<kCount / 2>(d, from);
    const auto b = LaneSums<kCount / 2>(d, from + kCount / 2 * hn::Lanes(d));
    return hn::Add(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a));
#endif
  }
}
HWY_INLINE F32Vec LaneSums(F32Tag d, const float* from) {
  constexpr size_t kMost = hn::MaxLanes(F32Tag());
  const size_t lanes = hn::Lanes(d);
  if constexpr (kMost >= 64)
    if (lanes == 64) return LaneSums<64>(d, from);
  if constexpr (kMost >= 32)
    if (lanes == 32) return LaneSums<32>(d, from);
  if constexpr (kMost >= 16)
    if (lanes == 16) return LaneSums<16>(d, from);
  if constexpr (kMost >= 8)
    if (lanes == 8) return LaneSums<8>(d, from);
  if constexpr (kMost >= 4)
    if (lanes == 4) return LaneSums<4>(d, from);
  if constexpr (kMost >= 2)
    if (lanes == 2) return LaneSums<2>(d, from);
  return LaneSums<1>(d, from);
}

// Products of two keys with kHeads queries, `row` floats apart, summed but for
// the lanes: those of head h and key i at lanes + (h * Lanes + i) * Lanes.
template <int kHeads, class T>
HWY_INLINE void Dots(F32Tag d, const float* q, int64_t row, const T* k0,
                     const T* k1, int64_t dim, float* to) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
  auto b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  ForEachVector(dim, lanes, [&](int64_t i, int64_t n) {
    const auto x = LoadF32N(d, k0 + i, n), y = LoadF32N(d, k1 + i, n);
    const auto head = [&](int h, F32Vec& a, F32Vec& b) {
      if (h >= kHeads) return;
      const auto w = hn::LoadU(d, q + h * row + i);
      a = hn::MulAdd(w, x, a);
      b = hn::MulAdd(w, y, b);
    };
    head(0, a0, b0);
    head(1, a1, b1);
    head(2, a2, b2);
    head(3, a3, b3);
  });
  const auto store = [&](int h, F32Vec a, F32Vec b) {
    if (h >= kHeads) return;
    hn::Store(a, d, to + h * lanes * lanes);
    if (lanes > 1) hn::Store(b, d, to + h * lanes * lanes + lanes);
  };
  store(0, a0, b0);
  store(1, a1, b1);
  store(2, a2, b2);
  store(3, a3, b3);
}

// o = o * factor + sum_j p[j] v[j] of kHeads heads, for the columns of one or
// two vectors. Rows of p are kBlock apart.
template <int kHeads, bool kTwo, class T>
HWY_INLINE void Mix(F32Tag d, float* o, int64_t row, const float* factor,
                    const float* p, const T* v, int64_t stride, int64_t keys,
                    int64_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
  auto b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  const auto load = [&](int h, F32Vec& a, F32Vec& b) {
    if (h >= kHeads) return;
    const auto f = hn::Set(d, factor[h]);
    a = hn::Mul(hn::LoadU(d, o + h * row), f);
    if (kTwo) b = hn::Mul(hn::LoadU(d, o + h * row + lanes), f);
  };
  load(0, a0, b0);
  load(1, a1, b1);
  load(2, a2, b2);
  load(3, a3, b3);
  for (int64_t j = 0; j < keys; ++j, v += stride) {
    const auto x = LoadF32N(d, v, kTwo ? lanes : n);
    const auto y = kTwo ? LoadF32N(d, v + lanes, n) : x;
    const auto head = [&](int h, F32Vec& a, F32Vec& b) {
      if (h >= kHeads) return;
      const auto w = hn::Set(d, p[h * kBlock + j]);
      a = hn::MulAdd(w, x, a);
      if (kTwo) b = hn::MulAdd(w, y, b);
    };
    head(0, a0, b0);
    head(1, a1, b1);
    head(2, a2, b2);
    head(3, a3, b3);
  }
  const auto store = [&](int h, F32Vec a, F32Vec b) {
    if (h >= kHeads) return;
    hn::StoreU(a, d, o + h * row);
    if (kTwo) hn::StoreU(b, d, o + h * row + lanes);
  };
  store(0, a0, b0);
  store(1, a1, b1);
  store(2, a2, b2);
  store(3, a3, b3);
}

// body(first head, number as a constant) in tiles of up to four heads.
template <class Body>
HWY_INLINE void ForEachHeadTile(int64_t group, Body&& body) {
  using std::integral_constant;
  int64_t h = 0;
  for (; h + 4 <= group; h += 4) body(h, integral_constant<int, 4>());
  switch (group - h) {
    case 3:
      return body(h, integral_constant<int, 3>());
    case 2:
      return body(h, integral_constant<int, 2>());
    case 1:
      return body(h, integral_constant<int, 1>());
  }
}

template <class T>
HWY_INLINE void PrefetchRow(const T* row, int64_t dim) {
  for (int64_t i = 0; i < dim; i += 64 / sizeof(T)) hwy::Prefetch(row + i);
}

// Where one key head of a piece reads and writes.
template <class T>
struct Piece {
  const float* q;  // (group, row)
  const T *k, *v;  // of the sequence's first key
  int64_t k_stride, v_stride;
  float* o;                // (group, row)
  float *greatest, *sums;  // (group)
  float* scores;           // (group, kBlock)
  float* lane_sums;        // (4, Lanes, Lanes)
};

// scores = q . k of the block's keys; beyond them anything. Meanwhile it asks
// for the next block: `head` of piece_heads for its share of the keys, whole
// rows.
template <class T>
void Scores(const AttentionDecodeCall& c, const Piece<T>& piece, int64_t head,
            const AttentionDecodeCall::Block& block,
            const AttentionDecodeCall::Block& next) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t dim = c.p.head_dim, value_dim = c.p.value_dim();
  for (int64_t j = 0; j < block.keys; j += lanes) {
    const auto share = [&](int64_t at) {
      return (head * kBlock + at) / c.piece_heads;
    };
    for (int64_t i = share(j); i < std::min(share(j + lanes), next.keys); ++i) {
      const int64_t key = next.first + i;
      PrefetchRow(piece.k + key * piece.k_stride - head * dim,
                  c.piece_heads * dim);
      PrefetchRow(piece.v + key * piece.v_stride - head * value_dim,
                  c.piece_heads * value_dim);
    }
    ForEachHeadTile(c.p.group(), [&](int64_t h, auto heads) {
      for (int64_t i = 0; i < lanes; i += 2) {
        const auto key = [&](int64_t at) {
          return piece.k +
                 (block.first + std::min(at, block.keys - 1)) * piece.k_stride;
        };
        Dots<heads()>(d, piece.q + h * c.row, c.row, key(j + i), key(j + i + 1),
                      dim, piece.lane_sums + i * lanes);
      }
      for (int64_t i = 0; i < heads(); ++i)
        hn::StoreU(LaneSums(d, piece.lane_sums + i * lanes * lanes), d,
                   piece.scores + (h + i) * kBlock + j);
    });
  }
}

// scores = 2^(scores - greatest) of one head, after `greatest` grew to theirs;
// returns the factor by which what came before shrinks.
template <class T>
float Weights(const Piece<T>& piece, int64_t h, int64_t keys) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float* const s = piece.scores + h * kBlock;
  std::fill(s + keys, s + kBlock, -HUGE_VALF);
  auto most = hn::Set(d, piece.greatest[h]);
  for (int64_t i = 0; i < keys; i += lanes)
    most = hn::Max(most, hn::LoadU(d, s + i));
  const float greatest = hn::GetLane(hn::MaxOfLanes(d, most));
  const float factor = std::exp2(piece.greatest[h] - greatest);  // 0 at first
  piece.greatest[h] = greatest;
  const auto shift = hn::Set(d, greatest);
  auto sum = hn::Zero(d);
  for (int64_t i = 0; i < keys; i += lanes) {
    const auto w = Exp2Decay(d, hn::Sub(hn::LoadU(d, s + i), shift));
    sum = hn::Add(sum, w);
    hn::StoreU(w, d, s + i);
  }
  piece.sums[h] = piece.sums[h] * factor + hn::GetLane(hn::SumOfLanes(d, sum));
  return factor;
}

template <class T>
void Values(const AttentionDecodeCall& c, const Piece<T>& piece,
            const AttentionDecodeCall::Block& block, const float* factors) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const T* const v = piece.v + block.first * piece.v_stride;
  ForEachVector(c.p.value_dim(), 2 * lanes, [&](int64_t i, int64_t n) {
    ForEachHeadTile(c.p.group(), [&](int64_t h, auto heads) {
      float* const o = piece.o + h * c.row + i;
      const float* const p = piece.scores + h * kBlock;
      if (n > lanes)
        Mix<heads(), true>(d, o, c.row, factors + h, p, v + i, piece.v_stride,
                           block.keys, n - lanes);
      else
        Mix<heads(), false>(d, o, c.row, factors + h, p, v + i, piece.v_stride,
                            block.keys, n);
    });
  });
}

// Piece `item` of batch x (kv_heads / piece_heads) x splits.
template <class T>
void Attend(const AttentionDecodeCall& c, int64_t item, float* scratch) {
  const AttentionDecode::Problem& p = c.p;
  const int64_t group = p.group(), split = item % c.splits;
  const int64_t unit = item / c.splits * c.piece_heads;  // first of the piece
  const int64_t begin = split * c.blocks() / c.splits;
  const int64_t end = (split + 1) * c.blocks() / c.splits;
  float* const factors = scratch;
  const auto piece_of = [&](int64_t head) {
    const int64_t b = unit / p.kv_heads, g = unit % p.kv_heads + head;
    const auto at = [&](const Tensor& t) {
      return t.as<T>() + b * t.strides[0] + g * t.dims[3];
    };
    const int64_t index = ((unit + head) * c.splits + split) * group;
    float* const scores = scratch + c.padded_group();
    return Piece<T>{.q = c.queries + (unit + head) * group * c.row,
                    .k = at(c.a.k),
                    .v = at(c.a.v),
                    .k_stride = c.a.k.strides[1],
                    .v_stride = c.a.v.strides[1],
                    .o = c.outputs + index * c.row,
                    .greatest = c.greatest + index,
                    .sums = c.sums + index,
                    .scores = scores,
                    .lane_sums = scores + group * kBlock};
  };
  for (int64_t index = begin; index < end; ++index) {
    const AttentionDecodeCall::Block block = c.BlockAt(index);
    const auto next =
        index + 1 < end ? c.BlockAt(index + 1) : AttentionDecodeCall::Block();
    for (int64_t head = 0; head < c.piece_heads; ++head) {
      const Piece<T> piece = piece_of(head);
      if (index == begin) {
        std::fill_n(piece.o, group * c.row, 0.0f);
        std::fill_n(piece.greatest, group, -HUGE_VALF);
        std::fill_n(piece.sums, group, 0.0f);
      }
      Scores(c, piece, head, block, next);
      for (int64_t h = 0; h < group; ++h)
        factors[h] = Weights(piece, h, block.keys);
      Values(c, piece, block, factors);
    }
  }
}

// Query `head` of all sequences: in f32, scaled to exponents of 2.
template <class T>
void LoadQuery(const AttentionDecodeCall& c, int64_t head) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t b = head / c.p.heads, h = head % c.p.heads;
  const auto scale =
      hn::Set(d, static_cast<float>(M_LOG2E / std::sqrt(c.p.head_dim)));
  const T* const q = c.a.q.as<T>() + b * c.a.q.strides[0] + h * c.p.head_dim;
  ForEachVector(c.p.head_dim, lanes, [&](int64_t i, int64_t n) {
    hn::StoreU(hn::Mul(LoadF32N(d, q + i, n), scale), d,
               c.queries + head * c.row + i);
  });
}

// The output of a head from those of its pieces.
template <class T>
void Combine(const AttentionDecodeCall& c, int64_t head) {
  const F32Tag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t b = head / c.p.heads, h = head % c.p.heads;
  const int64_t group = c.p.group();
  // Of piece s: first + s * group.
  const int64_t first = head / group * c.splits * group + head % group;
  float greatest = -HUGE_VALF, sum = 0;
  for (int64_t s = 0; s < c.splits; ++s)
    greatest = std::max(greatest, c.greatest[first + s * group]);
  const auto weight = [&](int64_t s) {
    return std::exp2(c.greatest[first + s * group] - greatest);
  };
  for (int64_t s = 0; s < c.splits; ++s)
    sum += c.sums[first + s * group] * weight(s);
  for (int64_t s = 0; s < c.splits; ++s)  // in place: sums become factors
    c.sums[first + s * group] = weight(s) / sum;
  T* const o = c.a.o.as<T>() + b * c.a.o.strides[0] + h * c.p.value_dim();
  ForEachVector(c.p.value_dim(), lanes, [&](int64_t i, int64_t n) {
    auto mean = hn::Zero(d);
    for (int64_t s = 0; s < c.splits; ++s) {
      const int64_t at = first + s * group;
      mean = hn::MulAdd(hn::Set(d, c.sums[at]),
                        hn::LoadU(d, c.outputs + at * c.row + i), mean);
    }
    StoreF32N(d, mean, o + i, n);
  });
}

void AttentionDecodeRun(const AttentionDecodeCall& c) {
  const int64_t heads = c.p.batch * c.p.heads;
  const int64_t pieces = c.p.batch * (c.p.kv_heads / c.piece_heads) * c.splits;
  DispatchDType(c.p.dtype, [&](auto tag) {
    using T = decltype(tag);
#pragma omp parallel
    {
      float* const scratch =
          c.threads + omp_get_thread_num() * c.thread_floats();
#pragma omp for schedule(static)
      for (int64_t head = 0; head < heads; ++head) LoadQuery<T>(c, head);
#pragma omp for schedule(dynamic, 1)
      for (int64_t item = 0; item < pieces; ++item) Attend<T>(c, item, scratch);
#pragma omp for schedule(static)
      for (int64_t head = 0; head < heads; ++head) Combine<T>(c, head);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(AttentionDecodeRun);
namespace {

absl::StatusOr<Launch> Plan(const AttentionDecode::Problem& p,
                            const AttentionDecode::Args& a, Device& device) {
  AttentionDecodeCall call{.p = p, .a = a};
  constexpr int64_t kLanes = AttentionDecodeCall::kLanes;
  const int64_t widest = std::max(p.head_dim, p.value_dim());
  call.row = (widest + kLanes - 1) / kLanes * kLanes;
  // Some four pieces a thread, so that none waits long for the last; of single
  // heads where there would be fewer than two.
  const auto pieces_of = [&](int64_t heads) {
    const int64_t units = p.batch * (p.kv_heads / heads);
    call.piece_heads = heads;
    call.splits = std::clamp<int64_t>(
        (4 * device.threads() + units - 1) / units, 1, call.blocks());
    return units * call.splits;
  };
  if (pieces_of(p.kv_heads) < 2 * device.threads()) pieces_of(1);
  const int64_t heads = p.batch * p.heads, pieces = heads * call.splits;
  // Each part on cache lines of its own.
  int64_t floats = 0;
  const auto part = [&](int64_t size) {
    const int64_t at = floats;
    floats += (size + 15) / 16 * 16;
    return at;
  };
  const int64_t queries = part(heads * call.row),
                outputs = part(pieces * call.row), greatest = part(pieces),
                sums = part(pieces),
                threads = part(device.threads() * call.thread_floats());
  auto scratch =
      device.Allocate(floats * sizeof(float), MemoryClass::kWorkspace);
  if (!scratch.ok()) return scratch.status();
  auto* const base = static_cast<float*>(scratch->data());
  call.queries = base + queries;
  call.outputs = base + outputs;
  call.greatest = base + greatest;
  call.sums = base + sums;
  call.threads = base + threads;
  return
      [call, scratch = std::make_shared<Buffer>(*std::move(scratch))](Stream) {
        HWY_DYNAMIC_DISPATCH(AttentionDecodeRun)(call);
        return absl::OkStatus();
      };
}

const bool registered = AddProvider<AttentionDecode>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
