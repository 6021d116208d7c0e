// SPDX-License-Identifier: Apache-2.0
//
// RMSNorm on the CPU: threads over rows, one row a thread, two passes over a
// row that stays in L1 between them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rmsnorm/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
#include "ops/norm/row_sum-inl.h"
// clang-format on

#include "fixtures/op_fixture.h"
#include "ops/rmsnorm/rmsnorm.h"

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

template <class T>
void RmsNormRow(const RmsNorm::Problem& p, const T* HWY_RESTRICT x,
                const T* HWY_RESTRICT residual, const T* HWY_RESTRICT gate,
                const T* HWY_RESTRICT weight, T* HWY_RESTRICT y,
                T* HWY_RESTRICT residual_out, float* HWY_RESTRICT u) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // Rereading x is cheaper than keeping it in f32.
  const bool keep = residual != nullptr || p.gate == NormGate::kBefore;
  const float squares = RowSum(d, p.width, [&](int64_t i, int64_t n) {
    auto v = LoadF32N(d, x + i, n);
    if (residual != nullptr) {
      v = hn::Add(v, LoadF32N(d, residual + i, n));
      StoreF32N(d, v, residual_out + i, n);
    }
    if (p.gate == NormGate::kBefore)
      v = hn::Mul(v, Silu(d, LoadF32N(d, gate + i, n)));
    if (keep) StoreF32N(d, v, u + i, n);
    return hn::Mul(v, v);
  });
  const auto scale = hn::Set(
      d, 1.0f / std::sqrt(squares / static_cast<float>(p.width) + p.epsilon));
  ForEachVector(p.width, lanes, [&](int64_t i, int64_t n) {
    const auto kept = keep ? LoadF32N(d, u + i, n) : LoadF32N(d, x + i, n);
    auto v = hn::Mul(hn::Mul(kept, scale), LoadF32N(d, weight + i, n));
    if (p.gate == NormGate::kAfter)
      v = hn::Mul(v, Silu(d, LoadF32N(d, gate + i, n)));
    StoreF32N(d, v, y + i, n);
  });
}

template <class T>
void RmsNormRows(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                 float* scratch, int64_t scratch_stride) {
#pragma omp parallel if (p.rows() > 1)
  {
    float* const u = scratch + omp_get_thread_num() * scratch_stride;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < p.rows(); ++row) {
      const auto at = [&](const Tensor& t) {
        return t ? t.as<T>() + row * p.width : nullptr;
      };
      RmsNormRow<T>(p, at(a.x), at(a.residual), at(a.gate), a.weight.as<T>(),
                    at(a.y), at(a.residual_out), u);
    }
  }
}

void RmsNormCall(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                 float* scratch, int64_t scratch_stride) {
  DispatchDType(p.dtype, [&](auto tag) {
    RmsNormRows<decltype(tag)>(p, a, scratch, scratch_stride);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(RmsNormCall);
namespace {

absl::StatusOr<Launch> Plan(const RmsNorm::Problem& p, const RmsNorm::Args& a,
                            Device& device) {
  // One f32 row a thread, each on its own cache lines.
  const int64_t stride = (p.width + 31) / 16 * 16;
  auto scratch = device.Allocate(device.threads() * stride * sizeof(float),
                                 MemoryClass::kWorkspace);
  if (!scratch.ok()) return scratch.status();
  return [p, a, stride,
          scratch = std::make_shared<Buffer>(*std::move(scratch))](Stream) {
    HWY_DYNAMIC_DISPATCH(RmsNormCall)
    (p, a, static_cast<float*>(scratch->data()), stride);
    return absl::OkStatus();
  };
}

const bool registered =
    AddProvider<RmsNorm>({.name = "highway",
                          .device = DeviceKind::kCpu,
                          .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                          .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
