// SPDX-License-Identifier: Apache-2.0
//
// Causal convolution on the CPU: lanes are channels, threads share blocks of
// (batch, tokens, channels). SiLU's exponential and division limit it in
// cache, memory beyond. A block is a few tokens of many channels, so that
// memory is read along its rows: each vector of channels walks its tokens with
// the last three inputs in registers, and its weights are loaded once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/causal_conv1d/highway.cc"
#include "hwy/foreach_target.h"
// clang-format off: after foreach_target.h
#include "fixtures/math-inl.h"
#include "fixtures/simd-inl.h"
#include "hwy/highway.h"
// clang-format on

#include <algorithm>
#include <cstring>

#include "fixtures/op_fixture.h"
#include "ops/causal_conv1d/causal_conv1d.h"

#ifndef SEQMARK_OPS_CAUSAL_CONV1D_HIGHWAY_CC_
#define SEQMARK_OPS_CAUSAL_CONV1D_HIGHWAY_CC_
namespace seqmark {
namespace {

constexpr int64_t kTaps = CausalConv1d::kMaxWidth;
constexpr int64_t kTokens = 4;      // of a block
constexpr int64_t kChannels = 512;  // of a block

// Where a call keeps what is the same for all blocks.
struct Scratch {
  float* taps;  // (kTaps + 1, channels): weights by age, oldest first and zero
                // where the width is less; then the bias
  const void* zeros;  // (channels) of the dtype: the input before the start
};

}  // namespace
}  // namespace seqmark
#endif

