// SPDX-License-Identifier: Apache-2.0
//
// What the two kernels of sm_90a share (hopper_states.cuh, hopper_scan.cuh):
// their parameters and shared memory, which heads and rows a warp has, the
// decays of a chunk, x as a left operand, the state's elements.
#pragma once

#include "ops/arrivals.cuh"
#include "ops/ssd_scan/chunk.cuh"
#include "ops/ssd_scan/hopper.cuh"

namespace seqmark::ssd {

template <class T>
struct HopperParams {
  Params<T> p;
  CUtensorMap x, y;  // (batch, seqlen, heads * head_dim)
  CUtensorMap B, C;  // (batch, seqlen, groups, d_state)
  // Whether states[s] is already what piece s starts from, or yet what it
  // adds.
  bool passed;
  // C B^T made beforehand (hopper_products.cuh), or null: each CTA makes it.
  float4* products;
  int state_blocks, product_blocks;  // of HopperStates, in this order
};
template <class T>
struct GatedHopperParams : HopperParams<T> {
  CUtensorMap z;  // as y
  GateParams<T> gate;
};
template <class Tile>
using HopperParamsOf =
    std::conditional_t<Tile::kGated, GatedHopperParams<typename Tile::Element>,
                       HopperParams<typename Tile::Element>>;

template <class T, int kHeadDim, int kStateSize>
struct HopperTile {
  using Element = T;
  static constexpr bool kGated = false;
  static constexpr int kP = kHeadDim;    // 64 or 128
  static constexpr int kN = kStateSize;  // d_state, padded with zeros
  static constexpr int kHeads = 128 / kP;
  static constexpr int kStages = kN == 128 ? 3 : 4;
  static constexpr int kStateStages = 5;
  static constexpr int kRow = 128;                  // bytes
  static constexpr int kTileBytes = kChunk * kRow;  // of 64 columns
  static constexpr int kInputTiles = kN / 64;
  static constexpr int kScanThreads = 512;
  static constexpr int kStateThreads = 384;
  static_assert(kP == 64 || kP == 128);
  static_assert(kN == 64 || kN == 128);
};

// Of a chunk and a head, as powers of two: a as in Decays.
struct HopperDecays {
  float a[kChunk];
  float step[kChunk];
  float factor[kChunk];  // step exp2(a of the last of a token's 16 - a)
  float weight[kChunk];  // of a token in the state at the end
  float before[kChunk];  // of the state before the chunk at a token
  float whole;           // of the state before the chunk at its end
  int last;              // no earlier chunk matters (SegmentStates)
  float unused[2];
};

template <class Tile>
struct HopperStateShared {
  alignas(
      1024) uint8_t B[Tile::kStateStages][Tile::kInputTiles][Tile::kTileBytes];
  alignas(1024) uint8_t x[Tile::kStateStages][2][Tile::kTileBytes];
  HopperDecays decays[Tile::kStateStages][Tile::kHeads];
  uint64_t full[Tile::kStateStages], empty[Tile::kStateStages];
  float totals[2][2][2];
};

// Of a gated scan: whether z of a chunk has come, which lies where the
// warpgroup's y goes, and what each of its warps has of the squares' sums.
template <bool kGated>
struct HopperGateShared {};
template <>
struct HopperGateShared<true> {
  uint64_t full[2][2];             // warpgroup, buffer
  float squares[2][2][4][kChunk];  // buffer, warpgroup, warp
};

template <class Tile>
struct HopperScanShared {
  alignas(1024) uint8_t B[Tile::kStages][Tile::kInputTiles][Tile::kTileBytes];
  alignas(1024) uint8_t C[Tile::kStages][Tile::kInputTiles][Tile::kTileBytes];
  alignas(1024) uint8_t x[Tile::kStages][2][Tile::kTileBytes];
  alignas(1024) uint8_t scores[2][Tile::kHeads][Tile::kTileBytes];
  alignas(1024) uint8_t y[2][2][Tile::kTileBytes];
  HopperDecays decays[Tile::kStages][Tile::kHeads];
  uint64_t full[Tile::kStages], empty[Tile::kStages];
  uint64_t scored[2], free[2];
  [[no_unique_address]] HopperGateShared<Tile::kGated> gate;
};

// Dynamic shared memory need not start on 1024 bytes.
template <class Shared>
inline constexpr int kHopperBytes = sizeof(Shared) + 1024;

// Which rows of its CTA's heads a warpgroup has.
template <class Tile>
struct HopperPlace : BlockPlace {
  int lane, warp, slot, row;  // slot: the warpgroup's head; row: its first p

