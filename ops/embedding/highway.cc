// SPDX-License-Identifier: Apache-2.0
//
// Token embedding on the CPU: threads over tokens, a row each. Memory limits
// it, where rows are far apart the latency of their first lines.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/embedding/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "ops/embedding/embedding.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

template <class T>
void EmbedRows(const Embedding::Problem& p, const Embedding::Args& a) {
  constexpr int64_t kSmall = 16384;  // elements: not worth waking threads
  const int32_t* const tokens = a.tokens.as<int32_t>();
#pragma omp parallel for schedule(static) if (p.rows() * p.width > kSmall)
  for (int64_t row = 0; row < p.rows(); ++row) {
    const F32Tag d;
    const auto scale = hn::Set(d, p.scale);
    const T* const from = a.table.as<T>() + tokens[row] * p.width;
    const T* const learned =
        a.positions
            ? a.positions.as<T>() + (p.position + row % p.seqlen) * p.width
            : nullptr;
    T* const y = a.y.as<T>() + row * p.width;
    ForEachVector(p.width, static_cast<int64_t>(hn::Lanes(d)),
                  [&](int64_t i, int64_t n) {
                    auto v = hn::Mul(LoadF32N(d, from + i, n), scale);
                    if (learned != nullptr)
                      v = hn::Add(v, LoadF32N(d, learned + i, n));
                    StoreF32N(d, v, y + i, n);
                  });
  }
}

void EmbeddingCall(const Embedding::Problem& p, const Embedding::Args& a) {
  DispatchDType(p.dtype, [&](auto tag) { EmbedRows<decltype(tag)>(p, a); });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(EmbeddingCall);
namespace {

absl::StatusOr<Launch> Plan(const Embedding::Problem& p,
                            const Embedding::Args& a, Device&) {
  if (absl::Status s = Embedding::Check(p); !s.ok()) return s;
  return [p, a](Stream) {
    HWY_DYNAMIC_DISPATCH(EmbeddingCall)(p, a);
    return absl::OkStatus();
  };
}

const bool registered =
    AddProvider<Embedding>({.name = "highway",
                            .device = DeviceKind::kCpu,
                            .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                            .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