HWY_BEFORE_NAMESPACE();
namespace seqmark {
namespace HWY_NAMESPACE {

// The inputs of batch element b at time t >= -kTaps.
template <class T>
const T* InputRow(const CausalConv1d::Problem& p, const CausalConv1d::Args& a,
                  const Scratch& scratch, int64_t b, int64_t t) {
  const int64_t before = p.width - 1;
  if (t >= 0) return a.x.as<T>() + b * a.x.strides[0] + t * a.x.strides[1];
  if (!a.initial_state || t < -before)
    return static_cast<const T*>(scratch.zeros);
  return a.initial_state.as<T>() + (b * before + before + t) * p.channels;
}

// y[i, c] for i < tokens and c in [begin, end); rows[i + kTaps - 1] is token
// i's input.
template <bool kSilu, class T>
HWY_NOINLINE void ConvBlock(const T* const* rows, const float* taps,
                            int64_t channels, int64_t begin, int64_t end,
                            int64_t tokens, T* HWY_RESTRICT y) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  static_assert(kTaps == 4);
  ForEachVector(end - begin, lanes, [&](int64_t i, int64_t n) {
    const int64_t c = begin + i;
    const auto tap = [&](int64_t row) {
      return LoadF32N(d, taps + row * channels + c, n);
    };
    const auto w0 = tap(0), w1 = tap(1), w2 = tap(2), w3 = tap(3);
    const auto bias = tap(4);
    auto x0 = LoadF32N(d, rows[0] + c, n);
    auto x1 = LoadF32N(d, rows[1] + c, n);
    auto x2 = LoadF32N(d, rows[2] + c, n);
    for (int64_t t = 0; t < tokens; ++t) {
      const auto x3 = LoadF32N(d, rows[t + 3] + c, n);
      auto sum = hn::MulAdd(w0, x0, bias);
      sum = hn::MulAdd(w1, x1, sum);
      sum = hn::MulAdd(w2, x2, sum);
      sum = hn::MulAdd(w3, x3, sum);
      StoreF32N(d, kSilu ? Silu(d, sum) : sum, y + t * channels + c, n);
      x0 = x1;
      x1 = x2;
      x2 = x3;
    }
  });
}

HWY_INLINE float ScalarF32(float v) { return v; }
HWY_INLINE float ScalarF32(BF16 v) { return F32FromBF16(v.bits); }
HWY_INLINE float ScalarF32(F16 v) { return F32FromF16(v.bits); }

// Fills scratch.taps; shared by the threads of a team.
template <class T>
void TransposeTaps(const CausalConv1d::Problem& p, const CausalConv1d::Args& a,
                   float* taps) {
  const int64_t missing = kTaps - p.width;
#pragma omp for schedule(static)
  for (int64_t c = 0; c < p.channels; ++c) {
    for (int64_t k = 0; k < kTaps; ++k)
      taps[k * p.channels + c] =
          k < missing ? 0.0f
                      : ScalarF32(a.weight.as<T>()[c * p.width + k - missing]);
    taps[kTaps * p.channels + c] = a.bias ? ScalarF32(a.bias.as<T>()[c]) : 0.0f;
  }
}

template <class T>
void Conv(const CausalConv1d::Problem& p, const CausalConv1d::Args& a,
          const Scratch& scratch) {
  const int64_t before = p.width - 1;
  const int64_t token_blocks = (p.seqlen + kTokens - 1) / kTokens;
  const int64_t channel_blocks = (p.channels + kChannels - 1) / kChannels;
#pragma omp parallel
  {
    TransposeTaps<T>(p, a, scratch.taps);
#pragma omp for collapse(3) schedule(static) nowait
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t block = 0; block < token_blocks; ++block)
        for (int64_t part = 0; part < channel_blocks; ++part) {
          const int64_t start = block * kTokens;
          const T* rows[kTokens + kTaps - 1];
          const int64_t tokens = std::min(kTokens, p.seqlen - start);
          for (int64_t i = 0; i < tokens + kTaps - 1; ++i)
            rows[i] = InputRow<T>(p, a, scratch, b, start + i - (kTaps - 1));
          const int64_t begin = part * kChannels;
          const int64_t end = std::min(p.channels, begin + kChannels);
          T* const y = a.y.as<T>() + (b * p.seqlen + start) * p.channels;
          (p.silu ? ConvBlock<true, T>
                  : ConvBlock<false, T>)(rows, scratch.taps, p.channels, begin,
                                         end, tokens, y);
          // Oldest first: with one token it may overwrite what it is made of.
          if (!a.final_state || block + 1 < token_blocks) continue;
          for (int64_t s = 0; s < before; ++s)
            std::memcpy(
                a.final_state.as<T>() + (b * before + s) * p.channels + begin,
                InputRow<T>(p, a, scratch, b, p.seqlen - before + s) + begin,
                (end - begin) * sizeof(T));
        }
  }
}

void ConvCall(const CausalConv1d::Problem& p, const CausalConv1d::Args& a,
              const Scratch& scratch) {
  DispatchDType(p.dtype, [&](auto tag) { Conv<decltype(tag)>(p, a, scratch); });
}

}  // namespace HWY_NAMESPACE
}  // namespace seqmark
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqmark {
HWY_EXPORT(ConvCall);
namespace {

absl::StatusOr<Launch> Plan(const CausalConv1d::Problem& p,
                            const CausalConv1d::Args& a, Device& device) {
  if (p.width < CausalConv1d::kMinWidth || p.width > CausalConv1d::kMaxWidth)
    return absl::UnimplementedError(
        absl::StrCat("width ", p.width, " is not in 2..4"));
  const size_t taps = (kTaps + 1) * p.channels * sizeof(float);
  auto buffer = device.Allocate(taps + p.channels * SizeOf(p.dtype),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto* const zeros = static_cast<std::byte*>(buffer->data()) + taps;
  const Scratch scratch = {static_cast<float*>(buffer->data()), zeros};
  return [p, a, scratch, zeros,
          buffer = std::make_shared<Buffer>(*std::move(buffer))](Stream) {
    std::memset(zeros, 0, p.channels * SizeOf(p.dtype));
    HWY_DYNAMIC_DISPATCH(ConvCall)(p, a, scratch);
    return absl::OkStatus();
  };
}

const bool registered = AddProvider<CausalConv1d>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
#endif
