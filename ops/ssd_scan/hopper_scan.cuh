// SPDX-License-Identifier: Apache-2.0
//
// SegmentScan for sm_90a: the same mathematics as scan.cuh with roles for
// warps.
//
// A CTA has two warpgroups that each own 64 rows (head, p) of the state, in
// registers, for all d_state columns and all tokens of y^T. Everything a
// warpgroup multiplies from the left is in registers: the state, rounded, and
// x^T, scaled or not; from the right come tiles in shared memory: C, B and the
// scores. A third warpgroup makes the scores one chunk ahead, C B^T once for
// all heads of the CTA. Warps of a fourth make the decays, further ahead, and
// one of them starts the bulk copies. Where the tile is gated
// (ops/mamba2_inner), y is gated as it is staged (hopper_gate.cuh).
#pragma once

#include "fixtures/dependent_launch_cuda.h"
#include "ops/ssd_scan/hopper_chunk.cuh"
#include "ops/ssd_scan/hopper_gate.cuh"
#include "ops/ssd_scan/hopper_scores.cuh"

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

// The state that the warpgroup's segment starts from.
template <class Tile, class T>
__device__ __forceinline__ void StartState(const HopperParams<T>& hp,
                                           const HopperPlace<Tile>& place,
                                           float (&state)[Tile::kN / 8][4]) {
  const Params<T>& p = hp.p;
  const int size = Tile::kP * p.d_state;
  const int64_t first = static_cast<int64_t>(place.batch) * p.state_count();
  const int pieces = place.segment * p.pieces;  // before this one
  if (hp.passed) {
    AddState<Tile>(
        place, p.d_state,
        p.states + ((first + pieces) * p.heads + place.head()) * size, 1.0f,
        state);
    return;
  }
  // A lane has a piece's decay, so that no piece waits for another's.
  float decay = 0.0f;
  if (place.lane < pieces)
    decay =
        p.decays[(first + pieces - 1 - place.lane) * p.heads + place.head()];
  float weight = 1.0f;
  for (int s = 0; s < pieces && weight > 0; ++s) {
    const int64_t index = (first + pieces - 1 - s) * p.heads + place.head();
    AddState<Tile>(place, p.d_state, p.states + index * size, weight, state);
    weight *= __shfl_sync(~0u, decay, s);
  }
  if (p.initial_state != nullptr)
    AddState<Tile>(
        place, p.d_state,
        p.initial_state +
            (static_cast<int64_t>(place.batch) * p.heads + place.head()) * size,
        weight, state);
}

