// SPDX-License-Identifier: Apache-2.0
//
// The loop over chunks of a gated scan on sm_90a, with the squares of a norm
// that is done later (ops/mamba2_inner): z is where y will be staged, and both
// are in the same registers.
#pragma once

#include "ops/ssd_scan/hopper_state.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

// The tokens of a chunk that are gated at once, half of them: their z is in
// registers before any is used.
inline constexpr int kGateTokens = kChunk / 2;

// Gates `out`, a warpgroup's y of so many tokens, by the z that lies where it
// is to be staged, at `staged`, and stages it there. Each warp's tiles are its
// own. `scale` are the weights of the lane's two rows; with `sums`, the squares
// of what the weights are multiplied with go there, for each token over the
// warp's rows.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void GateOutputs(const HopperPlace<Tile>& place,
                                            const float (&scale)[2],
                                            uint8_t* staged, float* sums,
                                            uint32_t (*out)[4]) {
  constexpr int kGateSteps = kGateTokens / 16;
  const uint32_t rows = Across(SharedAddress(staged), Opaque(place.lane),
                               place.warp % 4 * 2, Tile::kRow);
  // Each step's special functions hide the others' latency.
  uint32_t z[kGateSteps][4];
#pragma unroll
  for (int j = 0; j < kGateSteps; ++j)
    LoadMatricesTransposed(z[j], Shifted(rows, 16 * j, 0, Tile::kRow));
  float square[kGateTokens / 4] = {};
#pragma unroll
  for (int j = 0; j < kGateSteps; ++j)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float2 gate = UnpackPair<T>(z[j][r]), y = UnpackPair<T>(out[j][r]);
      const float v0 = y.x * SiluFast(gate.x), v1 = y.y * SiluFast(gate.y);
      float* const sum = &square[4 * j + r / 2 * 2];
      sum[0] = fmaf(v0, v0, sum[0]);
      sum[1] = fmaf(v1, v1, sum[1]);
      out[j][r] = PackPair<T>(v0 * scale[r % 2], v1 * scale[r % 2]);
    }
#pragma unroll
  for (int j = 0; j < kGateSteps; ++j)
    hopper::StoreMatricesTransposed(Shifted(rows, 16 * j, 0, Tile::kRow),
                                    out[j]);
  if (sums == nullptr) return;
    // Over the eight lanes that have other rows of the same tokens; each keeps
    // half of what it had, three times, which leaves it one token.
#pragma unroll
  for (int half = 4; half > 0; half /= 2) {
    const bool upper = place.lane & 4 * half;
#pragma unroll
    for (int n = 0; n < half; ++n) {
      const float kept = upper ? square[n + half] : square[n];
      const float sent = upper ? square[n] : square[n + half];
      square[n] = kept + __shfl_xor_sync(~0u, sent, 4 * half);
    }
  }
  sums[place.lane / 8 * 8 + place.lane % 4 * 2 + place.lane / 4 % 2] =
      square[0];
}

