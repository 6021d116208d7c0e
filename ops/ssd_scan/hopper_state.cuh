// SPDX-License-Identifier: Apache-2.0
//
// The state on sm_90a: in the registers of a warpgroup, 64 rows (head, p) by
// d_state, from its segment's first chunk to its last. What the loops over
// chunks (hopper_scan.cuh, hopper_gate.cuh) do with it.
#pragma once

#include "ops/ssd_scan/hopper_chunk.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

inline constexpr int kSteps = kChunk / 16;  // of a product over tokens

template <class Tile>
struct HopperState {
  using T = typename Tile::Element;
  float sums[Tile::kN / 8][4] = {};
  uint32_t rounded[Tile::kN / 16][4];  // a left operand

  __device__ __forceinline__ void Round() {
#pragma unroll
    for (int k = 0; k < Tile::kN / 16; ++k)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float(&v)[4] = sums[2 * k + r / 2];
        rounded[k][r] = PackPair<T>(v[2 * (r % 2)], v[2 * (r % 2) + 1]);
      }
  }
  __device__ __forceinline__ void Decay(float by) {
#pragma unroll
    for (auto& tile : sums)
#pragma unroll
      for (float& v : tile) v *= by;
  }
  // Begins y^T = state C^T.
  template <size_t kStages>
  __device__ __forceinline__ void BeginOutputs(
      const uint8_t (&C)[kStages][Tile::kInputTiles][Tile::kTileBytes],
      int stage, float (&y)[kChunk / 8][4]) {
    const auto c = hopper::ByColumns(C).On(stage * sizeof(C[0]));
    hopper::BeginProducts();
#pragma unroll
    for (int k = 0; k < Tile::kN / 16; ++k)
      hopper::Product<false>(y, rounded[k],
                             c.At(k / 4 * Tile::kTileBytes + k % 4 * 32), k > 0,
                             T());
    hopper::CommitProducts();
  }
  // Begins state += (weight x)^T B.
  template <size_t kStages>
  __device__ __forceinline__ void BeginUpdate(
      const uint8_t (&B)[kStages][Tile::kInputTiles][Tile::kTileBytes],
      int stage, const uint32_t (&scaled)[kSteps][4]) {
    const auto b = hopper::ByRows<Tile::kTileBytes>(B).On(stage * sizeof(B[0]));
    hopper::BeginProducts();
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
      hopper::Product<true>(sums, scaled[j], b.At(16 * Tile::kRow * j), true,
                            T());
    hopper::CommitProducts();
  }
  // To final_state of the place's head.
  __device__ __forceinline__ void Store(const Params<T>& p,
                                        const HopperPlace<Tile>& place) {
    float* const out =
        p.final_state +
        (static_cast<int64_t>(place.batch) * p.heads + place.head()) *
            Tile::kP * p.d_state;
    ForEachHopperPair<Tile>(
        place, p.d_state, sums, [&](float v0, float v1, int offset) {
          *reinterpret_cast<float2*>(out + offset) = {v0, v1};
        });
  }
};

// Begins y^T = x^T scores^T, both from shared memory.
template <class Tile>
__device__ __forceinline__ void BeginOwnOutputs(const void* x,
                                                const void* scores,
                                                float (&y)[kChunk / 8][4]) {
  const auto a = hopper::ByRows<Tile::kTileBytes>(x);
  const auto b = hopper::ByColumns(scores);
  hopper::BeginProducts();
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
    hopper::Product<true>(y, a.At(16 * Tile::kRow * j), b.At(32 * j), j > 0,
                          typename Tile::Element());
  hopper::CommitProducts();
}

// Begins y^T += x^T scores^T, x^T from registers.
template <class Tile>
__device__ __forceinline__ void BeginOwnOutputs(const uint32_t (&x)[kSteps][4],
                                                const void* scores,
                                                float (&y)[kChunk / 8][4]) {
  const auto b = hopper::ByColumns(scores);
  hopper::BeginProducts();
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
    hopper::Product<false>(y, x[j], b.At(32 * j), true,
                           typename Tile::Element());
  hopper::CommitProducts();
}

// What the state decays by in a chunk, once the chunk's inputs are there.
template <class Tile>
__device__ __forceinline__ float WaitDecay(
    const HopperPlace<Tile>& place, const hopper::Ring<Tile::kStages>& ring,
    HopperScanShared<Tile>& shared) {
  hopper::Wait(shared.full[ring.stage], ring.parity);
  // By lanes: in a uniform register it would be waited for at once.
  return (&shared.decays[ring.stage][place.slot].whole)[Opaque(0)];
}

// The state that the warpgroup's segment starts from.
template <class Tile, class T>
__device__ __forceinline__ void StartState(const HopperParams<T>& hp,
                                           const HopperPlace<Tile>& place,
                                           HopperState<Tile>& state) {
  const Params<T>& p = hp.p;
  const int64_t first = static_cast<int64_t>(place.batch) * p.state_count();
  const int pieces = place.segment * p.pieces;  // before this one
  if (hp.passed) {
    AddHeldState<Tile>(
        HeldState(p, (first + pieces) * p.heads + place.head(), place), 1.0f,
        state.sums);
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
    AddHeldState<Tile>(HeldState(p, index, place), weight, state.sums);
    weight *= __shfl_sync(~0u, decay, s);
  }
  if (p.initial_state != nullptr)
    AddState<Tile>(
        place, p.d_state,
        p.initial_state +
            (static_cast<int64_t>(place.batch) * p.heads + place.head()) *
                Tile::kP * p.d_state,
        weight, state.sums);
}

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