  template <class P>
  __device__ __forceinline__ HopperPlace(const P& p, int segments)
      : BlockPlace(p, segments, Tile::kHeads) {
    lane = threadIdx.x % 32;
    warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
    slot = warp / 4 * 64 / Tile::kP;
    row = warp / 4 * 64 % Tile::kP;
  }
  __device__ __forceinline__ int head() const { return first_head + slot; }
  __device__ __forceinline__ bool active() const { return slot < heads; }
};

#if SEQMARK_SM90A

template <class Shared>
__device__ __forceinline__ Shared& HopperShared() {
  extern __shared__ __align__(1024) uint8_t hopper_bytes[];
  // By an index, so that the compiler still knows this as shared memory.
  return *reinterpret_cast<Shared*>(hopper_bytes +
                                    (-SharedAddress(hopper_bytes) & 1023));
}

// Decays of one head by one warp, two tokens a lane.
template <class T>
struct DecayWarp {
  const T* dt;
  int64_t stride;
  float bias, rate, dt_min;
  int lane, seqlen;
  bool exists;
  // Raw steps of the next chunks: memory is further away than a chunk takes.
  static constexpr int kAhead = 2;
  T raw[kAhead][2];
  float step[2];
  float2 a;
  float total;

  template <class Tile>
  __device__ __forceinline__ DecayWarp(const Params<T>& p,
                                       const HopperPlace<Tile>& place,
                                       int slot) {
    exists = slot < place.heads;
    const int head = place.first_head + (exists ? slot : 0);
    dt = p.dt + place.batch * p.dt_strides.batch + head;
    stride = p.dt_strides.token;
    bias = p.dt_bias != nullptr ? p.dt_bias[head] : 0.0f;
    rate = p.A[head] * kLog2E;
    dt_min = p.dt_min;
    lane = place.lane;
    seqlen = p.seqlen;
  }
  __device__ __forceinline__ void Fetch(int token, T (&to)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      to[i] = dt[min(max(token + 2 * lane + i, 0), seqlen - 1) * stride];
  }
  // visit(chunk, raw steps) for first, first + by, ... while it says so.
  template <class Visit>
  __device__ __forceinline__ void ForEachChunk(int first, int by,
                                               Visit&& visit) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k) Fetch((first + k * by) * kChunk, raw[k]);
    for (int chunk = first;;)
#pragma unroll
      for (int k = 0; k < kAhead; ++k, chunk += by) {
        if (!visit(chunk, raw[k])) return;
        Fetch((chunk + kAhead * by) * kChunk, raw[k]);
      }
  }
  __device__ __forceinline__ void Sum(int token, const T (&raw_steps)[2]) {
    a = SumSteps(raw_steps, bias, rate, dt_min, exists, token, seqlen, lane,
                 step);
    total = __shfl_sync(~0u, a.y, 31);
  }
  // `suffix` is the exponent by which what the chunk adds decays later on.
  __device__ __forceinline__ void FillWeights(float suffix, HopperDecays& out) {
    const float after = total + suffix;
    *reinterpret_cast<float2*>(&out.weight[2 * lane]) = {
        step[0] * Exp2Fast(after - a.x), step[1] * Exp2Fast(after - a.y)};
  }
  __device__ __forceinline__ void FillOthers(HopperDecays& out) {
    const float end = __shfl_sync(~0u, a.y, lane | 7);
    *reinterpret_cast<float2*>(&out.a[2 * lane]) = a;
    *reinterpret_cast<float2*>(&out.step[2 * lane]) = {step[0], step[1]};
    *reinterpret_cast<float2*>(&out.factor[2 * lane]) = {
        step[0] * Exp2Fast(end - a.x), step[1] * Exp2Fast(end - a.y)};
    *reinterpret_cast<float2*>(&out.before[2 * lane]) = {Exp2Fast(a.x),
                                                         Exp2Fast(a.y)};
    if (lane == 0) out.whole = Exp2Fast(total);
  }
};

