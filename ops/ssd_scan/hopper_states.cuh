// SPDX-License-Identifier: Apache-2.0
//
// SegmentStates for sm_90a: the same mathematics as states.cuh with roles for
// warps, as in hopper_scan.cuh but for the scores.
#pragma once

#include "fixtures/dependent_launch_cuda.h"
#include "ops/ssd_scan/hopper_products.cuh"

namespace seqmark::ssd {

// What each piece adds to the state; as SegmentStates, from its last chunk
// backwards as far as anything reaches its end.
template <class Tile, class T = typename Tile::Element>
__global__ void __launch_bounds__(Tile::kStateThreads, 1)
    HopperStates(const __grid_constant__ HopperParamsOf<Tile> hp) {
#if SEQMARK_SM90A
  using Shared = HopperStateShared<Tile>;
  constexpr int kStages = Tile::kStateStages;
  Shared& shared = HopperShared<Shared>();
  const Params<T>& p = hp.p;
  if (static_cast<int>(blockIdx.x) >= hp.state_blocks) {
    if constexpr (Tile::kGated) WaitForPrevious();
    LetNextStart();
    MakeGroupProducts<Tile>(hp, blockIdx.x - hp.state_blocks, shared);
    return;
  }
  const HopperPlace<Tile> place(p, p.state_count() - 1);
  const int2 piece = p.PieceChunks(place.segment);
  const int first = piece.x, end = piece.y;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      hopper::InitBarrier(shared.full[s], Tile::kHeads * kArrivalsOfWarp);
      hopper::InitBarrier(shared.empty[s], 8 * kArrivalsOfWarp);
    }
    hopper::FenceBarriers();
  }
  // A gated scan's inputs come from the launch before. The kernels after this
  // one read them at once, so they may not start before those are there.
  if constexpr (Tile::kGated) WaitForPrevious();
  LetNextStart();
  __syncthreads();

  const int64_t index =
      (static_cast<int64_t>(place.batch) * p.state_count() + place.segment) *
      p.heads;
  if (place.warp >= 8) {
    // Two warps a head take every other chunk; they meet once a pair, to know
    // each other's exponents.
    constexpr int kWarps = 2 * Tile::kHeads;
    const int slot = (place.warp - 8) / 2, odd = place.warp % 2;
    if (slot >= Tile::kHeads) return;
    DecayWarp<T> decays(p, place, slot);
    float suffix = 0.0f, other = 0.0f;  // of the other head
    decays.ForEachChunk(end - 1 - odd, -2, [&](int chunk, const T(&raw)[2]) {
      const int turn = end - 1 - chunk, stage = turn % kStages;
      const bool exists = chunk >= first;
      const auto copy = [&] {
        if (!exists || slot != 0 || place.lane != 0) return;
        hopper::ExpectBytes(shared.full[stage],
                            (2 + Tile::kInputTiles) * Tile::kTileBytes);
        for (int k = 0; k < Tile::kInputTiles; ++k)
          hopper::CopyBox(shared.B[stage][k], hp.B, shared.full[stage], 64 * k,
                          place.group, chunk * kChunk, place.batch);
        for (int k = 0; k < 2; ++k)
          hopper::CopyBox(shared.x[stage][k], hp.x, shared.full[stage],
                          place.first_head * Tile::kP + 64 * k, chunk * kChunk,
                          place.batch);
      };
      // The first copies do not wait for the steps, nor these for a free stage.
      if (turn < kStages) copy();
      decays.Sum(chunk * kChunk, raw);
      if (exists) hopper::Wait(shared.empty[stage], (turn / kStages & 1) ^ 1);
      if (turn >= kStages) copy();
      float(&totals)[2][2] = shared.totals[turn / 2 % 2];
      if (place.lane == 0) totals[slot][odd] = exists ? decays.total : 0.0f;
      hopper::SyncWarps<32 * kWarps>(1);
      const float before = suffix + (odd ? totals[slot][0] : 0.0f);
      suffix += totals[slot][0] + totals[slot][1];
      bool vanished = suffix < kVanished || !decays.exists;
      if constexpr (Tile::kHeads == 2) {
        other += totals[1 - slot][0] + totals[1 - slot][1];
        vanished = vanished && (other < kVanished || 1 - slot >= place.heads);
      }
      const bool last = vanished || chunk - 1 + odd <= first;
      if (exists) {
        HopperDecays& out = shared.decays[stage][slot];
        decays.FillWeights(before, out);
        if (place.lane == 0) out.last = last && (odd || chunk == first);
        __syncwarp();
        if (ArrivesForWarp(place.lane)) hopper::Arrive(shared.full[stage]);
      }
      return !last;
    });
    if (decays.exists && !odd && place.lane == 0)
      p.decays[index + place.first_head + slot] = Exp2Fast(suffix);
    return;
  }

  // The warpgroups take turns at products and at scaling: within one, the left
  // operand's registers must not change while products under way read them,
  // which the compiler does not see around a loop.
  float state[Tile::kN / 8][4] = {};
  for (int turn = 0;; ++turn) {
    const int stage = turn % kStages;
    hopper::Wait(shared.full[stage], turn / kStages & 1);
    const HopperDecays& decays = shared.decays[stage][place.slot];
    const bool last = decays.last;
    uint32_t scaled[kChunk / 16][4];
    LoadChunkX(SharedAddress(shared.x[stage][place.warp / 4]), place.lane,
               place.warp, scaled);
    ScaleX<T>(decays.weight, place.lane % 4, scaled, scaled);
    hopper::Hold(state);
    hopper::Hold(scaled);
    const auto b = hopper::ByRows<Tile::kTileBytes>(shared.B[stage]);
    hopper::BeginProducts();
#pragma unroll
    for (int j = 0; j < kChunk / 16; ++j)
      hopper::Product<true>(state, scaled[j], b.At(16 * Tile::kRow * j), true,
                            T());
    hopper::CommitProducts();
    hopper::WaitProducts<0>();
    hopper::Hold(state);
    hopper::Hold(scaled);
    if (last) break;
    __syncwarp();
    if (ArrivesForWarp(place.lane)) hopper::Arrive(shared.empty[stage]);
  }
  if (place.active()) {
    float4* const out = HeldState(p, index + place.head(), place);
#pragma unroll
    for (int n = 0; n < Tile::kN / 8; ++n)
      out[128 * n] = {state[n][0], state[n][1], state[n][2], state[n][3]};
  }
#endif
}

}  // namespace seqmark::ssd
