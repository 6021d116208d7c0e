// SPDX-License-Identifier: Apache-2.0
//
// SegmentScan for sm_90a: the same mathematics as scan.cuh with roles for
// warps.
//
// A CTA has two warpgroups that each own 64 rows (head, p) of the state, in
// registers, for all d_state columns and all tokens of y^T. The state, rounded,
// and x^T, scaled, are multiplied from the left, in registers; C and B from the
// right, in shared memory, where both x^T and the scores are for their product.
// A third warpgroup makes the scores one chunk ahead, from C B^T made before
// for all heads of a group (hopper_products.cuh), or by itself for the CTA's.
// Warps of a fourth make the decays, further ahead, and one of them starts the
// bulk copies. A gated tile (ops/mamba2_inner) has a loop of its own
// (hopper_gate.cuh): what a gate takes leaves other registers and other time.
#pragma once

#include "fixtures/dependent_launch_cuda.h"
#include "ops/ssd_scan/hopper_gate.cuh"
#include "ops/ssd_scan/hopper_scores.cuh"
#include "ops/ssd_scan/hopper_state.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

// The warpgroup's y of a chunk, staged as rows of tokens, by plain stores,
// gated by ssd_scan's own z where it has one.
template <class Tile, class T>
__device__ __forceinline__ void StoreByThreads(const Params<T>& p,
                                               const HopperPlace<Tile>& place,
                                               int token,
                                               const uint8_t* staged) {
  const int thread = Opaque(threadIdx.x % 128), piece = thread % 8;
  const int64_t column =
      static_cast<int64_t>(place.head()) * Tile::kP + place.row + piece * 8;
#pragma unroll 1
  for (int i = thread / 8; i < min(kChunk, p.seqlen - token); i += 16) {
    StoreEight(p, place.batch, token + i, column,
               *reinterpret_cast<const Pack<T, 8>*>(
                   staged + Swizzled(i, piece, Tile::kRow)));
  }
}

