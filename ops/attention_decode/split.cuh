// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of attention_decode share. A block takes one piece of the
// keys of one sequence and key head, for all query heads of the group (up to a
// tile of them); its warps take tiles of 16 keys in turn, each from a ring of
// its own in shared memory that it fills with asynchronous copies, so that no
// warp waits for another before the end. What comes of a piece is not
// normalised: with it go the exponent it is relative to and its sum.
#pragma once

#include <cstdint>

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "ops/mma.cuh"

namespace seqmark::decode {

inline constexpr int kTileKeys = 16;
inline constexpr int kMaxWarps = 4;

// Strides are in elements. Tiles are those of sinks, then those of the others.
struct Call {
  const void* q;
  const void* k;
  const void* v;
  void* o;
  int64_t q_batch, k_batch, k_row, v_batch, v_row, o_batch;
  int kv_heads, group;
  int head_dim, value_dim;
  int sinks, sink_tiles;
  int64_t first_key;  // of the others
  int keys, tiles;    // theirs; of all
  int head_tiles;     // blocks that share a group
  int splits;         // pieces of the keys
  float scale;        // log2(e) / sqrt(head_dim)
  float* outputs;     // (batch, heads, splits, value_dim)
  float2* sums;       // (batch, heads, splits): exponent, sum of weights
};

__device__ __forceinline__ int64_t FirstKey(const Call& c, int tile) {
  return tile < c.sink_tiles ? tile * kTileKeys
                             : c.first_key + (tile - c.sink_tiles) * kTileKeys;
}
// Keys from the tile's first on; a tile may have fewer than it has room for.
__device__ __forceinline__ int KeysLeft(const Call& c, int tile) {
  return tile < c.sink_tiles ? c.sinks - tile * kTileKeys
                             : c.keys - (tile - c.sink_tiles) * kTileKeys;
}

// A warp's ring. Rows are padded to an odd number of 16-byte columns: the same
// column of eight rows lies in eight different banks.
template <class T, int kDim>
struct Ring {
  static constexpr int kColumns = kDim * sizeof(T) / 16;
  static constexpr int kRowBytes = (kColumns + 1) * 16;
  static constexpr int kValues = kTileKeys * kRowBytes;  // follow the keys
  static constexpr int kStageBytes = 2 * kValues;
  // Two blocks of four warps fill a Hopper SM: up to 160 KB on their way.
  static constexpr int kStages =
      28160 / kStageBytes > 3 ? 28160 / kStageBytes : 3;
  static constexpr int kBytes = kStages * kStageBytes;
  static_assert(kColumns % 2 == 0);
};

// The part of a call that is this block's.
template <int kHeads>
struct Piece {
  int batch, kv_head, split;
  int first_head;  // in the group
  int heads;
  int first_tile, end_tile;

  __device__ explicit Piece(const Call& c) {
    // Neighbours read neighbouring bytes: key heads of the same keys.
    int i = blockIdx.x;
    kv_head = i % c.kv_heads;
    i /= c.kv_heads;
    first_head = i % c.head_tiles * kHeads;
    i /= c.head_tiles;
    split = i % c.splits;
    batch = i / c.splits;
    heads = min(kHeads, c.group - first_head);
    const int64_t tiles = c.tiles;
    first_tile = static_cast<int>(split * tiles / c.splits);
    end_tile = static_cast<int>((split + 1) * tiles / c.splits);
  }
  // Of (batch, heads).
  __device__ int64_t Row(const Call& c, int head) const {
    return (static_cast<int64_t>(batch) * c.kv_heads + kv_head) * c.group +
           first_head + head;
  }
};

// A warp's way through its tiles: each call of Next waits for a tile, asks for
// the one that takes the place of the tile before, and returns its address.
template <class T, int kDim>
class TileStream {
 public:
  using R = Ring<T, kDim>;

