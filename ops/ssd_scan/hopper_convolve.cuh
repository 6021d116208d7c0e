// SPDX-License-Identifier: Apache-2.0
//
// The causal convolution of x in the scan's load stage on sm_90a
// (ops/mamba2_inner): bulk copies bring x as it is, with the tokens before the
// chunk, and warps that make the decays put silu(conv(x)), rounded, in its
// place before the warpgroups that own the state read it. The arithmetic is
// that of ops/causal_conv1d, step by step: the same bits.
//
// A lane has two neighbouring channels, a warp a token's row of a tile and some
// tokens, four at once, so that no instruction waits for the one before it: one
// after the other (four channels a lane) the special functions' latency made
// 6,000 cycles of a chunk. What is before its tokens a warp reads before any of
// its tile's writes.
#pragma once

#include "ops/ssd_scan/hopper_chunk.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

// The channels' weights, of taps that the width has not zeros.
template <class T>
__device__ __forceinline__ void LoadTaps(const ConvolutionParams<T>& conv,
                                         int first_channel, int channels,
                                         int thread, int threads,
                                         HopperTaps& taps) {
  for (int c = thread; c < kTapChannels; c += threads) {
    // All loads before any use.
    const bool exists = first_channel + c < channels;
    const int channel = exists ? first_channel + c : 0;
    T raw[kTaps], bias = FromFloat<T>(0.0f);
#pragma unroll
    for (int k = 0; k < kTaps; ++k)
      raw[k] =
          conv.weight[channel * conv.width + max(k - (kTaps - conv.width), 0)];
    if (conv.bias != nullptr) bias = conv.bias[channel];
#pragma unroll
    for (int k = 0; k < kTaps; ++k)
      taps.tap[k][c] =
          exists && k >= kTaps - conv.width ? ToFloat(raw[k]) : 0.0f;
    taps.bias[c] = exists ? ToFloat(bias) : 0.0f;
  }
}

__device__ __forceinline__ uint32_t LoadShared(uint32_t from) {
  uint32_t word;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
  return word;
}
__device__ __forceinline__ void StoreShared(uint32_t to, uint32_t word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}

// Tokens of a chunk by warp `warp` of kWarps, all of which call this; `x` are
// its tiles, `before` what the copies brought of the tokens before the chunk.
template <class Tile, int kWarps, class T = typename Tile::Element>
__device__ __forceinline__ void ConvolveChunk(
    const ConvolutionParams<T>& conv, const HopperPlace<Tile>& place, int chunk,
    int warp, const HopperTaps& taps, const uint8_t* before, uint8_t* x) {
  constexpr int kRuns = kWarps / 2, kTokens = kChunk / kRuns;
  constexpr int kAtOnce = 4;  // tokens: eight channels' chains of instructions
  static_assert(kTokens % 8 == 0);
  const int lane = Opaque(place.lane);
  const int tile = warp / kRuns, run = warp % kRuns;
  const int piece = lane / 4, word = lane % 4 * 4;
  // Row i of the run is at rows ^ (i % 8 << 4), plus its offset.
  uint32_t rows = SharedAddress(x) + tile * Tile::kTileBytes +
                  run * kTokens * Tile::kRow + piece * 16 + word;
  float2 window[kTaps - 1];
#pragma unroll
  for (int k = 0; k < kTaps - 1; ++k) {
    constexpr int kBack = kTaps - 1;
    uint32_t raw = 0;
    if (run > 0) {
      raw =
          LoadShared((rows ^ (k + 8 - kBack) << 4) - (kBack - k) * Tile::kRow);
    } else if (chunk > 0) {
      raw = *reinterpret_cast<const uint32_t*>(
          before + Swizzled(4 * tile + k + 1, piece, 128) + word);
    } else if (conv.state != nullptr && k >= kTaps - conv.width) {
      const int channel = 64 * tile + 2 * lane;
      const int s = k - (kTaps - conv.width);
      if (channel < place.heads * Tile::kP)
        raw = *reinterpret_cast<const uint32_t*>(
            conv.state +
            (static_cast<int64_t>(place.batch) * (conv.width - 1) + s) *
                conv.channels +
            place.first_head * Tile::kP + channel);
    }
    window[k] = UnpackPair<T>(raw);
  }
  hopper::SyncWarps<32 * kRuns>(4 + tile);
  const int channel = 64 * tile + 2 * lane;
  float2 tap[kTaps];
#pragma unroll
  for (int k = 0; k < kTaps; ++k)
    tap[k] = *reinterpret_cast<const float2*>(&taps.tap[k][channel]);
  const float2 bias = *reinterpret_cast<const float2*>(&taps.bias[channel]);
  uint32_t raw[kAtOnce];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      raw[i] =
          LoadShared((rows ^ (first + i) % 8 << 4) + (first + i) * Tile::kRow);
  };
  load(0);
#pragma unroll 1
  for (int eight = 0; eight < kTokens; eight += 8) {
#pragma unroll
    for (int four = 0; four < 8; four += kAtOnce) {
      float2 input[kAtOnce], sum[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) input[i] = UnpackPair<T>(raw[i]);
      // The next tokens' come meanwhile.
      if (four + kAtOnce < 8 || eight + 8 < kTokens) load(four + kAtOnce);
      const auto before_of = [&](int i) {
        return i < kTaps - 1 ? window[i] : input[i - (kTaps - 1)];
      };
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        sum[i] = bias;
#pragma unroll
        for (int k = 0; k < kTaps; ++k) {
          const float2 v = before_of(i + k);
          sum[i].x = fmaf(tap[k].x, v.x, sum[i].x);
          sum[i].y = fmaf(tap[k].y, v.y, sum[i].y);
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = four + i;
        StoreShared((rows ^ row << 4) + row * Tile::kRow,
                    PackPair<T>(SiluFast(sum[i].x), SiluFast(sum[i].y)));
      }
#pragma unroll
      for (int k = 0; k < kTaps - 1; ++k) window[k] = before_of(kAtOnce + k);
    }
    rows += 8 * Tile::kRow;
  }
}

// Asks for x of a chunk and the tokens before it; one lane.
template <class Tile, class Params, class Shared>
__device__ __forceinline__ void CopyRaw(const Params& hp,
                                        const HopperPlace<Tile>& place,
                                        int chunk, int stage, Shared& shared) {
  auto& conv = shared.convolution;
  hopper::ExpectBytes(conv.raw[stage], 2 * Tile::kTileBytes + kBeforeBytes);
  for (int k = 0; k < 2; ++k) {
    const int column = place.first_head * Tile::kP + 64 * k;
    hopper::CopyBox(shared.x[stage][k], hp.x, conv.raw[stage], column,
                    chunk * kChunk, place.batch);
    hopper::CopyBox(conv.before[stage] + k * (kBeforeBytes / 2), hp.before,
                    conv.raw[stage], column, chunk * kChunk - kBeforeRows,
                    place.batch);
  }
  hopper::Arrive(conv.raw[stage]);
}

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
