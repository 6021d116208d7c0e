// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding on the CPU: threads over tokens. A thread computes a
// token's sines and cosines once, into L1, and turns every head with them;
// what remains is moving memory.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rope/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include <cstring>

#include "fixtures/op_fixture.h"
#include "ops/rope/rope.h"

#ifndef SEQMARK_OPS_ROPE_HIGHWAY_CC_
#define SEQMARK_OPS_ROPE_HIGHWAY_CC_
namespace seqmark {
namespace {

// A thread's: all of (rotary_dim / 2).
struct RopeScratch {
  int64_t* step;  // what a position adds to the angle, in 2^-64 turns
  float* cosine;  // of the present token, times the factor
  float* sine;
};

}  // namespace
}  // namespace seqmark
#endif

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

using I32Vec = hn::Vec<hn::RebindToSigned<F32Tag>>;

// The sine and cosine of `phase` 2^-32 turns, within two units in the last
// place of 1: the nearest quarter of a turn comes off exactly, and polynomials
// (of Cephes' sinf and cosf) take the rest in -pi/4 .. pi/4.
HWY_INLINE void SinCos(F32Tag d, I32Vec phase, F32Vec& sine, F32Vec& cosine) {
  const hn::RebindToSigned<F32Tag> di;
  const hn::RebindToUnsigned<F32Tag> du;
  const auto bits = hn::BitCast(du, phase);
  const auto quarter =
      hn::ShiftRight<30>(hn::Add(bits, hn::Set(du, uint32_t{1} << 29)));
  const auto rest = hn::Sub(bits, hn::ShiftLeft<30>(quarter));
  const auto x = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, rest)),
                         hn::Set(d, 1.4629180792671596e-9f));  // 2 pi / 2^32
  const auto z = hn::Mul(x, x);
  auto s = hn::Set(d, -1.9515295891e-4f);
  s = hn::MulAdd(s, z, hn::Set(d, 8.3321608736e-3f));
  s = hn::MulAdd(s, z, hn::Set(d, -1.6666654611e-1f));
  s = hn::MulAdd(hn::Mul(s, z), x, x);
  auto c = hn::Set(d, 2.443315711809948e-5f);
  c = hn::MulAdd(c, z, hn::Set(d, -1.388731625493765e-3f));
  c = hn::MulAdd(c, z, hn::Set(d, 4.166664568298827e-2f));
  c = hn::MulAdd(c, z, hn::Set(d, -0.5f));
  c = hn::MulAdd(c, z, hn::Set(d, 1.0f));
  // Odd quarters swap the two; a sine is negative in quarters 2 and 3, a
  // cosine in 1 and 2.
  const auto odd = hn::RebindMask(
      d, hn::Ne(hn::And(quarter, hn::Set(du, 1u)), hn::Zero(du)));
  const auto sign = [&](auto of_quarter) {
    return hn::BitCast(d,
                       hn::ShiftLeft<30>(hn::And(of_quarter, hn::Set(du, 2u))));
  };
  sine = hn::Xor(hn::IfThenElse(odd, c, s), sign(quarter));
  cosine = hn::Xor(hn::IfThenElse(odd, s, c),
                   sign(hn::Add(quarter, hn::Set(du, 1u))));
}

HWY_INLINE void TokenAngles(const Rope::Problem& p, int64_t position,
                            const RopeScratch& scratch) {
  const F32Tag d;
  const hn::RebindToSigned<F32Tag> di;
  const auto factor = hn::Set(d, p.factor);
  ForEachVector(p.rotary_dim / 2, hn::Lanes(d), [&](int64_t i, int64_t n) {
    HWY_ALIGN int32_t phase[hn::MaxLanes(d)] = {};
    for (int64_t j = 0; j < n; ++j)
      phase[j] = static_cast<int32_t>(
          (static_cast<uint64_t>(position) * scratch.step[i + j]) >> 32);
    F32Vec sine, cosine;
    SinCos(d, hn::Load(di, phase), sine, cosine);
    StoreF32N(d, hn::Mul(factor, sine), scratch.sine + i, n);
    StoreF32N(d, hn::Mul(factor, cosine), scratch.cosine + i, n);
  });
}

