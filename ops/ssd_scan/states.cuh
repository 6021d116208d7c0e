// SPDX-License-Identifier: Apache-2.0
//
// The first two kernels, used when a head's sequence is cut into segments so
// that all of a GPU works at batch 1: what each piece of a segment adds to the
// state, and the state each piece starts from.
#pragma once

#include "fixtures/dependent_launch_cuda.h"
#include "ops/ssd_scan/chunk.cuh"

namespace seqmark::ssd {

// A piece's own state at its end, from zero. Chunks are taken backwards:
// what a chunk adds is weighted by its decay to the piece's end, and once
// that weight is zero in f32 for every head of the CTA, all earlier chunks'
// are and the result is final. In most heads that is a few hundred tokens, so
// this pass costs far less than reading x again.
template <class Tile, class T = typename Tile::Element>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kCtas)
    SegmentStates(const Params<T> p) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<StateSharedMemory<Tile>*>(shared_bytes);
  const Place<Tile> place(p, p.state_count() - 1);
  const int2 piece = p.PieceChunks(place.segment);
  const int first = piece.x;
  int chunk = piece.y - 1;

  StateRegisters<Tile> state = {};
  RawSteps<Tile, T> raw;
  float suffix = 0;  // of the head whose decays this warp fills
  const auto copy = [&](int c, int stage) {
    CopyInput<Tile>(p, place, p.B, p.B_strides, c * kChunk, shared.B[stage]);
    CopyX<Tile>(p, place, c * kChunk, shared.x[stage]);
    CommitCopies();
  };
  copy(chunk, 0);
  raw.Fetch(p, place, chunk * kChunk);
  FillDecays(p, place, raw, chunk * kChunk, suffix, shared.decays[0]);

  for (int turn = 0;; ++turn, --chunk) {
    const int stage = turn % Tile::kStages;
    Decays* const decays = shared.decays[turn % 2];
    WaitCopies<0>();
    __syncthreads();
    bool last = true;
#pragma unroll
    for (int h = 0; h < Tile::kHeads; ++h)
      last = last && decays[h].after < kVanished;
    last = last || chunk == first;
    if (place.warp < Tile::kHeads) suffix = decays[place.warp].after;
    if (!last) {
      if (Tile::kStages == 2) copy(chunk - 1, (turn + 1) % 2);
      raw.Fetch(p, place, (chunk - 1) * kChunk);
    }
    const StateOperands<Tile> operands(place, shared.x[stage][place.slot],
                                       shared.B[stage]);
#pragma unroll
    for (int j = 0; j < kChunk / 16; ++j) {
      XRegisters<Tile> x;
      operands.LoadX(j, x);
      UpdateState(operands, decays[place.slot], j, x, state);
    }
    if (last) break;
    FillDecays(p, place, raw, (chunk - 1) * kChunk, suffix,
               shared.decays[(turn + 1) % 2]);
    if (Tile::kStages == 1) {
      __syncthreads();
      copy(chunk - 1, 0);
    }
  }

  const int64_t index =
      (static_cast<int64_t>(place.batch) * p.state_count() + place.segment) *
      p.heads;
  if (place.active()) {
    float* const out = p.states + (index + place.head()) * Tile::kP * p.d_state;
    ForEachStatePair(place, p.d_state, state,
                     [&](float v0, float v1, int64_t offset) {
                       *reinterpret_cast<float2*>(out + offset) = {v0, v1};
                     });
  }
  if (place.warp < place.heads && place.lane == 0)
    p.decays[index + place.first_head + place.warp] = Exp2Fast(suffix);
}

inline constexpr int kPassThreads = 256;

// Which (head_dim, d_state) the first of a head's nth four held by sm_90a is
// (HeldState); the second is right of it, the other two are eight rows below.
__device__ __forceinline__ int2 HeldPlace(int n, int d_state) {
  const int rows = n / (16 * d_state) * 64;  // of warpgroups before
  const int thread = n % 128, lane = thread % 32;
  return {rows + thread / 32 * 16 + lane / 4,
          n % (16 * d_state) / 128 * 8 + lane % 4 * 2};
}

// The nth four of a head's initial state, in the order of states.
template <class T>
__device__ __forceinline__ float4 InitialQuad(const Params<T>& p, int64_t head,
                                              int n) {
  const float* const from = p.initial_state + head * p.head_dim * p.d_state;
  if (p.held_d_state == 0) return reinterpret_cast<const float4*>(from)[n];
  const int2 at = HeldPlace(n, p.held_d_state);
  if (at.y >= p.d_state) return {0, 0, 0, 0};
  const auto pair = [&](int row) {
    return *reinterpret_cast<const float2*>(from + row * p.d_state + at.y);
  };
  const float2 above = pair(at.x), below = pair(at.x + 8);
  return {above.x, above.y, below.x, below.y};
}

// states[s] becomes the state that piece s starts from, for every s; four
// neighbours of one head's state a thread.
template <class T>
__global__ void __launch_bounds__(kPassThreads) PassStates(const Params<T> p) {
  LetNextStart();
  WaitForPrevious();
  const int head_quads = static_cast<int>(p.state_size() / 4);
  const int64_t quads = static_cast<int64_t>(p.heads) * head_quads;
  const int64_t i =
      static_cast<int64_t>(blockIdx.x) * kPassThreads + threadIdx.x;
  if (i >= quads * p.batch) return;
  const int64_t batch = i / quads, quad = i % quads;
  const int head = static_cast<int>(quad / head_quads);
  const int pieces = p.state_count() - 1;
  auto* state =
      reinterpret_cast<float4*>(p.states) + batch * (pieces + 1) * quads + quad;
  const float* decay = p.decays + batch * (pieces + 1) * p.heads + head;
  float4 running = {0, 0, 0, 0};
  if (p.initial_state != nullptr)
    running = InitialQuad(p, batch * p.heads + head,
                          static_cast<int>(quad % head_quads));
  // The loads of a batch do not wait for each other.
  constexpr int kBatch = 4;
  for (int piece = 0; piece < pieces; piece += kBatch) {
    float4 added[kBatch];
    float factor[kBatch];
    const int count = min(kBatch, pieces - piece);
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
      if (k < count) {
        added[k] = state[k * quads];
        factor[k] = decay[k * p.heads];
      }
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
      if (k < count) {
        state[k * quads] = running;
        running = {running.x * factor[k] + added[k].x,
                   running.y * factor[k] + added[k].y,
                   running.z * factor[k] + added[k].z,
                   running.w * factor[k] + added[k].w};
      }
    state += count * quads;
    decay += count * p.heads;
  }
  *state = running;
}

}  // namespace seqmark::ssd