// The two warpgroups that own the state: warps 0 to 7.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void ScanChunks(const HopperParamsOf<Tile>& hp,
                                           const HopperPlace<Tile>& place,
                                           int first, int end, bool final,
                                           HopperScanShared<Tile>& shared) {
  constexpr int kSteps = kChunk / 16;
  const Params<T>& p = hp.p;
  const int group = place.warp / 4, t = place.lane % 4;
  float state[Tile::kN / 8][4] = {};
  WaitForPrevious();
  if (place.active()) StartState(hp, place, state);
  float y[kChunk / 8][4] = {};
  uint32_t rounded[Tile::kN / 16][4];  // the state
  uint32_t out[kSteps][4];             // y of the chunk before
  const auto round_state = [&] {
#pragma unroll
    for (int k = 0; k < Tile::kN / 16; ++k)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float(&v)[4] = state[2 * k + r / 2];
        rounded[k][r] = PackPair<T>(v[2 * (r % 2)], v[2 * (r % 2) + 1]);
      }
  };
  // Stages and stores `out`. One thread stores; what it stored before has left
  // the other buffer by the time that anyone passes the barrier.
  const auto store = [&](int chunk) {
    uint8_t* const staged = shared.y[group][(chunk - first) % 2];
    const uint32_t rows = Across(SharedAddress(staged), Opaque(place.lane),
                                 place.warp % 4 * 2, Tile::kRow);
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
      hopper::StoreMatricesTransposed(Shifted(rows, 16 * j, 0, Tile::kRow),
                                      out[j]);
    hopper::FenceForProducts();
    if (threadIdx.x % 128 == 0) hopper::WaitStores();
    hopper::SyncWarps<128>(1 + group);
    if (!place.active()) return;
    if (p.z != nullptr)
      StoreByThreads(p, place, chunk * kChunk, staged);
    else if (threadIdx.x % 128 == 0)
      hopper::StoreBox(hp.y, place.head() * Tile::kP + place.row,
                       chunk * kChunk, place.batch, staged);
  };
  // The same of a gated y: see GateOutputs. z of a chunk is fetched while the
  // chunk before it is stored, once that place's y has left.
  [[maybe_unused]] const bool leads = threadIdx.x % 128 == 0 && place.active();
  [[maybe_unused]] const auto fetch_z = [&](int chunk) {
    if constexpr (Tile::kGated) {
      const int buffer = (chunk - first) % 2;
      uint64_t& full = shared.gate.full[group][buffer];
      hopper::ExpectBytes(full, Tile::kTileBytes);
      hopper::CopyBox(shared.y[group][buffer], hp.z, full,
                      place.head() * Tile::kP + place.row, chunk * kChunk,
                      place.batch);
      hopper::Arrive(full);
    }
  };
  [[maybe_unused]] float scale[2] = {1.0f, 1.0f};
  if constexpr (Tile::kGated) {
    if (leads) {
      fetch_z(first);
      if (first + 1 < end) fetch_z(first + 1);
    }
    if (hp.gate.weight != nullptr && place.active()) {
      const T* const weight = hp.gate.weight + place.head() * Tile::kP +
                              place.row + place.warp % 4 * 16 + place.lane / 4;
      scale[0] = ToFloat(weight[0]);
      scale[1] = ToFloat(weight[8]);
    }
  }
  // Gates and stages kGateTokens of `out`, from `token` of the chunk.
  [[maybe_unused]] const auto gate = [&](int chunk, int token) {
    if constexpr (Tile::kGated) {
      const int buffer = (chunk - first) % 2;
      uint8_t* const staged = shared.y[group][buffer] + token * Tile::kRow;
      float* const sums =
          &shared.gate.squares[buffer][group][place.warp % 4][token];
      GateOutputs(place, scale, staged,
                  hp.gate.weight != nullptr ? sums : nullptr, &out[token / 16]);
    }
  };
  // y of a chunk is stored behind the next chunk's first product. A gated y is
  // gated and stored behind its last; behind the first, the thread that stores
  // fetches the next z, and all wait for theirs.
  const auto store_early = [&](int chunk) {
    if constexpr (!Tile::kGated) {
      store(chunk);
    } else {
      if (!place.active()) return;
      const int turn = chunk - first;
      if (leads && turn > 0) {
        hopper::WaitStores();
        if (chunk + 1 < end) fetch_z(chunk + 1);
      }
      hopper::Wait(shared.gate.full[group][turn % 2], turn / 2 & 1);
    }
  };
  const auto store_late = [&](int chunk) {
    if constexpr (Tile::kGated) {
      if (!place.active()) return;
      const int buffer = (chunk - first) % 2;
      gate(chunk, 0);
      gate(chunk, kGateTokens);
      hopper::FenceForProducts();
      hopper::SyncWarps<128>(1 + group);
      if (leads)
        hopper::StoreBox(hp.y, place.head() * Tile::kP + place.row,
                         chunk * kChunk, place.batch, shared.y[group][buffer]);
      const float(&sums)[4][kChunk] = shared.gate.squares[buffer][group];
      const int i = threadIdx.x % 128, token = chunk * kChunk + i;
      if (hp.gate.weight != nullptr && i < kChunk && token < p.seqlen)
        hp.gate.squares[place.batch * hp.gate.squares_strides.batch +
                        token * hp.gate.squares_strides.token +
                        (place.head() * Tile::kP + place.row) / kPartRows] =
            (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
    }
  };
  const auto decay_state = [&](int turn) {
    const int stage = turn % Tile::kStages;
    hopper::Wait(shared.full[stage], turn / Tile::kStages & 1);
    const float whole = shared.decays[stage][place.slot].whole;
#pragma unroll
    for (auto& tile : state)
#pragma unroll
      for (float& v : tile) v *= whole;
  };
  round_state();
  decay_state(0);

  for (int chunk = first; chunk < end; ++chunk) {
    const int turn = chunk - first;
    const int stage = turn % Tile::kStages, buffer = turn % 2;
    // y^T = state C^T
    hopper::Hold(rounded);
    hopper::Hold(y);
    const HopperDecays& decays = shared.decays[stage][place.slot];
    const auto c = hopper::ByColumns(shared.C[stage]);
    hopper::BeginProducts();
#pragma unroll
    for (int k = 0; k < Tile::kN / 16; ++k)
      hopper::Product<false>(y, rounded[k],
                             c.At(k / 4 * Tile::kTileBytes + k % 4 * 32), k > 0,
                             T());
    hopper::CommitProducts();
    if (turn > 0) store_early(chunk - 1);
    // state = whole * state, done before, + (weight x)^T B
    // x is loaded twice, once for either use, to need fewer registers while
    // all products are under way.
    uint32_t x[kSteps][4], scaled[kSteps][4];
    const uint32_t x_tile = SharedAddress(shared.x[stage][group]);
    LoadChunkX(x_tile, place.lane, place.warp, scaled);
    ScaleX<T>(decays.weight, t, scaled);
    hopper::Hold(state);
    hopper::Hold(scaled);
    const auto b = hopper::ByRows<Tile::kTileBytes>(shared.B[stage]);
    hopper::BeginProducts();
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
      hopper::Product<true>(state, scaled[j], b.At(16 * Tile::kRow * j), true,
                            T());
    hopper::CommitProducts();
    // y^T = before * y^T + x^T scores^T
    hopper::WaitProducts<1>();
    hopper::Hold(y);
    hopper::Hold(rounded);
    LoadChunkX(x_tile, place.lane, place.warp, x);
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      const float2 before =
          *reinterpret_cast<const float2*>(&decays.before[8 * n + 2 * t]);
#pragma unroll
      for (int e = 0; e < 4; ++e) y[n][e] *= e % 2 ? before.y : before.x;
    }
    hopper::Hold(y);
    hopper::Hold(x);
    hopper::Wait(shared.scored[buffer], turn / 2 & 1);
    const auto scores = hopper::ByColumns(shared.scores[buffer][place.slot]);
    hopper::BeginProducts();
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
      hopper::Product<false>(y, x[j], scores.At(32 * j), true, T());
    hopper::CommitProducts();
    if (turn > 0) store_late(chunk - 1);
    hopper::WaitProducts<1>();
    hopper::Hold(state);
    hopper::Hold(scaled);
    round_state();
    hopper::Hold(rounded);
    hopper::WaitProducts<0>();
    hopper::Hold(y);
    hopper::Hold(x);
    __syncwarp();
    if (ArrivesForWarp(place.lane)) {
      hopper::Arrive(shared.empty[stage]);
      hopper::Arrive(shared.free[buffer]);
    }
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        out[j][r] = PackPair<T>(y[2 * j + r / 2][2 * (r % 2)],
                                y[2 * j + r / 2][2 * (r % 2) + 1]);
    if (chunk + 1 < end) decay_state(turn + 1);
  }
  store_early(end - 1);
  store_late(end - 1);
  if (threadIdx.x % 128 == 0) hopper::WaitStores();

  if (place.active() && final) {
    float* const out =
        p.final_state +
        (static_cast<int64_t>(place.batch) * p.heads + place.head()) *
            Tile::kP * p.d_state;
    ForEachHopperPair<Tile>(
        place, p.d_state, state, [&](float v0, float v1, int offset) {
          *reinterpret_cast<float2*>(out + offset) = {v0, v1};
        });
  }
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

  // 2 * 184 + 88 + 56 = 512 registers over the warpgroups.
  if (place.warp >= 12) {
    hopper::GiveRegisters<56>();
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
    hopper::GiveRegisters<88>();
    MakeScores(p, place, end - first, shared);
  } else {
    hopper::TakeRegisters<184>();
    ScanChunks(hp, place, first, end, end == chunks, shared);
  }
#endif
}

}  // namespace seqmark::ssd