// The two warpgroups that own the state: warps 0 to 7.
//
// A way to shared memory and back takes hundreds of cycles while products read
// it too, so what comes next is asked for before what is waited for.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void ScanChunks(const HopperParamsOf<Tile>& hp,
                                           const HopperPlace<Tile>& place,
                                           int first, int end,
                                           HopperScanShared<Tile>& shared,
                                           HopperState<Tile>& state) {
  const Params<T>& p = hp.p;
  const int group = place.warp / 4, t = place.lane % 4;
  // Of the lane's rows of x, and of y where it is staged, in a tile.
  const uint32_t rows = Across(0, place.lane, place.warp % 4 * 2, Tile::kRow);
  float y[kChunk / 8][4] = {};
  uint32_t out[kSteps][4] = {};  // y of the chunk before
  // One thread stores; what it stored before has left the other buffer by the
  // time that anyone passes the barrier.
  const auto store_outputs = [&](int chunk, const uint8_t* staged) {
    if (threadIdx.x % 128 == 0) hopper::WaitStores();
    hopper::SyncWarps<128>(1 + group);
    if (!place.active() || chunk < first) return;
    if (p.z != nullptr) [[unlikely]]
      StoreByThreads(p, place, chunk * kChunk, staged);
    else if (threadIdx.x % 128 == 0)
      hopper::StoreBox(hp.y, place.head() * Tile::kP + place.row,
                       chunk * kChunk, place.batch, staged);
  };
  const auto stage_outputs = [&](const uint8_t* staged) {
    const uint32_t to = SharedAddress(staged) + rows;
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
      hopper::StoreMatricesTransposed(Shifted(to, 16 * j, 0, Tile::kRow),
                                      out[j]);
  };
  hopper::Ring<Tile::kStages> ring;
  hopper::Ring<2> buffer;
  state.Round();
  state.Decay(WaitDecay(place, ring, shared));

  for (int chunk = first; chunk < end; ++chunk) {
    const int stage = ring.stage;
    const HopperDecays& decays = shared.decays[stage][place.slot];
    hopper::Hold(state.rounded);
    hopper::Hold(y);
    state.BeginOutputs(shared.C, stage, y);
    uint8_t* const staged = shared.y[group][buffer.stage ^ 1];
    stage_outputs(staged);
    uint32_t x[kSteps][4], scaled[kSteps][4];
    LoadChunkX(SharedAddress(shared.x[stage][group]) + rows, x);
    ScaleX<T>(decays.weight, t, x, scaled);
    hopper::Hold(state.sums);
    hopper::Hold(scaled);
    state.BeginUpdate(shared.B, stage, scaled);
    hopper::FenceForProducts();
    store_outputs(chunk - 1, staged);
    // y^T = before * y^T + x^T scores^T
    ring.Next();
    const bool more = chunk + 1 < end;
    const float whole = more ? WaitDecay(place, ring, shared) : 1.0f;
    hopper::Wait(shared.scored[buffer.stage], buffer.parity);
    hopper::WaitProducts<1>();
    hopper::Hold(y);
    hopper::Hold(state.rounded);
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      const float2 before =
          *reinterpret_cast<const float2*>(&decays.before[8 * n + 2 * t]);
#pragma unroll
      for (int e = 0; e < 4; ++e) y[n][e] *= e % 2 ? before.y : before.x;
    }
    hopper::Hold(y);
    hopper::Hold(x);
    BeginOwnOutputs<Tile>(x, shared.scores[buffer.stage][place.slot], y);
    hopper::WaitProducts<1>();
    hopper::Hold(state.sums);
    hopper::Hold(scaled);
    state.Round();
    if (more) state.Decay(whole);
    hopper::Hold(state.sums);
    hopper::Hold(state.rounded);
    hopper::WaitProducts<0>();
    hopper::Hold(y);
    hopper::Hold(x);
    __syncwarp();
    if (ArrivesForWarp(place.lane)) {
      hopper::Arrive(shared.empty[stage]);
      hopper::Arrive(shared.free[buffer.stage]);
    }
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        out[j][r] = PackPair<T>(y[2 * j + r / 2][2 * (r % 2)],
                                y[2 * j + r / 2][2 * (r % 2) + 1]);
    buffer.Next();
  }
  uint8_t* const staged = shared.y[group][buffer.stage ^ 1];
  stage_outputs(staged);
  hopper::FenceForProducts();
  store_outputs(end - 1, staged);
}

#endif  // SEQMARK_SM90A