// The two warpgroups that own the state: warps 0 to 7. What a chunk's y has of
// the state before it and of its own tokens are two sums, so that y is whole,
// gated and stored while the state's product runs. Without a gate this is 2 %
// slower than ScanChunks.
template <class Tile, class T = typename Tile::Element>
__device__ __forceinline__ void ScanGatedChunks(const HopperParamsOf<Tile>& hp,
                                                const HopperPlace<Tile>& place,
                                                int first, int end,
                                                HopperScanShared<Tile>& shared,
                                                HopperState<Tile>& state) {
  const Params<T>& p = hp.p;
  const auto& norm = hp.gate;
  const int group = place.warp / 4, t = place.lane % 4;
  const int row = place.head() * Tile::kP + place.row;
  const bool leads = threadIdx.x % 128 == 0 && place.active();
  const auto fetch_z = [&](int chunk) {
    const int buffer = (chunk - first) % 2;
    uint64_t& full = shared.gate.full[group][buffer];
    hopper::ExpectBytes(full, Tile::kTileBytes);
    hopper::CopyBox(shared.y[group][buffer], hp.z, full, row, chunk * kChunk,
                    place.batch);
    hopper::Arrive(full);
  };
  if (leads) {
    fetch_z(first);
    if (first + 1 < end) fetch_z(first + 1);
  }
  float scale[2] = {1.0f, 1.0f};
  if (norm.weight != nullptr && place.active()) {
    const T* const weight =
        norm.weight + row + place.warp % 4 * 16 + place.lane / 4;
    scale[0] = ToFloat(weight[0]);
    scale[1] = ToFloat(weight[8]);
  }
  uint32_t out[kSteps][4];  // y of the chunk, rounded
  const auto store_outputs = [&](int chunk) {
    if (!place.active()) return;
    const int turn = chunk - first, buffer = turn % 2;
    hopper::Wait(shared.gate.full[group][buffer], turn / 2 & 1);
    float(&sums)[4][kChunk] = shared.gate.squares[buffer][group];
#pragma unroll
    for (int token = 0; token < kChunk; token += kGateTokens)
      GateOutputs(
          place, scale, shared.y[group][buffer] + token * Tile::kRow,
          norm.weight != nullptr ? &sums[place.warp % 4][token] : nullptr,
          &out[token / 16]);
    hopper::FenceForProducts();
    hopper::SyncWarps<128>(1 + group);
    if (leads)
      hopper::StoreBox(hp.y, row, chunk * kChunk, place.batch,
                       shared.y[group][buffer]);
    const int i = threadIdx.x % 128, token = chunk * kChunk + i;
    if (norm.weight != nullptr && i < kChunk && token < p.seqlen)
      norm.squares[place.batch * norm.squares_strides.batch +
                   token * norm.squares_strides.token + row / kPartRows] =
          (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]);
  };
  float y[kChunk / 8][4] = {};    // of the state before the chunk
  float own[kChunk / 8][4] = {};  // of the chunk's tokens
  hopper::Ring<Tile::kStages> ring;
  hopper::Ring<2> ring_of_two;
  state.Round();
  state.Decay(WaitDecay(place, ring, shared));

  for (int chunk = first; chunk < end; ++chunk) {
    const int stage = ring.stage, buffer = ring_of_two.stage;
    const HopperDecays& decays = shared.decays[stage][place.slot];
    hopper::Hold(state.rounded);
    hopper::Hold(y);
    hopper::Hold(own);
    state.BeginOutputs(shared.C, stage, y);
    hopper::Wait(shared.scored[buffer], ring_of_two.parity);
    BeginOwnOutputs<Tile>(shared.x[stage][group],
                          shared.scores[buffer][place.slot], own);
    // The next z comes once that place's y has left.
    if (leads && chunk > first) {
      hopper::WaitStores();
      if (chunk + 1 < end) fetch_z(chunk + 1);
    }
    hopper::WaitProducts<1>();
    hopper::Hold(state.rounded);
    uint32_t scaled[kSteps][4];
    LoadChunkX(SharedAddress(shared.x[stage][group]), place.lane, place.warp,
               scaled);
    ScaleX<T>(decays.weight, t, scaled, scaled);
    hopper::Hold(state.sums);
    hopper::Hold(scaled);
    state.BeginUpdate(shared.B, stage, scaled);
    hopper::WaitProducts<1>();
    hopper::Hold(y);
    hopper::Hold(own);
    __syncwarp();
    if (ArrivesForWarp(place.lane)) hopper::Arrive(shared.free[buffer]);
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      const float2 before =
          *reinterpret_cast<const float2*>(&decays.before[8 * n + 2 * t]);
      const float(&v)[4] = y[n], (&w)[4] = own[n];
      uint32_t(&to)[4] = out[n / 2];
      to[n % 2 * 2] =
          PackPair<T>(fmaf(v[0], before.x, w[0]), fmaf(v[1], before.y, w[1]));
      to[n % 2 * 2 + 1] =
          PackPair<T>(fmaf(v[2], before.x, w[2]), fmaf(v[3], before.y, w[3]));
    }
    store_outputs(chunk);
    const bool more = chunk + 1 < end;
    ring.Next();
    ring_of_two.Next();
    const float whole = more ? WaitDecay(place, ring, shared) : 1.0f;
    hopper::WaitProducts<0>();
    hopper::Hold(state.sums);
    hopper::Hold(scaled);
    __syncwarp();
    if (ArrivesForWarp(place.lane)) hopper::Arrive(shared.empty[stage]);
    if (!more) break;
    state.Round();
    state.Decay(whole);
  }
}

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
