// SPDX-License-Identifier: Apache-2.0
//
// Activations on a GPU, at the speed of memory: 16-byte accesses by plain
// loads, and all that a thread reads (two packs of x, or of gate and up: 32 or
// 64 bytes) is asked for before any of it is used. Blocks are small and end: a
// multiprocessor has 48 KB and more in flight, all close together in memory. A
// call that is too small for that gives each thread one pack, so that one row
// is spread over the chip. Where rows are contiguous and there is no gate, they
// are one long row; widths and strides that are not whole packs otherwise take
// an element at a time. README.md has the figures.
#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/activation/activation.h"

namespace seqmark {
namespace {

// Of a thread; single elements, of tensors that are not whole packs, are more.
template <int kPack>
inline constexpr int kMostPacks = kPack > 1 ? 2 : 4;

struct ActivationArgs {
  const void* x;
  void* y;               // contiguous
  unsigned packs;        // of y in all
  Divisor row_packs;     // of y
  Divisor seqlen;        // rows of a sequence
  int64_t row_stride;    // of x, in packs
  int64_t batch_stride;  // of x, in packs, over that of its seqlen rows
  ActivationFunction function;
};

// x Phi(x): of the normal distribution's tail Phi(-|x|), the exponential is
// apart and a polynomial takes the rest (Abramowitz and Stegun 7.1.26, within
// 0.75e-7; coefficients halved). A third of erff's instructions, which would
// take longer than the memory.
__device__ __forceinline__ float GeluFast(float x) {
  const float a = fabsf(x);
  const float t = __fdividef(1.0f, fmaf(a, 0.3275911f * 0.70710678f, 1.0f));
  float p = 0.5f * 1.061405429f;
  p = fmaf(p, t, 0.5f * -1.453152027f);
  p = fmaf(p, t, 0.5f * 1.421413741f);
  p = fmaf(p, t, 0.5f * -0.284496736f);
  p = fmaf(p, t, 0.5f * 0.254829592f);
  const float tail = p * t * Exp2Fast(a * a * (-0.5f * 1.44269504f));
  return fmaf(-a, tail, fmaxf(x, 0.0f));
}

// (1 + tanh z) / 2 = 1 / (1 + e^-2z)
__device__ __forceinline__ float GeluTanhFast(float x) {
  constexpr float kScale = -2 * 0.79788456f * 1.44269504f;
  const float slope = fmaf(x * x, 0.044715f * kScale, kScale);
  return __fdividef(x, 1.0f + Exp2Fast(x * slope));
}

// body(function on an element)
template <class Body>
__device__ __forceinline__ void DispatchFunction(ActivationFunction function,
                                                 Body&& body) {
  switch (function) {
    case ActivationFunction::kSilu:
      return body([](float x) { return SiluFast(x); });
    case ActivationFunction::kGelu:
      return body([](float x) { return GeluFast(x); });
    case ActivationFunction::kGeluTanh:
      return body([](float x) { return GeluTanhFast(x); });
    case ActivationFunction::kRelu2:
      return body([](float x) {
        x = fmaxf(x, 0.0f);
        return x * x;
      });
  }
}

// Threads take packs of y in turn, so that a warp's accesses are contiguous.
template <class T, int kPack, int kPacks, bool kGated>
__global__ void __launch_bounds__(kFewPacksThreads)
    ActivationKernel(const ActivationArgs a) {
  LetNextStart();
  WaitForPrevious();
  using W = Words<T, kPack>;
  const unsigned first = blockIdx.x * blockDim.x * kPacks + threadIdx.x;
  W gate[kPacks] = {}, up[kPacks] = {};
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const unsigned pack = first + i * blockDim.x;
    if (pack >= a.packs) continue;
    const unsigned row = a.row_packs.Quotient(pack);
    const unsigned row_packs = a.row_packs.divisor();
    const W* const from = static_cast<const W*>(a.x) + row * a.row_stride +
                          a.seqlen.Quotient(row) * a.batch_stride +
                          (pack - row * row_packs);
    gate[i] = *from;
    if constexpr (kGated) up[i] = from[row_packs];
  }
  DispatchFunction(a.function, [&](auto&& act) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const unsigned pack = first + i * blockDim.x;
      if (pack >= a.packs) continue;
      float v[kPack];
      [[maybe_unused]] float u[kPack];
      Unpack<T, kPack>(gate[i], v);
      if constexpr (kGated) Unpack<T, kPack>(up[i], u);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        v[j] = act(v[j]);
        if constexpr (kGated) v[j] *= u[j];
      }
      static_cast<W*>(a.y)[pack] = RoundPack<T, kPack>(v);
    }
  });
}

// x as rows of `width` columns of y.
struct Rows {
  int64_t width, row_stride, batch_stride;
};

Rows RowsOf(const Activation::Problem& p, const Activation::Args& a) {
  // The stride of an axis of one is never followed.
  const int64_t row = p.seqlen > 1 ? a.x.strides[1] : a.x.strides[0];
  const int64_t batch = p.batch > 1 ? a.x.strides[0] - p.seqlen * row : 0;
  if (!p.gated && batch == 0 && (row == p.width || p.rows() == 1))
    return {p.rows() * p.width, 0, 0};
  return {p.width, row, batch};
}

template <class T, int kPack, bool kGated>
absl::StatusOr<Launch> PlanPack(const Activation::Problem& p,
                                const Activation::Args& a, const Rows& rows) {
  const int64_t packs = p.rows() * p.width / kPack;
  const auto grid = ChoosePackGrid(packs, kMostPacks<kPack>);
  if (!grid.ok()) return grid.status();
  const ActivationArgs args = {
      .x = a.x.data,
      .y = a.y.data,
      .packs = static_cast<unsigned>(packs),
      .row_packs = Divisor(static_cast<uint32_t>(rows.width / kPack)),
      .seqlen = Divisor(static_cast<uint32_t>(p.seqlen)),
      .row_stride = rows.row_stride / kPack,
      .batch_stride = rows.batch_stride / kPack,
      .function = p.function};
  auto* const kernel =
      grid->few ? ActivationKernel<T, kPack, 1, kGated>
                : ActivationKernel<T, kPack, kMostPacks<kPack>, kGated>;
  return [args, kernel, grid = *grid](Stream stream) {
    return LaunchDependent(kernel, grid.blocks, grid.threads, 0,
                           AsCudaStream(stream), "ActivationKernel", args);
  };
}

template <class T, bool kGated>
absl::StatusOr<Launch> PlanOf(const Activation::Problem& p,
                              const Activation::Args& a) {
  const Rows rows = RowsOf(p, a);
  bool whole = true;
  for (int64_t extent : {rows.width, rows.row_stride, rows.batch_stride})
    whole &= extent % kPackSize<T> == 0;
  for (const void* data : {a.x.data, a.y.data})
    whole &= reinterpret_cast<uintptr_t>(data) % 16 == 0;
  return whole ? PlanPack<T, kPackSize<T>, kGated>(p, a, rows)
               : PlanPack<T, 1, kGated>(p, a, rows);
}

absl::StatusOr<Launch> Plan(const Activation::Problem& p,
                            const Activation::Args& a, Device&) {
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    auto planned = p.gated ? PlanOf<T, true>(p, a) : PlanOf<T, false>(p, a);
    if (planned.ok()) launch = *std::move(planned);
    return planned.status();
  });
  if (!status.ok()) return status;
  return launch;
}

const bool registered =
    AddProvider<Activation>({.name = "native",
                             .device = DeviceKind::kCuda,
                             .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                             .plan = Plan});

}  // namespace
}  // namespace seqmark
