// SPDX-License-Identifier: Apache-2.0
//
// Selective scan with a channel's states across lanes.
//
// A warp has 8 channels x 16 states: lane 4 c + q has states 4 q .. 4 q + 3 of
// channel c, and goes through a tile of 8 steps. Several warps take turns at
// the tiles of the same channels: each prepares all of its tile that does not
// depend on the state (loads, softplus, SiLU, decays and inputs) while others
// do theirs, so that only 8 multiply-adds a state and a hand-over through
// shared memory are done one after the other. Nothing passes between blocks and
// no exponential is computed twice; results are those of one sequential scan,
// bit for bit the same however the work is laid out.
//
// One more warp of a block keeps B and C coming, as f32, in a ring of stages
// that all its channels share.
//
// d_state is 16, d_inner whole groups of 8, rows are whole aligned 16-byte
// vectors; waves.cuh takes the rest.
#pragma once

#include "fixtures/cuda.h"
#include "ops/arrivals.cuh"
#include "ops/mma.cuh"
#include "ops/selective_scan/links.cuh"
#include "ops/selective_scan/params.cuh"
#include "ops/selective_scan/scan_math.cuh"

namespace seqmark::selective_scan {

inline constexpr int kGroup = 8;        // channels of a warp
inline constexpr int kQuad = 4;         // states of a lane, lanes of a channel
inline constexpr int kTurnSteps = 8;    // of a tile
inline constexpr int kWorkers = 15;     // warps of a block, at most
inline constexpr int kStageSteps = 32;  // of B and C at a time
inline constexpr int kStages = 4;       // of them in flight

// How a block is laid out: so many groups of channels, and warps for each.
struct LaneGrid {
  int groups = 1;
  int turns = 2;  // at least two: a warp does not hand over to itself
};

// What a warp keeps to itself.
template <class T>
struct alignas(16) TurnTile {
  T rows[3][kTurnSteps][kGroup];  // x, dt, z
  // dt' in bits and dt' x, by channel; padded, so that channels differ in bank.
  float2 inputs[kGroup][kTurnSteps + 2];
};

template <class T>
struct LaneTiles {
  // A ring of steps, in stages.
  float B[kStages * kStageSteps][kStates];  // times ln 2
  float C[kStages * kStageSteps][kStates];
  TurnTile<T> tile[kWorkers];
  float4 carry[kWorkers][32];  // the state at the start of a warp's tile
  uint64_t link[kWorkers];     // it is there
  uint64_t full[kStages];      // B and C are there
  uint64_t empty[kStages];     // and were read
};

// The warp that loads B and C. Loads are under way while it waits for room.
template <class T>
__device__ __forceinline__ void FeedStages(const Params<T>& p, LaneTiles<T>& s,
                                           int b, int lane) {
  constexpr int kParts = sizeof(T);  // of 16 bytes, in a row of 16 elements
  constexpr int kVector = kPackSize<T>;
  using Vector = Pack<T, kVector>;
  const int row = lane / kParts, column = lane % kParts * kVector;
  int slot = 0;
  uint32_t parity = 1;  // of the use before; the first has none to wait for
  for (int l0 = 0; l0 < p.seqlen; l0 += kStageSteps) {
    Vector from_b[kParts], from_c[kParts];
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int l = l0 + row + i * (32 / kParts);
      from_b[i] = from_c[i] = Vector{};
      if (l >= p.seqlen) continue;
      from_b[i] = *reinterpret_cast<const Vector*>(p.B.At(b, l) + column);
      from_c[i] = *reinterpret_cast<const Vector*>(p.C.At(b, l) + column);
    }
    if (l0 >= kStages * kStageSteps) WaitBarrier(&s.empty[slot], parity);
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int t = slot * kStageSteps + row + i * (32 / kParts);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        s.B[t][column + j] = ToFloat(from_b[i].v[j]) * kLn2;
        s.C[t][column + j] = ToFloat(from_c[i].v[j]);
      }
    }
    __syncwarp();
    ArriveAt<0>(SharedAddress(&s.full[slot]), ArrivesForWarp(lane));
    if (++slot == kStages) slot = 0, parity ^= 1;
  }
}

