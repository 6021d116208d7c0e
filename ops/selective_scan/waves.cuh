// SPDX-License-Identifier: Apache-2.0
//
// Selective scan in waves, where batch and channels alone do not fill the chip.
//
// A warp owns 32 channels, one a lane, over 16 steps; a block kWarps times as
// many steps. The decays and inputs of one state are computed for all 16 steps
// at once, then the state comes from the warp that has the steps before, runs
// through its 16 multiply-adds and goes on to the next warp, while this one
// does the next state. So as many warps work on a channel as it has states, no
// exponential is computed twice, and results are those of one sequential scan,
// bit for bit the same however the work is laid out.
//
// Tiles are numbered with time outermost and dealt out to blocks in that order;
// a block does its own in order, and a grid is at most what runs at once (a
// cooperative launch), so the lowest tile that is not done can always go on.
#pragma once

#include <type_traits>

#include "ops/selective_scan/wave_tiles.cuh"

namespace seqmark::selective_scan {

// One pass over a tile: states n0 .. n0 + kStates - 1.
template <Role kRole, class T, int kWarps>
__device__ __forceinline__ void ScanStates(
    const Params<T>& p, BlockTiles<T, kWarps>& block, int w, int lane, int n0,
    uint32_t parity, const Place& at, uint64_t (&ahead)[2],
    const float (&step)[kSteps], const float (&u)[kSteps], float (&y)[kSteps]) {
  WarpTile<T>& s = block.warp[w];
  uint32_t full = SharedAddress(&block.links.full[w][0]);
  uint32_t carries = SharedAddress(&block.links.carry[w][0][lane]);
  const float* b_at = &s.B[0][0];
  const float* rate_at = &s.A[lane][0];
  const int last = min(p.d_state - n0, kStates) - 1;
  const int column = at.column;
  uint64_t* word = Words(p, at.b, at.block, lane) + int64_t{n0} * kChannels;
  const int channel = at.channel() + lane;
  const bool active = channel < p.d_inner;
  const int64_t row = (int64_t{at.b} * p.d_inner + channel) * p.d_state + n0;
  float a[kSteps], h[kSteps];
  // The part of a state that does not depend on the carry. It is done before
  // the one before is over, in a loop of its own shape, because the compiler
  // would move it behind the wait.
  const auto prepare = [&] {
    const float rate = *rate_at++;
#pragma unroll
    for (int t4 = 0; t4 < kSteps; t4 += 4) {
      const float4 b4 = *reinterpret_cast<const float4*>(b_at + t4);
      const float b[4] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int t = t4 + i;
        a[t] = t >= kSteps - kPolynomials ? Exp2Polynomial(step[t] * rate)
                                          : Exp2Fast(step[t] * rate);
        h[t] = u[t] * b[i];
      }
    }
    b_at += kSteps;
  };
  const auto receive = [&](int n, auto slot_tag) {
    constexpr int kSlot = decltype(slot_tag)::value;
    if (kRole == Role::kFirst) return AwaitWord(ahead[kSlot], word, column);
    if (kRole != Role::kOther || w > 0) {
      WaitAt<0>(full, parity);
      return LoadAt<0>(carries);
    }
    if (column > 0) return AwaitWord(0, word, column);
    return p.initial_state != nullptr && active ? p.initial_state[row + n]
                                                : 0.0f;
  };
  const auto finish = [&](int n, auto slot_tag) {
    constexpr int kSlot = decltype(slot_tag)::value;
    h[0] = fmaf(a[0], receive(n, slot_tag), h[0]);
    if (kRole == Role::kFirst) {
      // Only now, so that it takes no other registers than those.
      asm volatile("" : "+f"(h[0]));
      ahead[kSlot] = LoadWord(word + 2 * kChannels);
    }
#pragma unroll
    for (int t = 1; t < kSteps; ++t) h[t] = fmaf(a[t], h[t - 1], h[t]);
    const float end = h[kSteps - 1];
    if (kRole == Role::kLast) {
      StoreWord(word, end, column + 1);
    } else if (kRole == Role::kOther && at.l0 + kSteps >= p.seqlen) {
      if (active) p.final_state[row + n] = end;
    } else if (kRole == Role::kOther && w == kWarps - 1) {
      StoreWord(word, end, column + 1);
    } else {
      StoreAt<kLinkStates * 128>(carries, end);
      __syncwarp();
      ArriveAt<kLinkStates * 8>(full, ArrivesForWarp(lane));
    }
    const float* const c_at = b_at + (kStates - 1) * kSteps + kPad;
#pragma unroll
    for (int t4 = 0; t4 < kSteps; t4 += 4) {
      const float4 c = *reinterpret_cast<const float4*>(c_at + t4);
      y[t4] = fmaf(c.x, h[t4], y[t4]);
      y[t4 + 1] = fmaf(c.y, h[t4 + 1], y[t4 + 1]);
      y[t4 + 2] = fmaf(c.z, h[t4 + 2], y[t4 + 2]);
      y[t4 + 3] = fmaf(c.w, h[t4 + 3], y[t4 + 3]);
    }
    full += 8;
    carries += 128;
    word += kChannels;
  };
  constexpr std::integral_constant<int, 0> kEven;
  constexpr std::integral_constant<int, 1> kOdd;
  prepare();
  int left = last;
  if constexpr (kRole == Role::kFirst) {
#pragma unroll 1
    for (; left > 1; left -= 2) {
      finish(last - left, kEven);
      prepare();
      finish(last - left + 1, kOdd);
      prepare();
    }
    finish(last - left, kEven);
    if (left > 0) {
      prepare();
      finish(last, kOdd);
    }
  } else {
#pragma unroll 1
    for (; left > 0; --left) {
      finish(last - left, kEven);
      prepare();
    }
    finish(last, kEven);
  }
}