  template <class P>
  __device__ TileStream(const Call& c, const P& piece, uint32_t ring, int warp,
                        int warps)
      : c_(c),
        k_(static_cast<const T*>(c.k) + piece.batch * c.k_batch +
           static_cast<int64_t>(piece.kv_head) * c.head_dim),
        v_(static_cast<const T*>(c.v) + piece.batch * c.v_batch +
           static_cast<int64_t>(piece.kv_head) * c.value_dim),
        ring_(ring),
        ask_(piece.first_tile + warp),
        end_(piece.end_tile),
        step_(warps) {
#pragma unroll
    for (int stage = 0; stage < R::kStages - 1; ++stage) Ask(stage);
  }

  __device__ uint32_t Next() {
    WaitCopies<R::kStages - 2>();
    __syncwarp();  // all lanes' copies are there; none reads the tile before
    Ask(stage_ == 0 ? R::kStages - 1 : stage_ - 1);
    const uint32_t tile = ring_ + stage_ * R::kStageBytes;
    stage_ = stage_ + 1 == R::kStages ? 0 : stage_ + 1;
    return tile;
  }

 private:
  // Beyond the keys and the columns there are: zeros.
  __device__ void Ask(int stage) {
    if (ask_ < end_) {
      const uint32_t to = ring_ + stage * R::kStageBytes;
      const int64_t first = FirstKey(c_, ask_);
      const int keys = KeysLeft(c_, ask_);
      Copy(to, k_ + first * c_.k_row, c_.k_row, keys, c_.head_dim);
      Copy(to + R::kValues, v_ + first * c_.v_row, c_.v_row, keys,
           c_.value_dim);
      ask_ += step_;
    }
    CommitCopies();
  }
  __device__ void Copy(uint32_t to, const T* from, int64_t row_stride, int keys,
                       int dim) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kTileKeys * R::kColumns / 32; ++i) {
      const int row = (i * 32 + lane) / R::kColumns;
      const int column = (i * 32 + lane) % R::kColumns;
      CopyAsync16(to + row * R::kRowBytes + column * 16,
                  from + row * row_stride + column * kPackSize<T>,
                  row < keys && column * kPackSize<T> < dim);
    }
  }

  const Call& c_;
  const T* const k_;
  const T* const v_;
  const uint32_t ring_;
  int ask_;  // tile
  const int end_, step_;
  int stage_ = 0;
};

// What the warps leave for FinishPiece where their rings were: each (kHeads,
// kOutputRow) outputs, then, after those of all warps, (warps, kHeads) sums.
template <int kDim>
inline constexpr int kOutputRow = kDim + 4;

// Adds up the warps of a block, in their order; all threads call it.
template <class T, int kDim, int kHeads>
__device__ void FinishPiece(const Call& c, const Piece<kHeads>& piece,
                            const float* outputs) {
  const int warps = blockDim.x / 32;
  const auto* const sums = reinterpret_cast<const float2*>(
      outputs + warps * kHeads * kOutputRow<kDim>);
  __syncthreads();
  for (int i = threadIdx.x; i < piece.heads * c.value_dim; i += blockDim.x) {
    const int head = i / c.value_dim, column = i % c.value_dim;
    float greatest = -INFINITY;  // finite after the loop: a piece has a tile
    for (int w = 0; w < warps; ++w)
      greatest = fmaxf(greatest, sums[w * kHeads + head].x);
    float output = 0, sum = 0;
    for (int w = 0; w < warps; ++w) {
      const float2 s = sums[w * kHeads + head];
      const float factor = Exp2Fast(s.x - greatest);
      sum = fmaf(s.y, factor, sum);
      output = fmaf(outputs[(w * kHeads + head) * kOutputRow<kDim> + column],
                    factor, output);
    }
    if (c.splits == 1) {
      const int64_t at =
          piece.batch * c.o_batch +
          (static_cast<int64_t>(piece.kv_head) * c.group + piece.first_head) *
              c.value_dim +
          i;
      static_cast<T*>(c.o)[at] = FromFloat<T>(output / sum);
    } else {
      const int64_t at = piece.Row(c, head) * c.splits + piece.split;
      c.outputs[at * c.value_dim + column] = output;
      if (column == 0) c.sums[at] = make_float2(greatest, sum);
    }
  }
}

}  // namespace seqmark::decode
