// SPDX-License-Identifier: Apache-2.0
//
// The scores of a chunk on sm_90a: what a warpgroup of the scan does alone, one
// chunk ahead of those that own the state.
#pragma once

#include "fixtures/dependent_launch_cuda.h"
#include "ops/ssd_scan/hopper_products.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

// The scores of every head in a chunk are C B^T times decays; rows and warps as
// in left operands. Whatever is known before the products are is made while
// they run: one chunk's scores after the other is a chain, and the two
// warpgroups that own the state wait for it.
//
// A lane has rows i = g and g + 8 of its warp's 16 and columns 2t, 2t + 1 of
// each 8; of the 16 x 16 block on the diagonal the upper right quarter is zero,
// upper left and lower right have elements above the diagonal.
template <class Tile>
struct ScoreDecays {
  static constexpr int kHeads = Tile::kHeads;
  // Of the warp's rows i and i + 8 since the last of 16 earlier tokens.
  float since[3][kHeads][2];
  // Of an element of the block on the diagonal, with its step: upper left,
  // lower left, lower right.
  float own[kHeads][6];

  __device__ __forceinline__ ScoreDecays(const HopperDecays (&decays)[kHeads],
                                         int lane, int warp) {
    const int g = lane / 4, t = lane % 4, i = 16 * warp + g;
    float a_i[kHeads][2];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      a_i[h][0] = decays[h].a[i];
      a_i[h][1] = decays[h].a[i + 8];
    }
    // All earlier tokens than the warp's rows: exponents are split at the
    // last of the 16, both parts being <= 0.
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      if (k >= warp) break;
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float end = decays[h].a[16 * k + 15];
        since[k][h][0] = Exp2Fast(a_i[h][0] - end);
        since[k][h][1] = Exp2Fast(a_i[h][1] - end);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int j = 16 * warp + 8 * side + 2 * t;
        const float2 a = *reinterpret_cast<const float2*>(&decays[h].a[j]);
        const float2 step =
            *reinterpret_cast<const float2*>(&decays[h].step[j]);
        const float(&row)[2] = a_i[h];
        own[h][4 * side] =
            g >= 2 * t ? step.x * Exp2Fast(row[side] - a.x) : 0.0f;
        own[h][4 * side + 1] =
            g > 2 * t ? step.y * Exp2Fast(row[side] - a.y) : 0.0f;
        if (side > 0) continue;
        own[h][2] = step.x * Exp2Fast(row[1] - a.x);
        own[h][3] = step.y * Exp2Fast(row[1] - a.y);
      }
  }
};

// With the skip on their diagonal: that of the lane's columns where they are
// its row, or 0.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void WriteScores(
    const HopperDecays (&decays)[Tile::kHeads], const ScoreDecays<Tile>& made,
    const float2 (&skip)[Tile::kHeads], const float (&cb)[8][4], int lane,
    int warp, uint8_t (&scores)[Tile::kHeads][Tile::kTileBytes]) {
  constexpr int kHeads = Tile::kHeads;
  const int t = lane % 4;
  const uint32_t rows =
      Down(SharedAddress(scores), lane, 0, Tile::kRow) + 16 * warp * Tile::kRow;
  // The block on the diagonal.
  float left[4], right[4];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (k == warp)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        left[e] = cb[2 * k][e];
        right[e] = cb[2 * k + 1][e];
      }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const float(&own)[6] = made.own[h];
    const uint32_t out[4] = {PackPair<T>(fmaf(left[0], own[0], skip[h].x),
                                         fmaf(left[1], own[1], skip[h].y)),
                             PackPair<T>(left[2] * own[2], left[3] * own[3]), 0,
                             PackPair<T>(fmaf(right[2], own[4], skip[h].x),
                                         fmaf(right[3], own[5], skip[h].y))};
    hopper::StoreMatrices(
        Shifted(rows, 0, 2 * warp, Tile::kRow) + h * Tile::kTileBytes, out);
  }
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    if (k >= warp) break;
    uint32_t out[kHeads][4];
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const float(&v)[4] = cb[2 * k + side];
        const float(&r)[2] = made.since[k][h];
        const float2 f = *reinterpret_cast<const float2*>(
            &decays[h].factor[16 * k + 8 * side + 2 * t]);
        out[h][2 * side] =
            PackPair<T>(v[0] * (f.x * r[0]), v[1] * (f.y * r[0]));
        out[h][2 * side + 1] =
            PackPair<T>(v[2] * (f.x * r[1]), v[3] * (f.y * r[1]));
      }
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
      hopper::StoreMatrices(
          Shifted(rows, 0, 2 * k, Tile::kRow) + h * Tile::kTileBytes, out[h]);
  }
}

