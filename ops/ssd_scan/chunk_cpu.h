// SPDX-License-Identifier: Apache-2.0
//
// The element by element work of a chunk on the CPU, around the four products
// of matrices that onednn.cc does. A block is a run of neighbouring heads of
// one group; its rows (tokens) are heads * head_dim wide in every buffer.
#pragma once

#include <cstdint>

#include "ops/ssd_scan/ssd_scan.h"

namespace seqmark::ssd {

inline constexpr int64_t kMaxChunk = 64;  // tokens

// Buffers of one thread. M is bf16 where matrix units take it, else f32.
struct ChunkBuffers {
  // Per head of the block, (heads, kMaxChunk): steps, and the cumulative sum
  // of step * A from the chunk's start as two floats, so that differences of
  // exponents keep f32's accuracy however far the sum has gone.
  float* step;
  float* sum_high;
  float* sum_low;
  float* from_start;    // (heads, kMaxChunk): the state's decay to a token
  float* to_end;        // (heads, kMaxChunk): step * decay to the chunk's end
  float* to_block_end;  // (kMaxChunk): scratch of Scores
  void* x;         // (tokens, block) M: x converted; unused if x is M already
  void* B;         // (tokens, d_state) M, likewise
  void* C;         // (tokens, d_state) M, likewise
  void* B_t;       // (d_state, tokens) M: B transposed
  void* x_scaled;  // (tokens, block) M: x * to_end
  float* cb;       // (tokens, tokens): C B^T
  void* scores;    // (heads, tokens, tokens) M: cb * decay * step, causal
  float* y_state;  // (tokens, block): C state
  float* y_token;  // (tokens, block): scores x
  float* state;    // (d_state, block)
  void* state_m;   // (d_state, block) M
  float* added;    // (d_state, block): B^T x_scaled
};

struct ChunkPlace {
  int64_t batch, group, first_head, heads;  // heads of the block
  int64_t token, tokens;
};

// Each works for the problem's dtype; `bf16` says that M is bf16.
struct ChunkMath {
  const SsdScan::Problem& p;
  const SsdScan::Args& a;
  bool bf16;
  ChunkBuffers buffers;

  // state from initial_state, and to final_state.
  void LoadState(const ChunkPlace& at) const;
  void StoreState(const ChunkPlace& at) const;
  // step, sums, x, x_scaled, B_t, and B and C where they are converted.
  void Begin(const ChunkPlace& at) const;
  void Scores(const ChunkPlace& at) const;
  // y from y_state and y_token; state from added.
  void End(const ChunkPlace& at) const;
};

}  // namespace seqmark::ssd