// A warp that takes turns at the tiles of a group of channels.
template <class T, bool kHasZ>
class TurnWarp {
 public:
  __device__ TurnWarp(const Params<T>& p, LaneTiles<T>& s, const LaneGrid& grid,
                      int b, int first_group, int warp, int lane)
      : p_(p),
        s_(s),
        tile_(s.tile[warp]),
        warp_(warp),
        lane_(lane),
        c_(lane / kQuad),
        q_(lane % kQuad),
        first_(warp % grid.turns * kTurnSteps),
        next_(first_ / kTurnSteps + 1 < grid.turns ? warp + 1
                                                   : warp + 1 - grid.turns),
        period_(grid.turns * kTurnSteps),
        seqlen_(p.seqlen),
        pair_end_(p.seqlen - 2 * q_),
        y_step_(p.y.step_stride * static_cast<int>(sizeof(T))) {
    const int group = first_group + warp / grid.turns;
    const int channel = group * kGroup + c_;
    state_row_ = (b * p.d_inner + channel) * int64_t{kStates} + q_ * kQuad;
#pragma unroll
    for (int i = 0; i < kQuad; ++i)
      rate_[i] = p.A[channel * int64_t{kStates} + q_ * kQuad + i];
    bias_ = p.dt_bias != nullptr ? p.dt_bias[channel] * kLog2E : 0.0f;
    skip_ = p.D != nullptr ? p.D[channel] : 0.0f;
    y_at_ = reinterpret_cast<char*>(p.y.At(b, first_ + 2 * q_) + channel);
    y_advance_ = int64_t{period_} * y_step_;
#pragma unroll
    for (int j = 0; j < kFetches; ++j) {
      const int part = lane + 32 * j;
      const int tensor = part / (kTurnSteps * kParts);
      const int row = part / kParts % kTurnSteps;
      const int column = part % kParts * kPackSize<T>;
      const bool real = tensor < kTensorsRead;
      const View<const T>& view = tensor == 0             ? p.x
                                  : !kHasZ || tensor == 1 ? p.dt
                                                          : p.z;
      fetch_[j].from = reinterpret_cast<const char*>(view.At(b, first_ + row) +
                                                     group * kGroup + column);
      fetch_[j].advance =
          int64_t{period_} * view.step_stride * static_cast<int>(sizeof(T));
      fetch_[j].to = SharedAddress(&tile_.rows[real ? tensor : 0][row][column]);
      fetch_[j].end = p.seqlen - row;
      fetch_[j].real = real;
    }
  }

  // All tiles of this warp's turn.
  __device__ void Run() {
    int l0 = first_;
    if (l0 >= seqlen_) return;
    if (l0 == 0) {  // the state before the first step comes as all others do
      float state[kQuad];
#pragma unroll
      for (int i = 0; i < kQuad; ++i)
        state[i] = p_.initial_state != nullptr
                       ? p_.initial_state[state_row_ + i]
                       : 0.0f;
      Send(warp_, state);
    }
    Fetch(l0);
    Prepare<true>(l0);
    // The preparation ends the loop's body: were it in front of the wait for
    // the state, the compiler would move it behind.
    while (true) {
      Scan(l0);
      Finish(l0);
      if (l0 + period_ >= seqlen_) break;
      l0 += period_;
      Prepare<false>(l0);
    }
    __syncwarp();
    Release(l0);
    if (l0 + kTurnSteps < seqlen_) return;
#pragma unroll
    for (int i = 0; i < kQuad; ++i)
      p_.final_state[state_row_ + i] = h_[kTurnSteps - 1][i];
  }

 private:
  static constexpr int kTensorsRead = kHasZ ? 3 : 2;
  static constexpr int kParts = kGroup * sizeof(T) / 16;  // of a row
  static constexpr int kFetches = (3 * kTurnSteps * kParts + 31) / 32;
  static constexpr unsigned kRing = kStages * kStageSteps;

