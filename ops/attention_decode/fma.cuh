// SPDX-License-Identifier: Apache-2.0
//
// A piece of the keys in f32. For the scores two lanes take a key, half of
// head_dim each; for the outputs a lane takes columns, of all heads. A row of
// keys or values is read from shared memory once for all heads of the block.
#pragma once

#include "ops/attention_decode/split.cuh"

namespace seqmark::decode {

// Bytes of shared memory after the rings: queries, and weights of each warp.
template <int kDim, int kHeads>
inline constexpr int kQueryBytes = kHeads* kDim * 4;
template <int kHeads>
inline constexpr int kWeightBytes = kTileKeys* kHeads * 4;

template <int kDim, int kHeads>
__global__ void __launch_bounds__(32 * kMaxWarps)
    DecodeFma(const __grid_constant__ Call c) {
  using R = Ring<float, kDim>;
  constexpr int kWide = kDim / 32 < 4 ? kDim / 32 : 4;  // of an access
  constexpr int kParts = kDim / 32 / kWide;
  using Columns = Pack<float, kWide>;
  static_assert(kHeads * (kOutputRow<kDim> + 2) * 4 <= R::kBytes);
  extern __shared__ __align__(16) unsigned char shared[];
  LetNextStart();
  WaitForPrevious();
  const Piece<kHeads> piece(c);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  const int key = lane % 16, half = lane / 16;
  unsigned char* const ring = shared + warp * R::kBytes;
  TileStream<float, kDim> tiles(c, piece, SharedAddress(ring), warp, warps);

  auto* const queries = reinterpret_cast<float*>(shared + warps * R::kBytes);
  float* const weights = queries + kHeads * kDim + warp * kTileKeys * kHeads;
  for (int i = threadIdx.x; i < kHeads * kDim; i += blockDim.x) {
    const int head = i / kDim, column = i % kDim;
    const int64_t at = piece.batch * c.q_batch +
                       (static_cast<int64_t>(piece.kv_head) * c.group +
                        piece.first_head + head) *
                           c.head_dim +
                       column;
    queries[i] = head < piece.heads && column < c.head_dim
                     ? static_cast<const float*>(c.q)[at] * c.scale
                     : 0.0f;
  }
  __syncthreads();

  float greatest[kHeads], sum[kHeads];  // sum: of this lane's keys
  Columns o[kHeads][kParts] = {};
#pragma unroll
  for (int h = 0; h < kHeads; ++h) greatest[h] = -INFINITY, sum[h] = 0;

  for (int t = piece.first_tile + warp; t < piece.end_tile; t += warps) {
    const unsigned char* const tile =
        ring + (tiles.Next() - SharedAddress(ring));
    float s[kHeads] = {};
    const auto* const k = reinterpret_cast<const float4*>(
        tile + key * R::kRowBytes + half * (kDim / 2) * 4);
    const auto* const q =
        reinterpret_cast<const float4*>(queries + half * (kDim / 2));
#pragma unroll 4
    for (int i = 0; i < kDim / 8; ++i) {
      const float4 x = k[i];
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float4 w = q[h * (kDim / 4) + i];
        s[h] = fmaf(w.x, x.x, s[h]);
        s[h] = fmaf(w.y, x.y, s[h]);
        s[h] = fmaf(w.z, x.z, s[h]);
        s[h] = fmaf(w.w, x.w, s[h]);
      }
    }
    const bool seen = key < KeysLeft(c, t);
    bool grew = false;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      s[h] += __shfl_xor_sync(0xffffffffu, s[h], 16);
      if (!seen) s[h] = -INFINITY;
      grew |= s[h] > greatest[h] + 8.0f;
    }
    // As in DecodeMma.
    if (__any_sync(0xffffffffu, grew)) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        float most = s[h];
#pragma unroll
        for (int lanes = 1; lanes < 16; lanes *= 2)
          most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
        most = fmaxf(greatest[h], most);
        const float factor = Exp2Fast(greatest[h] - most);
        greatest[h] = most;
        sum[h] *= factor;
#pragma unroll
        for (int part = 0; part < kParts; ++part)
#pragma unroll
          for (int i = 0; i < kWide; ++i) o[h][part].v[i] *= factor;
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      s[h] = Exp2Fast(s[h] - greatest[h]);
      sum[h] += s[h];
      if (half == 0) weights[key * kHeads + h] = s[h];
    }
    __syncwarp();
#pragma unroll 4
    for (int j = 0; j < kTileKeys; ++j) {
      const auto* const v = reinterpret_cast<const Columns*>(tile + R::kValues +
                                                             j * R::kRowBytes);
      Columns x[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) x[part] = v[part * 32 + lane];
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float w = weights[j * kHeads + h];
#pragma unroll
        for (int part = 0; part < kParts; ++part)
#pragma unroll
          for (int i = 0; i < kWide; ++i)
            o[h][part].v[i] = fmaf(w, x[part].v[i], o[h][part].v[i]);
      }
    }
    __syncwarp();  // the weights have been read
  }

  WaitCopies<0>();
  __syncthreads();  // the rings are free
  auto* const outputs = reinterpret_cast<float*>(shared);
  auto* const sums =
      reinterpret_cast<float2*>(outputs + warps * kHeads * kOutputRow<kDim>);
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
#pragma unroll
    for (int lanes = 1; lanes < 16; lanes *= 2)
      sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], lanes);
    const int head = warp * kHeads + h;
    if (lane == 0) sums[head] = make_float2(greatest[h], sum[h]);
#pragma unroll
    for (int part = 0; part < kParts; ++part)
#pragma unroll
      for (int i = 0; i < kWide; ++i)
        outputs[head * kOutputRow<kDim> + (part * 32 + lane) * kWide + i] =
            o[h][part].v[i];
  }
  FinishPiece<float, kDim, kHeads>(c, piece, outputs);
}

}  // namespace seqmark::decode