// x and y may be the same.
template <class T>
HWY_INLINE void RotateHead(int64_t half, const RopeScratch& scratch, const T* x,
                           T* y) {
  const F32Tag d;
  ForEachVector(half, hn::Lanes(d), [&](int64_t i, int64_t n) {
    const auto x1 = LoadF32N(d, x + i, n);
    const auto x2 = LoadF32N(d, x + half + i, n);
    const auto cosine = LoadF32N(d, scratch.cosine + i, n);
    const auto sine = LoadF32N(d, scratch.sine + i, n);
    StoreF32N(d, hn::NegMulAdd(x2, sine, hn::Mul(x1, cosine)), y + i, n);
    StoreF32N(d, hn::MulAdd(x1, sine, hn::Mul(x2, cosine)), y + half + i, n);
  });
}

// One token of q, k or v.
template <class T>
void WriteToken(const Rope::Problem& p, const Tensor& in, const Tensor& out,
                int64_t rotary_dim, int64_t b, int64_t l,
                const RopeScratch& scratch) {
  const auto at = [&](const Tensor& t) {
    return t.as<T>() + b * t.strides[0] + l * t.strides[1];
  };
  const T* const from = at(in);
  T* const to = at(out);
  const int64_t heads = in.dims[2];
  const auto copy = [&](int64_t offset, int64_t count) {
    if (from != to) std::memcpy(to + offset, from + offset, count * sizeof(T));
  };
  if (rotary_dim == 0) return copy(0, heads * p.head_dim);
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t offset = h * p.head_dim;
    RotateHead(rotary_dim / 2, scratch, from + offset, to + offset);
    copy(offset + rotary_dim, p.head_dim - rotary_dim);
  }
}

template <class T>
void RopeTokens(const Rope::Problem& p, const Rope::Args& a,
                const std::vector<RopeScratch>& scratches) {
#pragma omp parallel if (p.batch * p.seqlen > 1)
  {
    const RopeScratch scratch = scratches[omp_get_thread_num()];
    for (int64_t i = 0; i < p.rotary_dim / 2; ++i)
      scratch.step[i] = static_cast<int64_t>(
          Rope::kPhasesPerRadian * a.inverse_frequency.as<float>()[i]);
    int64_t present = -1;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < p.seqlen * p.batch; ++i) {
      const int64_t l = i / p.batch, b = i % p.batch;
      if (l != present) TokenAngles(p, p.position + l, scratch);
      present = l;
      WriteToken<T>(p, a.q, a.q_out, p.rotary_dim, b, l, scratch);
      if (p.kv_heads > 0)
        WriteToken<T>(p, a.k, a.k_out, p.rotary_dim, b, l, scratch);
      if (p.has_v) WriteToken<T>(p, a.v, a.v_out, 0, b, l, scratch);
    }
  }
}

void RopeCall(const Rope::Problem& p, const Rope::Args& a,
              const std::vector<RopeScratch>& scratches) {
  DispatchDType(p.dtype,
                [&](auto tag) { RopeTokens<decltype(tag)>(p, a, scratches); });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(RopeCall);
namespace {

absl::StatusOr<Launch> Plan(const Rope::Problem& p, const Rope::Args& a,
                            Device& device) {
  if (absl::Status s = Rope::Check(p); !s.ok()) return s;
  // A thread's scratch is on its own cache lines.
  const int64_t half = p.rotary_dim / 2;
  const int64_t stride = (half * 16 + 127) / 64 * 64;
  auto buffer =
      device.Allocate(device.threads() * stride, MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  std::vector<RopeScratch> scratches;
  for (int i = 0; i < device.threads(); ++i) {
    auto* const base = static_cast<std::byte*>(buffer->data()) + i * stride;
    auto* const floats = reinterpret_cast<float*>(base + half * 8);
    scratches.push_back(
        {reinterpret_cast<int64_t*>(base), floats, floats + half});
  }
  return [p, a, scratches,
          buffer = std::make_shared<Buffer>(*std::move(buffer))](Stream) {
    HWY_DYNAMIC_DISPATCH(RopeCall)(p, a, scratches);
    return absl::OkStatus();
  };
}

const bool registered =
    AddProvider<Rope>({.name = "highway",
                       .device = DeviceKind::kCpu,
                       .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                       .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