  __device__ static unsigned Slot(unsigned l0) {
    return l0 % kRing / kStageSteps;
  }
  // This lane's states in a tile's rows of B or C.
  __device__ __forceinline__ const float4* Rows(
      const float (&ring)[kRing][kStates], unsigned l0) const {
    return reinterpret_cast<const float4*>(&ring[l0 % kRing][q_ * kQuad]);
  }

  // A tile's B and C are read.
  __device__ __forceinline__ void Release(int l0) {
    ArriveAt<0>(SharedAddress(&s_.empty[Slot(l0)]), ArrivesForWarp(lane_));
  }

  // x, dt and z of a tile; zeros past the end.
  __device__ __forceinline__ void Fetch(int l0) {
#pragma unroll
    for (int j = 0; j < kFetches; ++j) {
      CopyAsync16If(fetch_[j].real, fetch_[j].to, fetch_[j].from,
                    l0 < fetch_[j].end);
      fetch_[j].from += fetch_[j].advance;
    }
    CommitCopies();
  }

  // All that does not depend on the state, and the next tile's loads.
  template <bool kFirst>
  __device__ __forceinline__ void Prepare(int l0) {
    WaitCopies<0>();
    __syncwarp();
    if (!kFirst) Release(l0 - period_);  // all lanes are through with it, too
    const T(*const rows)[kTurnSteps][kGroup] = tile_.rows;
    float step[2], u[2], v[2], largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      v[i] = fmaf(ToFloat(rows[1][2 * q_ + i][c_]), kLog2E, bias_);
      const float e = Exp2Fast(v[i]);
      largest = fmaxf(largest, e);
      step[i] = e * Log2p1OverE(e);
    }
    // fmaxf drops NaN, which the polynomial has passed on.
    if (__any_sync(~0u, largest > 1.0f)) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (v[i] > 0.0f)
          step[i] = v[i] > 30.0f ? v[i] : __log2f(1.0f + Exp2Fast(v[i]));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Past the end a step of zero leaves the states as they are.
      if (l0 + i >= pair_end_) step[i] = 0.0f;
      const float x = ToFloat(rows[0][2 * q_ + i][c_]);
      u[i] = step[i] * x;
      y_[i] = skip_ * x;
      if constexpr (kHasZ)
        gate_[i] = SiluFast(ToFloat(rows[2][2 * q_ + i][c_]));
    }
    *reinterpret_cast<float4*>(&tile_.inputs[c_][2 * q_]) =
        make_float4(step[0], u[0], step[1], u[1]);
    __syncwarp();
    Fetch(l0 + period_);

    WaitBarrier(&s_.full[Slot(l0)], l0 / kRing & 1);
    const float4* const b_at = Rows(s_.B, l0);
