// SPDX-License-Identifier: Apache-2.0
//
// The gate of a scan's y on sm_90a, with the squares of a norm that is done
// later (ops/mamba2_inner), by four warps that own no state: those that do only
// stage y, as without a gate, and go on. z comes by bulk copies, a chunk ahead,
// beside y, which is gated where it lies and leaves by bulk stores.
#pragma once

#include "ops/ssd_scan/hopper_chunk.cuh"

namespace seqmark::ssd {

#if SEQMARK_SM90A

// Warp `warp` of the four: tokens kGateTokens * warp and so on of each chunk,
// on its own from z's copy to y's store. Eight lanes have a token's row of a
// warpgroup's 64 columns, a part of the squares.
template <class Tile>
class GateWarp {
  using T = typename Tile::Element;
  static constexpr int kBytes = kGateTokens * Tile::kRow;  // of y or z

 public:
  __device__ __forceinline__ GateWarp(const HopperParamsOf<Tile>& hp,
                                      const HopperPlace<Tile>& place, int warp,
                                      int first, int end,
                                      HopperScanShared<Tile>& shared)
      : hp_(hp),
        place_(place),
        shared_(shared),
        warp_(warp),
        first_(first),
        end_(end) {
#pragma unroll
    for (int group = 0; group < 2; ++group) {
      const uint32_t one = PackPair<T>(1.0f, 1.0f);
      weight_[group] = {one, one, one, one};
      if (!Exists(group)) continue;
      if (place.lane == 0) FetchZ(group, first);
      if (hp.gate.weight != nullptr)
        weight_[group] = *reinterpret_cast<const uint4*>(
            hp.gate.weight + Column(group) + place.lane % 8 * 8);
    }
  }

  // Waits for a chunk's y, gates it and lets it leave.
  __device__ __forceinline__ void Gate(int chunk) {
    const int parity = (chunk - first_) & 1;
    const int lane = Opaque(place_.lane), row = lane / 8, piece = lane % 8;
    const bool squares = hp_.gate.weight != nullptr;
#pragma unroll 1
    for (int group = 0; group < 2 && Exists(group); ++group) {
      uint8_t* const y = Y(group);
      const uint8_t* const z = Z(group);
      const uint4 weight = group == 0 ? weight_[0] : weight_[1];
      hopper::Wait(shared_.gate.full[group][warp_], parity);
      hopper::Wait(shared_.gate.staged[group], parity);
      const auto at = [&](int i) {
        return Swizzled(row + 4 * i, piece, Tile::kRow);
      };
      float sum[4];
#pragma unroll
      for (int half = 0; half < 4; half += 2) {
        uint4 gates[2], values[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          gates[i] = *reinterpret_cast<const uint4*>(z + at(half + i));
          values[i] = *reinterpret_cast<const uint4*>(y + at(half + i));
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          sum[half + i] = GateEight(gates[i], weight, values[i]);
          *reinterpret_cast<uint4*>(y + at(half + i)) = values[i];
        }
      }
      hopper::FenceForProducts();
      __syncwarp();
      if (place_.lane == 0) {
        hopper::StoreBox(hp_.y, Column(group), Token(chunk), place_.batch, y);
        if (chunk + 1 < end_) FetchZ(group, chunk + 1);
      }
      if (!squares) continue;
      // Over a row's eight lanes; each keeps half of its rows, twice.
      const bool upper = piece & 4, odd = piece & 2;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        sum[i] = (upper ? sum[i + 2] : sum[i]) +
                 __shfl_xor_sync(~0u, upper ? sum[i] : sum[i + 2], 4);
      sum[0] = (odd ? sum[1] : sum[0]) +
               __shfl_xor_sync(~0u, odd ? sum[0] : sum[1], 2);
      sum[0] += __shfl_xor_sync(~0u, sum[0], 1);
      const int64_t token = Token(chunk) + row + 4 * (piece / 2);
      const Strides& strides = hp_.gate.squares_strides;
      if (piece % 2 == 0 && token < hp_.p.seqlen)
        hp_.gate.squares[place_.batch * strides.batch + token * strides.token +
                         Column(group) / kPartRows] = sum[0];
    }
  }

  // The chunk's y has left: the next may be staged.
  __device__ __forceinline__ void Release() {
    if (place_.lane == 0) hopper::WaitStores();
    __syncwarp();
    if (ArrivesForWarp(place_.lane))
      for (auto& free : shared_.gate.free) hopper::Arrive(free);
  }

 private:
  __device__ __forceinline__ bool Exists(int group) const {
    return group * 64 / Tile::kP < place_.heads;
  }
  __device__ __forceinline__ int Column(int group) const {
    return place_.first_head * Tile::kP + group * 64;
  }
  __device__ __forceinline__ int Token(int chunk) const {
    return chunk * kChunk + warp_ * kGateTokens;
  }
  __device__ __forceinline__ uint8_t* Y(int group) const {
    return shared_.y[group][0] + warp_ * kBytes;
  }
  __device__ __forceinline__ uint8_t* Z(int group) const {
    return shared_.y[group][1] + warp_ * kBytes;
  }
  // One lane.
  __device__ __forceinline__ void FetchZ(int group, int chunk) const {
    uint64_t& full = shared_.gate.full[group][warp_];
    hopper::ExpectBytes(full, kBytes);
    hopper::CopyBox(Z(group), hp_.z, full, Column(group), Token(chunk),
                    place_.batch);
    hopper::Arrive(full);
  }
  // Gates eight columns of a token; the sum of the squares before the weights.
  __device__ __forceinline__ static float GateEight(const uint4& gates,
                                                    const uint4& weights,
                                                    uint4& values) {
    const auto pair = [](uint32_t gates, uint32_t weights, uint32_t& values) {
      const float2 z = UnpackPair<T>(gates), w = UnpackPair<T>(weights);
      float2 v = UnpackPair<T>(values);
      v.x *= SiluFast(z.x);
      v.y *= SiluFast(z.y);
      values = PackPair<T>(v.x * w.x, v.y * w.y);
      return v.x * v.x + v.y * v.y;
    };
    return (pair(gates.x, weights.x, values.x) +
            pair(gates.y, weights.y, values.y)) +
           (pair(gates.z, weights.z, values.z) +
            pair(gates.w, weights.w, values.w));
  }

  const HopperParamsOf<Tile>& hp_;
  const HopperPlace<Tile>& place_;
  HopperScanShared<Tile>& shared_;
  const int warp_, first_, end_;
  uint4 weight_[2];  // of the lane's columns
};

// What gates nothing.
struct NoGate {
  template <class... Any>
  __device__ __forceinline__ explicit NoGate(Any&&...) {}
  __device__ __forceinline__ void Gate(int) {}
  __device__ __forceinline__ void Release() {}
};

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