template <class T, int kWarps>
__global__ void __launch_bounds__(kWarps * 32, 1)
    WaveKernel(const __grid_constant__ Params<T> p) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto& block = *reinterpret_cast<BlockTiles<T, kWarps>*>(shared);
  const int w = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (threadIdx.x < kTensors) block.rows[threadIdx.x] = p.rows[threadIdx.x];
  block.links.Init();  // has a barrier
  WarpTile<T>& s = block.warp[w];
  Loader<T, kWarps> load(p, block.rows, s, w, lane);
  const bool one_pass = p.columns == kStates;
  if (p.dt_bias == nullptr) s.bias[lane] = 0.0f;
  if (p.D == nullptr) s.skip[lane] = 0.0f;
  load.First(s.place[0]);
  __syncwarp();
  if (s.place[0].length > 0) {
    load.Steps(s.place[0]);
    load.Projections(s.place[0], 0);
    load.Rates(s.place[0], 0);
    CommitCopies();
    load.Gates(s.place[0]);
    CommitCopies();
  }
  uint32_t passes = 0;
  for (int i = 0; s.place[i].length > 0; i ^= 1) {
    Place& at = s.place[i];
    Place& next = s.place[i ^ 1];
    load.Next(at, next);
    WaitCopies<1>();  // all but z
    __syncwarp();
    // The first two words from the block before, long before their use.
    uint64_t ahead[2] = {};
    if (w == 0 && at.column > 0) {
      const uint64_t* const words = Words(p, at.b, at.block, lane);
      ahead[0] = LoadWord(words);
      ahead[1] = LoadWord(words + kChannels);
    }

    // From here on in bits: u is dt' x log2(e), and B is times ln(2).
    float step[kSteps], u[kSteps], y[kSteps];
    Discretise(s, at.length, lane, step, u, y);
    Transpose(s, lane);
    __syncwarp();
    if (next.length > 0) {
      load.Steps(next);
      if (one_pass) load.Projections(next, 0);
    }
    CommitCopies();

    const bool is_last = at.l0 + kSteps >= p.seqlen;
    const Role role = is_last           ? Role::kOther
                      : w == kWarps - 1 ? Role::kLast
                      : w > 0           ? Role::kInner
                      : at.column > 0   ? Role::kFirst
                                        : Role::kOther;
    for (int n0 = 0; n0 < p.d_state; n0 += kStates) {
      if (w < kWarps - 1 && !is_last) block.links.WaitRead(w + 1, passes);
      const auto scan = [&](auto tag) {
        ScanStates<decltype(tag)::value>(p, block, w, lane, n0, passes & 1, at,
                                         ahead, step, u, y);
      };
      if (role == Role::kInner)
        scan(std::integral_constant<Role, Role::kInner>());
      else if (role == Role::kFirst)
        scan(std::integral_constant<Role, Role::kFirst>());
      else if (role == Role::kLast)
        scan(std::integral_constant<Role, Role::kLast>());
      else
        scan(std::integral_constant<Role, Role::kOther>());
      ++passes;
      __syncwarp();
      // Nobody waits for the first.
      ArriveAt<0>(SharedAddress(&block.links.read[w]),
                  w > 0 && ArrivesForWarp(lane));
      if (n0 + kStates < p.d_state) {
        load.Projections(at, n0 + kStates);
        load.Rates(at, n0 + kStates);
        CommitCopies();
        WaitCopies<0>();
        __syncwarp();
        Transpose(s, lane);
        __syncwarp();
      }
    }
    if (next.length > 0) {
      load.Rates(next, 0);
      if (!one_pass) load.Projections(next, 0);
    }
    CommitCopies();
    WaitCopies<1>();  // z is there
    __syncwarp();
    if (p.z.data != nullptr) {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
        const float z = ToFloat(s.z[t][lane]);
        y[t] *= z * Reciprocal(1.0f + Exp2Fast(-kLog2E * z));
      }
    }
#pragma unroll
    for (int t = 0; t < kSteps; ++t) s.z[t][lane] = FromFloat<T>(y[t]);
    __syncwarp();
    load.StoreOutputs(at);
    __syncwarp();
    if (next.length > 0) load.Gates(next);
    CommitCopies();
  }
}

}  // namespace seqmark::selective_scan