// x^T of a chunk, a warpgroup's rows, as left operands, 16 tokens each: `rows`
// are the lane's.
__device__ __forceinline__ void LoadChunkX(uint32_t rows,
                                           uint32_t (&x)[kChunk / 16][4]) {
#pragma unroll
  for (int j = 0; j < kChunk / 16; ++j)
    LoadMatricesTransposed(x[j], Shifted(rows, 16 * j, 0, 128));
}
__device__ __forceinline__ void LoadChunkX(uint32_t tile, int lane, int warp,
                                           uint32_t (&x)[kChunk / 16][4]) {
  LoadChunkX(Across(tile, Opaque(lane), warp % 4 * 2, 128), x);
}

template <class T>
__device__ __forceinline__ void ScaleX(const float* weights, int t,
                                       const uint32_t (&x)[kChunk / 16][4],
                                       uint32_t (&scaled)[kChunk / 16][4]) {
#pragma unroll
  for (int j = 0; j < kChunk / 16; ++j)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float2 w = *reinterpret_cast<const float2*>(
          &weights[16 * j + 8 * (r / 2) + 2 * t]);
      const float2 v = UnpackPair<T>(x[j][r]);
      scaled[j][r] = PackPair<T>(v.x * w.x, v.y * w.y);
    }
}

// Where the warpgroup's state lies between these kernels: four neighbours in a
// thread's registers side by side, (d_state / 8, 128 threads, 4), which whole
// lines are read and written of. `index` is that of its head.
template <class Tile, class T>
__device__ __forceinline__ float4* HeldState(const Params<T>& p, int64_t index,
                                             const HopperPlace<Tile>& place) {
  return reinterpret_cast<float4*>(p.states + index * p.state_size() +
                                   place.row * Tile::kN) +
         threadIdx.x % 128;
}

// visit(pair, offset) for each two neighbours of the warpgroup's state that
// exist; offset within a (head_dim, d_state) matrix.
template <class Tile, class Visit>
__device__ __forceinline__ void ForEachHopperPair(
    const HopperPlace<Tile>& place, int d_state,
    float (&state)[Tile::kN / 8][4], Visit&& visit) {
  const int g = place.lane / 4, t = place.lane % 4;
  const int row = place.row + place.warp % 4 * 16 + g;
#pragma unroll
  for (int n = 0; n < Tile::kN / 8; ++n) {
    if (8 * n >= d_state) continue;
#pragma unroll
    for (int below = 0; below < 2; ++below)
      visit(state[n][2 * below], state[n][2 * below + 1],
            (row + 8 * below) * d_state + 8 * n + 2 * t);
  }
}

template <class Tile>
__device__ __forceinline__ void AddHeldState(const float4* from, float weight,
                                             float (&state)[Tile::kN / 8][4]) {
#pragma unroll
  for (int n = 0; n < Tile::kN / 8; ++n) {
    const float4 v = from[128 * n];
    state[n][0] = fmaf(weight, v.x, state[n][0]);
    state[n][1] = fmaf(weight, v.y, state[n][1]);
    state[n][2] = fmaf(weight, v.z, state[n][2]);
    state[n][3] = fmaf(weight, v.w, state[n][3]);
  }
}

// Adds weight * (head_dim, d_state) at `from`.
template <class Tile>
__device__ __forceinline__ void AddState(const HopperPlace<Tile>& place,
                                         int d_state, const float* from,
                                         float weight,
                                         float (&state)[Tile::kN / 8][4]) {
  ForEachHopperPair<Tile>(
      place, d_state, state, [&](float& v0, float& v1, int offset) {
        const float2 v = *reinterpret_cast<const float2*>(from + offset);
        v0 = fmaf(weight, v.x, v0);
        v1 = fmaf(weight, v.y, v1);
      });
}

#endif  // SEQMARK_SM90A

}  // namespace seqmark::ssd
