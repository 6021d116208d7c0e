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
// all heads of the CTA. A warp a head makes the decays, further ahead, and one
// of them starts the bulk copies.
#pragma once

#include "fixtures/dependent_launch_cuda.h"
#include "ops/ssd_scan/hopper_chunk.cuh"
#include "ops/ssd_scan/hopper_convolve.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

// The scores of every head in a chunk, from C B^T, with the skip on their
// diagonal; rows and warps as in left operands.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void WriteScores(
    const HopperDecays (&decays)[Tile::kHeads], const float* skip,
    const float (&cb)[8][4], int lane, int warp,
    uint8_t (&scores)[Tile::kHeads][Tile::kTileBytes]) {
  constexpr int kHeads = Tile::kHeads;
  const int g = lane / 4, t = lane % 4;
  const uint32_t rows =
      Down(SharedAddress(scores), lane, 0, Tile::kRow) + 16 * warp * Tile::kRow;
  const int i = 16 * warp + g;
  float a_i[kHeads][2];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    a_i[h][0] = decays[h].a[i];
    a_i[h][1] = decays[h].a[i + 8];
  }
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    if (k >= warp) break;
      // All earlier tokens than the warp's rows: exponents are split at the
      // last of the 16, both parts being <= 0.
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const float end = decays[h].a[16 * k + 15];
      const float r0 = Exp2Fast(a_i[h][0] - end);
      const float r1 = Exp2Fast(a_i[h][1] - end);
      uint32_t out[4];
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const float(&v)[4] = cb[2 * k + side];
        const float2 f = *reinterpret_cast<const float2*>(
            &decays[h].factor[16 * k + 8 * side + 2 * t]);
        out[2 * side] = PackPair<T>(v[0] * (f.x * r0), v[1] * (f.y * r0));
        out[2 * side + 1] = PackPair<T>(v[2] * (f.x * r1), v[3] * (f.y * r1));
      }
      hopper::StoreMatrices(
          Shifted(rows, 0, 2 * k, Tile::kRow) + h * Tile::kTileBytes, out);
    }
  }
  // The 16 x 16 block on the diagonal.
  float own[2][4];
#pragma unroll
  for (int n = 0; n < 8; ++n)
    if (n / 2 == warp)
#pragma unroll
      for (int e = 0; e < 4; ++e) own[n % 2][e] = cb[n][e];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    uint32_t out[4];
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int j = 16 * warp + 8 * side + 2 * t;
      const float2 a = *reinterpret_cast<const float2*>(&decays[h].a[j]);
      const float2 step = *reinterpret_cast<const float2*>(&decays[h].step[j]);
      float v[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int after = i + e / 2 * 8 - j - e % 2;
        const float score =
            own[side][e] * ((e % 2 ? step.y : step.x) *
                            Exp2Fast(a_i[h][e / 2] - (e % 2 ? a.y : a.x)));
        v[e] = after > 0 ? score : after == 0 ? score + skip[h] : 0.0f;
      }
      out[2 * side] = PackPair<T>(v[0], v[1]);
      out[2 * side + 1] = PackPair<T>(v[2], v[3]);
    }
    hopper::StoreMatrices((rows ^ (2 * warp << 4)) + h * Tile::kTileBytes, out);
  }
}

// The score warpgroup: warps 8 to 11.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void MakeScores(const Params<T>& p,
                                           const HopperPlace<Tile>& place,
                                           int chunks,
                                           HopperScanShared<Tile>& shared) {
  const int warp = place.warp - 8;
  // Blocks above the diagonal are zeros for ever.
  for (int i = threadIdx.x % 128;
       i < static_cast<int>(sizeof(shared.scores)) / 16; i += 128)
    reinterpret_cast<uint4*>(shared.scores)[i] = {0, 0, 0, 0};
  hopper::SyncWarps<128>(3);
  float skip[Tile::kHeads];
#pragma unroll
  for (int h = 0; h < Tile::kHeads; ++h)
    skip[h] = p.D != nullptr && h < place.heads ? p.D[place.first_head + h] : 0;
  float cb[8][4] = {};
  for (int turn = 0; turn < chunks; ++turn) {
    const int stage = turn % Tile::kStages, buffer = turn % 2;
    hopper::Wait(shared.full[stage], turn / Tile::kStages & 1);
    const auto b = hopper::ByColumns(shared.B[stage]);
    const auto c = hopper::ByColumns(shared.C[stage]);
    hopper::Hold(cb);
    hopper::BeginProducts();
#pragma unroll
    for (int k = 0; k < Tile::kN / 16; ++k) {
      const uint32_t at = k / 4 * Tile::kTileBytes + k % 4 * 32;
      hopper::Product(cb, c.At(at), b.At(at), k > 0, T());
    }
    hopper::CommitProducts();
    hopper::Wait(shared.free[buffer], (turn / 2 & 1) ^ 1);
    hopper::WaitProducts<0>();
    hopper::Hold(cb);
    WriteScores<Tile>(shared.decays[stage], skip, cb, Opaque(place.lane), warp,
                      shared.scores[buffer]);
    hopper::FenceForProducts();
    __syncwarp();
    if (ArrivesForWarp(place.lane)) {
      hopper::Arrive(shared.scored[buffer]);
      hopper::Arrive(shared.empty[stage]);
    }
  }
}

