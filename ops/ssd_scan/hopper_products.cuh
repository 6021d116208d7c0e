// SPDX-License-Identifier: Apache-2.0
//
// C B^T of every chunk on sm_90a, once for a group, for the scores of all its
// heads: CTAs of HopperStates make them beside the pieces' states.
#pragma once

#include "ops/ssd_scan/hopper_chunk.cuh"

namespace seqmark::ssd {

// Of a chunk, f32, as the scan's score warps hold them: warp w has rows 16w to
// 16w + 15 in w + 1 blocks of 16 columns, all there is on and below the
// diagonal, and a lane eight of a block, as two float4: (blocks, 2, 32 lanes).
inline constexpr int kProductQuads = 10 * 2 * 32;

// Chunks a CTA, one each stage of the states' shared memory.
template <class Tile>
inline constexpr int kProductChunks = Tile::kStateStages;

#if SEQMARK_SM90A

// A lane's products of a chunk, numbered as (batch, groups, chunks).
template <class T>
__device__ __forceinline__ float4* LaneProducts(const HopperParams<T>& hp,
                                                int64_t chunk, int warp,
                                                int lane) {
  return hp.products + chunk * kProductQuads + warp * (warp + 1) * 32 + lane;
}

// Begins cb = C B^T of a chunk's tiles.
template <class Tile>
__device__ __forceinline__ void BeginGroupProducts(hopper::Operand b,
                                                   hopper::Operand c,
                                                   float (&cb)[8][4]) {
  hopper::Hold(cb);
  hopper::BeginProducts();
#pragma unroll
  for (int k = 0; k < Tile::kN / 16; ++k) {
    const uint32_t at = k / 4 * Tile::kTileBytes + k % 4 * 32;
    hopper::Product<false>(cb, c.At(at), b.At(at), k > 0,
                           typename Tile::Element());
  }
  hopper::CommitProducts();
}

// The products of up to kProductChunks chunks, by all warpgroups of the CTA.
template <class Tile>
__device__ __forceinline__ void MakeGroupProducts(
    const HopperParamsOf<Tile>& hp, int cta, HopperStateShared<Tile>& shared) {
  static_assert(Tile::kInputTiles <= 2);  // C lies where else x does
  constexpr int kGroups = Tile::kStateThreads / 128;
  const Params<typename Tile::Element>& p = hp.p;
  const int chunks = (p.seqlen + kChunk - 1) / kChunk;
  const int first = cta * kProductChunks<Tile>;
  const int count =
      min(kProductChunks<Tile>, p.batch * p.groups * chunks - first);
  if (threadIdx.x == 0) {
    for (int s = 0; s < count; ++s) hopper::InitBarrier(shared.full[s], 1);
    hopper::FenceBarriers();
    for (int s = 0; s < count; ++s) {
      const int chunk = (first + s) % chunks, of = (first + s) / chunks;
      hopper::ExpectBytes(shared.full[s],
                          2 * Tile::kInputTiles * Tile::kTileBytes);
      for (int k = 0; k < Tile::kInputTiles; ++k) {
        hopper::CopyBox(shared.B[s][k], hp.B, shared.full[s], 64 * k,
                        of % p.groups, chunk * kChunk, of / p.groups);
        hopper::CopyBox(shared.x[s][k], hp.C, shared.full[s], 64 * k,
                        of % p.groups, chunk * kChunk, of / p.groups);
      }
      hopper::Arrive(shared.full[s]);
    }
  }
  __syncthreads();
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  for (int s = warp / 4; s < count; s += kGroups) {
    hopper::Wait(shared.full[s], 0);
    float cb[8][4] = {};
    BeginGroupProducts<Tile>(hopper::ByColumns(shared.B[s]),
                             hopper::ByColumns(shared.x[s]), cb);
    hopper::WaitProducts<0>();
    hopper::Hold(cb);
    float4* const out = LaneProducts(hp, first + s, warp % 4, threadIdx.x % 32);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (k / 2 > warp % 4) break;
      out[32 * k] = {cb[k][0], cb[k][1], cb[k][2], cb[k][3]};
    }
  }
}

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