template <class Tile, class T = typename Tile::Element>
__global__ void __launch_bounds__(Tile::kScanThreads, 1)
    HopperScan(const __grid_constant__ HopperParamsOf<Tile> hp) {
#if SEQMARK_SM90A
  using Shared = HopperScanShared<Tile>;
  Shared& shared = HopperShared<Shared>();
  const Params<T>& p = hp.p;
  const HopperPlace<Tile> place(p, p.segments);
  const int chunks = (p.seqlen + kChunk - 1) / kChunk;
  const int first = place.segment * p.segment_chunks;
  const int end = min(first + p.segment_chunks, chunks);
  if (threadIdx.x == 0) {
    for (int s = 0; s < Tile::kStages; ++s) {
      hopper::InitBarrier(shared.full[s], Tile::kHeads * kArrivalsOfWarp);
      hopper::InitBarrier(shared.empty[s], 12 * kArrivalsOfWarp);
    }
    for (int s = 0; s < 2; ++s) {
      hopper::InitBarrier(shared.scored[s], 4 * kArrivalsOfWarp);
      hopper::InitBarrier(shared.free[s], 8 * kArrivalsOfWarp);
      if constexpr (Tile::kGated)
        for (auto& of_group : shared.gate.full)
          hopper::InitBarrier(of_group[s], 1);
    }
    hopper::FenceBarriers();
  }
  __syncthreads();

  // Two warpgroups of the first, and one each of the others, share 512.
  constexpr int kStateRegisters = 192;
  constexpr int kScoreRegisters = 80;
  constexpr int kDecayRegisters = 48;
  if (place.warp >= 12) {
    hopper::GiveRegisters<kDecayRegisters>();
    // Two warps a head take every other chunk.
    const int slot = (place.warp - 12) / 2, odd = place.warp % 2;
    if (slot >= Tile::kHeads || first + odd >= end) return;
    DecayWarp<T> decays(p, place, slot);
    decays.ForEachChunk(first + odd, 2, [&](int chunk, const T(&raw)[2]) {
      const int turn = chunk - first, stage = turn % Tile::kStages;
      const auto copy = [&] {
        if (slot != 0 || place.lane != 0) return;
        hopper::ExpectBytes(shared.full[stage],
                            (2 + 2 * Tile::kInputTiles) * Tile::kTileBytes);
        for (int k = 0; k < Tile::kInputTiles; ++k) {
          hopper::CopyBox(shared.B[stage][k], hp.B, shared.full[stage], 64 * k,
                          place.group, chunk * kChunk, place.batch);
          hopper::CopyBox(shared.C[stage][k], hp.C, shared.full[stage], 64 * k,
                          place.group, chunk * kChunk, place.batch);
        }
        for (int k = 0; k < 2; ++k)
          hopper::CopyBox(shared.x[stage][k], hp.x, shared.full[stage],
                          place.first_head * Tile::kP + 64 * k, chunk * kChunk,
                          place.batch);
      };
      // The first copies do not wait for the steps, nor these for a free stage.
      if (turn < Tile::kStages) copy();
      decays.Sum(chunk * kChunk, raw);
      hopper::Wait(shared.empty[stage], (turn / Tile::kStages & 1) ^ 1);
      if (turn >= Tile::kStages) copy();
      // What the stages cannot hold yet comes closer.
      const int later = chunk + Tile::kStages;
      if (slot == Tile::kHeads - 1 && place.lane == 0 && later < end) {
        for (int k = 0; k < 2; ++k)
          hopper::PrefetchBox(hp.x, place.first_head * Tile::kP + 64 * k,
                              later * kChunk, place.batch);
        if constexpr (Tile::kGated)
          for (int k = 0; k < 2; ++k)
            hopper::PrefetchBox(hp.z, place.first_head * Tile::kP + 64 * k,
                                later * kChunk, place.batch);
        if (place.first_head % (p.heads / p.groups) == 0)
          for (int k = 0; k < Tile::kInputTiles; ++k) {
            hopper::PrefetchBox(hp.B, 64 * k, place.group, later * kChunk,
                                place.batch);
            hopper::PrefetchBox(hp.C, 64 * k, place.group, later * kChunk,
                                place.batch);
          }
      }
      HopperDecays& out = shared.decays[stage][slot];
      decays.FillWeights(0.0f, out);
      decays.FillOthers(out);
      __syncwarp();
      if (ArrivesForWarp(place.lane)) hopper::Arrive(shared.full[stage]);
      return chunk + 2 < end;
    });
  } else if (place.warp >= 8) {
    hopper::GiveRegisters<kScoreRegisters>();
    if (hp.products != nullptr)
      MakeScores<true>(hp, place, first, end, shared);
    else
      MakeScores<false>(hp, place, first, end, shared);
  } else {
    hopper::TakeRegisters<kStateRegisters>();
    HopperState<Tile> state;
    WaitForPrevious();
    if (place.active()) StartState(hp, place, state);
    if constexpr (Tile::kGated)
      ScanGatedChunks(hp, place, first, end, shared, state);
    else
      ScanChunks(hp, place, first, end, shared, state);
    if (threadIdx.x % 128 == 0) hopper::WaitStores();
    if (place.active() && end == chunks) state.Store(p, place);
  }
#endif
}

}  // namespace seqmark::ssd