// The warpgroup's y of a chunk, staged as rows of tokens, gated on the way to
// global memory.
template <class Tile, class T>
__device__ __forceinline__ void StoreGated(const Params<T>& p,
                                           const HopperPlace<Tile>& place,
                                           int token, const uint8_t* staged) {
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

// Gates a warpgroup's y of a chunk, `out`, by the z that lies where it is to be
// staged, `staged`, and stages it there. Each warp's tiles are its own. `scale`
// are the weights of the lane's two rows; with `sums`, the squares of what the
// weights are multiplied with go there, for each token over the warp's rows.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void GateOutputs(const HopperPlace<Tile>& place,
                                            const float (&scale)[2],
                                            uint8_t* staged, float* sums,
                                            uint32_t (&out)[kChunk / 16][4]) {
  const uint32_t rows = Across(SharedAddress(staged), Opaque(place.lane),
                               place.warp % 4 * 2, Tile::kRow);
  float square[kChunk / 8][2] = {};
#pragma unroll
  for (int j = 0; j < kChunk / 16; ++j) {
    const uint32_t at = Shifted(rows, 16 * j, 0, Tile::kRow);
    uint32_t z[4];
    LoadMatricesTransposed(z, at);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float2 gate = UnpackPair<T>(z[r]), y = UnpackPair<T>(out[j][r]);
      const float v0 = y.x * SiluFast(gate.x), v1 = y.y * SiluFast(gate.y);
      float(&sum)[2] = square[2 * j + r / 2];
      sum[0] = fmaf(v0, v0, sum[0]);
      sum[1] = fmaf(v1, v1, sum[1]);
      out[j][r] = PackPair<T>(v0 * scale[r % 2], v1 * scale[r % 2]);
    }
    hopper::StoreMatricesTransposed(at, out[j]);
  }
  if (sums == nullptr) return;
    // Over the eight lanes that have other rows of the same tokens; each keeps
    // half of what it had, three times, which leaves it its own eighth.
#pragma unroll
  for (int half = 4; half > 0; half /= 2) {
    const bool upper = place.lane & 4 * half;
#pragma unroll
    for (int n = 0; n < half; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float kept = upper ? square[n + half][e] : square[n][e];
        const float sent = upper ? square[n][e] : square[n + half][e];
        square[n][e] = kept + __shfl_xor_sync(~0u, sent, 4 * half);
      }
  }
  *reinterpret_cast<float2*>(&sums[2 * place.lane]) = {square[0][0],
                                                       square[0][1]};
}