#pragma unroll
    for (int t = 0; t < kTurnSteps; t += 2) {
      const float4 in = *reinterpret_cast<const float4*>(&tile_.inputs[c_][t]);
      Discretise(t, in.x, in.y, b_at[t * (kStates / 4)]);
      Discretise(t + 1, in.z, in.w, b_at[(t + 1) * (kStates / 4)]);
    }
  }

  __device__ __forceinline__ void Discretise(int t, float step, float u,
                                             float4 b) {
    const float bs[kQuad] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      a_[t][i] = Exp2Fast(step * rate_[i]);
      h_[t][i] = u * bs[i];
    }
  }

  // The state at the start of the tile that warp `to` has next.
  __device__ __forceinline__ void Send(int to, const float (&state)[kQuad]) {
    s_.carry[to][lane_] = make_float4(state[0], state[1], state[2], state[3]);
    __syncwarp();
    ArriveAt<0>(SharedAddress(&s_.link[to]), ArrivesForWarp(lane_));
  }

  // The state through the tile, from the warp before and on to the next.
  __device__ __forceinline__ void Scan(int l0) {
    WaitBarrier(&s_.link[warp_], parity_);
    parity_ ^= 1;
    const float4 carry = s_.carry[warp_][lane_];
    float state[kQuad] = {carry.x, carry.y, carry.z, carry.w};
#pragma unroll
    for (int t = 0; t < kTurnSteps; ++t)
#pragma unroll
      for (int i = 0; i < kQuad; ++i)
        state[i] = h_[t][i] = fmaf(a_[t][i], state[i], h_[t][i]);
    Send(next_, state);
  }

  // The outputs: a lane's four states of each step, then a sum over the four
  // lanes of a channel that leaves each with two of the steps.
  __device__ __forceinline__ void Finish(int l0) {
    const float4* const c_at = Rows(s_.C, l0);
    float sum[kTurnSteps];
#pragma unroll
    for (int t = 0; t < kTurnSteps; ++t) {
      const float4 c = c_at[t * (kStates / 4)];
      sum[t] = h_[t][0] * c.x;
      sum[t] = fmaf(h_[t][1], c.y, sum[t]);
      sum[t] = fmaf(h_[t][2], c.z, sum[t]);
      sum[t] = fmaf(h_[t][3], c.w, sum[t]);
    }
    Halve<4>(sum, q_ & 2);
    Halve<2>(sum, q_ & 1);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float y = sum[i] + y_[i];
      if constexpr (kHasZ) y *= gate_[i];
      if (l0 + i < pair_end_)
        *reinterpret_cast<T*>(y_at_ + i * y_step_) = FromFloat<T>(y);
    }
    y_at_ += y_advance_;
  }

  // Of 2 kLeft sums, adds another lane's to the half that this lane keeps.
  template <int kLeft>
  __device__ __forceinline__ static void Halve(float (&sum)[kTurnSteps],
                                               bool upper) {
#pragma unroll
    for (int i = 0; i < kLeft; ++i) {
      const float give = upper ? sum[i] : sum[i + kLeft];
      const float keep = upper ? sum[i + kLeft] : sum[i];
      sum[i] = keep + __shfl_xor_sync(~0u, give, kLeft / 2);
    }
  }

  struct Source {
    const char* from;
    int64_t advance;  // bytes from a tile to this warp's next
    uint32_t to;
    int end;  // tiles that start before it have this row
    bool real;
  };
  const Params<T>& p_;
  LaneTiles<T>& s_;
  TurnTile<T>& tile_;
  const int warp_, lane_, c_, q_, first_, next_, period_, seqlen_, pair_end_;
  const int y_step_;  // bytes
  int64_t state_row_;
  float rate_[kQuad], bias_, skip_;
  char* y_at_;
  int64_t y_advance_;
  Source fetch_[kFetches];
  uint32_t parity_ = 0;
  // Of the tile at hand: decays, inputs and then states, by step.
  float a_[kTurnSteps][kQuad], h_[kTurnSteps][kQuad];
  float y_[2], gate_[2];  // D x and silu(z) of steps 2 q and 2 q + 1
};

// A block a (batch entry, `grid.groups` groups of channels).
template <class T, bool kHasZ>
__global__ void __launch_bounds__((kWorkers + 1) * 32, 1)
    LaneKernel(const __grid_constant__ Params<T> p, const LaneGrid grid) {
  __shared__ LaneTiles<T> s;
  const int groups = p.d_inner / kGroup;
  const int blocks = (groups + grid.groups - 1) / grid.groups;
  const int b = static_cast<int>(blockIdx.x) / blocks;
  const int first = static_cast<int>(blockIdx.x) % blocks * grid.groups;
  const int live = min(grid.groups, groups - first);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    constexpr int kTiles = kStageSteps / kTurnSteps;  // of a stage
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&s.full[i], kArrivalsOfWarp);
      InitBarrier(&s.empty[i], live * kTiles * kArrivalsOfWarp);
    }
    for (int i = 0; i < kWorkers; ++i) InitBarrier(&s.link[i], kArrivalsOfWarp);
  }
  __syncthreads();
  if (warp == grid.groups * grid.turns) {
    FeedStages(p, s, b, lane);
  } else if (warp < live * grid.turns) {
    TurnWarp<T, kHasZ>(p, s, grid, b, first, warp, lane).Run();
  }
}

}  // namespace seqmark::selective_scan