// The score warpgroup: warps 8 to 11. kGiven: C B^T was made beforehand.
template <bool kGiven, class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void MakeScores(const HopperParams<T>& hp,
                                           const HopperPlace<Tile>& place,
                                           int first, int end,
                                           HopperScanShared<Tile>& shared) {
  const Params<T>& p = hp.p;
  const int warp = place.warp - 8;
  float cb[8][4] = {};
  // Loads asked for before a barrier would be waited for with it, and before a
  // fence by it.
  const float4* given = nullptr;
  const auto fetch = [&] {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (k / 2 > warp) break;
      const float4 v = __ldcg(&given[32 * k]);
      cb[k][0] = v.x, cb[k][1] = v.y, cb[k][2] = v.z, cb[k][3] = v.w;
    }
    given += kProductQuads;
  };
  if constexpr (kGiven) {
    const int64_t chunks = (p.seqlen + kChunk - 1) / kChunk;
    given = LaneProducts(
        hp,
        (static_cast<int64_t>(place.batch) * p.groups + place.group) * chunks +
            first,
        warp, place.lane);
    WaitForPrevious();
  }
  // Blocks above the diagonal are zeros for ever.
  for (int i = threadIdx.x % 128;
       i < static_cast<int>(sizeof(shared.scores)) / 16; i += 128)
    reinterpret_cast<uint4*>(shared.scores)[i] = {0, 0, 0, 0};
  hopper::SyncWarps<128>(3);
  const int over = place.lane / 4 - place.lane % 4 * 2;  // row less column
  float2 skip[Tile::kHeads];
#pragma unroll
  for (int h = 0; h < Tile::kHeads; ++h) {
    const float d =
        p.D != nullptr && h < place.heads ? p.D[place.first_head + h] : 0;
    skip[h] = {over == 0 ? d : 0.0f, over == 1 ? d : 0.0f};
  }
  hopper::Ring<Tile::kStages> ring;
  hopper::Ring<2> buffer;
  for (int chunk = first; chunk < end; ++chunk) {
    const int stage = ring.stage;
    hopper::Wait(shared.full[stage], ring.parity);
    if constexpr (kGiven)
      fetch();
    else
      BeginGroupProducts<Tile>(
          hopper::ByColumns(shared.B).On(stage * sizeof(shared.B[0])),
          hopper::ByColumns(shared.C).On(stage * sizeof(shared.C[0])), cb);
    const ScoreDecays<Tile> made(shared.decays[stage], place.lane, warp);
    hopper::Wait(shared.free[buffer.stage], buffer.parity ^ 1);
    if constexpr (!kGiven) {
      hopper::WaitProducts<0>();
      hopper::Hold(cb);
    }
    WriteScores<Tile>(shared.decays[stage], made, skip, cb, place.lane, warp,
                      shared.scores[buffer.stage]);
    hopper::FenceForProducts();
    __syncwarp();
    if (ArrivesForWarp(place.lane)) {
      hopper::Arrive(shared.scored[buffer.stage]);
      hopper::Arrive(shared.empty[stage]);
    }
    ring.Next();
    buffer.Next();
  }
}

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
