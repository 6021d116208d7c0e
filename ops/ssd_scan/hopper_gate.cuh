// SPDX-License-Identifier: Apache-2.0
//
// The gate in the scan's epilogue on sm_90a, with the squares of a norm that is
// done later (ops/mamba2_inner): z is where y will be staged, and both are in
// the same registers.
#pragma once

#include "ops/ssd_scan/hopper_chunk.cuh"

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
  constexpr int kSteps = kGateTokens / 16;
  const uint32_t rows = Across(SharedAddress(staged), Opaque(place.lane),
                               place.warp % 4 * 2, Tile::kRow);
  // Each step's special functions hide the others' latency.
  uint32_t z[kSteps][4];
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
    LoadMatricesTransposed(z[j], Shifted(rows, 16 * j, 0, Tile::kRow));
  float square[kGateTokens / 4] = {};
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
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
  for (int j = 0; j < kSteps; ++j)
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

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
