// SPDX-License-Identifier: Apache-2.0
//
// The causal convolution of x in the scan's load stage on sm_90a
// (ops/mamba2_inner): bulk copies bring x as it is, with the tokens before the
// chunk, and warps that make the decays put silu(conv(x)), rounded, in its
// place before the warpgroups that own the state read it. The arithmetic is
// that of ops/causal_conv1d, step by step: the same bits.
//
// A lane has four neighbouring channels, a warp a token's row of the CTA's 128
// and some tokens, one after the other, whose inputs it keeps in registers as
// long as they matter. What is before its tokens it reads before any warp
// writes.
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
    const bool exists = first_channel + c < channels;
    const int channel = first_channel + c;
    taps.bias[c] =
        exists && conv.bias != nullptr ? ToFloat(conv.bias[channel]) : 0.0f;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      const int w = k - (kTaps - conv.width);
      taps.tap[k][c] = exists && w >= 0
                           ? ToFloat(conv.weight[channel * conv.width + w])
                           : 0.0f;
    }
  }
}

template <class T>
__device__ __forceinline__ void UnpackFour(uint2 raw, float (&v)[4]) {
  const float2 low = UnpackPair<T>(raw.x), high = UnpackPair<T>(raw.y);
  v[0] = low.x;
  v[1] = low.y;
  v[2] = high.x;
  v[3] = high.y;
}

// Tokens of a chunk by warp `warp` of kWarps, all of which call this; `x` are
// its tiles, `before` what the copies brought of the tokens before the chunk.
template <class Tile, int kWarps, class T = typename Tile::Element>
__device__ __forceinline__ void ConvolveChunk(
    const ConvolutionParams<T>& conv, const HopperPlace<Tile>& place, int chunk,
    int warp, const HopperTaps& taps, const uint8_t* before, uint8_t* x) {
  constexpr int kTokens = kChunk / kWarps;
  static_assert(kTokens % 8 == 0);
  const int lane = Opaque(place.lane);
  const int tile = lane / 16, piece = lane % 16 / 2, half = lane % 2 * 8;
  uint8_t* const rows =
      x + tile * Tile::kTileBytes + warp * kTokens * Tile::kRow + half;
  float window[kTaps - 1][4];
#pragma unroll
  for (int k = 0; k < kTaps - 1; ++k) {
    uint2 raw = {0, 0};
    if (warp > 0) {
      raw = *reinterpret_cast<const uint2*>(
          rows + (k - (kTaps - 1)) * Tile::kRow +
          ((piece ^ (k + 8 - (kTaps - 1))) << 4));
    } else if (chunk > 0) {
      const int row = 4 * tile + k + 1;
      raw = *reinterpret_cast<const uint2*>(before + Swizzled(row, piece, 128) +
                                            half);
    } else if (conv.state != nullptr && k >= kTaps - conv.width) {
      const int channel = place.first_head * Tile::kP + 4 * lane;
      const int s = k - (kTaps - conv.width);
      if (4 * lane < place.heads * Tile::kP)
        raw = *reinterpret_cast<const uint2*>(
            conv.state +
            (static_cast<int64_t>(place.batch) * (conv.width - 1) + s) *
                conv.channels +
            channel);
    }
    UnpackFour<T>(raw, window[k]);
  }
  hopper::SyncWarps<32 * kWarps>(4);
  float tap[kTaps][4], bias[4];
  const auto load = [&](const float* from, float(&to)[4]) {
    const float4 v = *reinterpret_cast<const float4*>(&from[4 * lane]);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
  };
#pragma unroll
  for (int k = 0; k < kTaps; ++k) load(taps.tap[k], tap[k]);
  load(taps.bias, bias);
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    auto& place_of = *reinterpret_cast<uint2*>(rows + i * Tile::kRow +
                                               ((piece ^ (i % 8)) << 4));
    float input[4], y[4];
    UnpackFour<T>(place_of, input);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      float sum = fmaf(tap[0][c], window[0][c], bias[c]);
      sum = fmaf(tap[1][c], window[1][c], sum);
      sum = fmaf(tap[2][c], window[2][c], sum);
      y[c] = SiluFast(fmaf(tap[3][c], input[c], sum));
      window[0][c] = window[1][c];
      window[1][c] = window[2][c];
      window[2][c] = input[c];
    }
    place_of = {PackPair<T>(y[0], y[1]), PackPair<T>(y[2], y[3])};
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