// The state that the warpgroup's segment starts from.
template <class Tile, class T>
__device__ __forceinline__ void StartState(const HopperParams<T>& hp,
                                           const HopperPlace<Tile>& place,
                                           float (&state)[Tile::kN / 8][4]) {
  const Params<T>& p = hp.p;
  const int size = Tile::kP * p.d_state;
  const int64_t first = static_cast<int64_t>(place.batch) * p.segments;
  if (hp.passed) {
    AddState<Tile>(
        place, p.d_state,
        p.states + ((first + place.segment) * p.heads + place.head()) * size,
        1.0f, state);
    return;
  }
  float weight = 1.0f;
  for (int s = place.segment - 1; s >= 0; --s) {
    const int64_t index = (first + s) * p.heads + place.head();
    AddState<Tile>(place, p.d_state, p.states + index * size, weight, state);
    weight *= p.decays[index];
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
      StoreGated(p, place, chunk * kChunk, staged);
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
  [[maybe_unused]] const auto store_gated = [&](int chunk) {
    if constexpr (Tile::kGated) {
      if (!place.active()) return;
      const int turn = chunk - first, buffer = turn % 2;
      if (leads && turn > 0) {
        hopper::WaitStores();
        if (chunk + 1 < end) fetch_z(chunk + 1);
      }
      hopper::Wait(shared.gate.full[group][buffer], turn / 2 & 1);
      uint8_t* const staged = shared.y[group][buffer];
      float(&sums)[4][kChunk] = shared.gate.squares[buffer][group];
      const bool squares = hp.gate.weight != nullptr;
      GateOutputs(place, scale, staged,
                  squares ? sums[place.warp % 4] : nullptr, out);
      hopper::FenceForProducts();
      hopper::SyncWarps<128>(1 + group);
      if (leads)
        hopper::StoreBox(hp.y, place.head() * Tile::kP + place.row,
                         chunk * kChunk, place.batch, staged);
      const int i = threadIdx.x % 128, token = chunk * kChunk + i;
      if (squares && i < kChunk && token < p.seqlen)
        hp.gate.squares[place.batch * hp.gate.squares_strides.batch +
                        token * hp.gate.squares_strides.token +
                        (place.head() * Tile::kP + place.row) / kPartRows] =
            (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
    }
  };
  const auto store_any = [&](int chunk) {
    if constexpr (Tile::kGated)
      store_gated(chunk);
    else
      store(chunk);
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
    if (turn > 0) store_any(chunk - 1);
    // state = whole * state, done before, + (weight x)^T B
    // x is loaded twice, once for either use, to need fewer registers while
    // all products are under way.
    uint32_t x[kSteps][4], scaled[kSteps][4];
    if constexpr (Tile::kConvolved)
      hopper::Wait(shared.convolution.done[stage], turn / Tile::kStages & 1);
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
  store_any(end - 1);
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
      if constexpr (Tile::kConvolved) {
        hopper::InitBarrier(shared.convolution.raw[s], 1);
        hopper::InitBarrier(shared.convolution.done[s], 4 * kArrivalsOfWarp);
      }
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
    // They convolve together, each chunk in turn. `convolved` of them are done.
    [[maybe_unused]] int convolved = 0;
    [[maybe_unused]] const auto convolve_before = [&](int turns) {
      if constexpr (Tile::kConvolved) {
        for (; convolved < turns; ++convolved) {
          auto& conv = shared.convolution;
          const int stage = convolved % Tile::kStages;
          hopper::Wait(conv.raw[stage], convolved / Tile::kStages & 1);
          ConvolveChunk<Tile, 4>(hp.convolution, place, first + convolved,
                                 place.warp - 12, conv.taps, conv.before[stage],
                                 shared.x[stage][0]);
          hopper::FenceForProducts();
          __syncwarp();
          if (ArrivesForWarp(place.lane)) hopper::Arrive(conv.done[stage]);
        }
      }
    };
    if constexpr (Tile::kConvolved) {
      LoadTaps(hp.convolution, place.first_head * Tile::kP, p.heads * Tile::kP,
               threadIdx.x % 128, 128, shared.convolution.taps);
      hopper::SyncWarps<128>(4);
    }
    if (slot >= Tile::kHeads || first + odd >= end) {
      if constexpr (Tile::kConvolved) convolve_before(end - first);
      return;
    }
    DecayWarp<T> decays(p, place, slot);
    decays.ForEachChunk(first + odd, 2, [&](int chunk, const T(&raw)[2]) {
      const int turn = chunk - first, stage = turn % Tile::kStages;
      decays.Sum(chunk * kChunk, raw);
      hopper::Wait(shared.empty[stage], (turn / Tile::kStages & 1) ^ 1);
      if (slot == 0 && place.lane == 0) {
        constexpr int kXTiles = Tile::kConvolved ? 0 : 2;
        hopper::ExpectBytes(
            shared.full[stage],
            (kXTiles + 2 * Tile::kInputTiles) * Tile::kTileBytes);
        if constexpr (Tile::kConvolved)
          CopyRaw(hp, place, chunk, stage, shared);
        for (int k = 0; k < Tile::kInputTiles; ++k) {
          hopper::CopyBox(shared.B[stage][k], hp.B, shared.full[stage], 64 * k,
                          place.group, chunk * kChunk, place.batch);
          hopper::CopyBox(shared.C[stage][k], hp.C, shared.full[stage], 64 * k,
                          place.group, chunk * kChunk, place.batch);
        }
        for (int k = 0; k < kXTiles; ++k)
          hopper::CopyBox(shared.x[stage][k], hp.x, shared.full[stage],
                          place.first_head * Tile::kP + 64 * k, chunk * kChunk,
                          place.batch);
      }
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
      if constexpr (Tile::kConvolved) convolve_before(turn + 1);
      return chunk + 2 < end;
    });
    if constexpr (Tile::kConvolved) convolve_before(end - first);
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
