// SPDX-License-Identifier: Apache-2.0
//
// The SIMD half of CPU attention: what happens to a tile of scores between
// two matrix products, and the copies into and out of the tiles' layouts.
#pragma once

#include <cstdint>

#include "fixtures/dtype.h"

namespace seqmark {

// Width of the blocks of head_dim that outputs are kept in between tiles.
inline constexpr int64_t kAttentionOutputBlock = 64;

// One block of queries against one tile of keys. A row is a (query, head)
// pair, heads fastest: row r is query `query + r / group`.
struct SoftmaxTile {
  float* scores = nullptr;  // (rows, keys); q . k; overwritten
  void* weights = nullptr;  // (rows, keys) of weights_dtype
  DType weights_dtype = DType::kF32;
  int64_t rows = 0;
  int64_t group = 1;
  int64_t keys = 0;   // a multiple of 64
  int64_t query = 0;  // position of the first row
  int64_t key = 0;    // of the first column
  int64_t reach = 0;  // keys up to its own that a query sees at most
  int64_t sink = 0;   // keys, the first ones, that it sees besides
  float scale = 1;    // log2(e) / sqrt(head_dim)
  // Carried from tile to tile.
  float* greatest =
      nullptr;            // (rows); near the scaled scores' maximum, from -inf
  float* sums = nullptr;  // (rows); of the weights, from 0
  float* outputs = nullptr;  // (blocks, rows, kAttentionOutputBlock)
  int64_t blocks = 0;
};

// weights = 2^(scale * scores - greatest) where the key is seen, else 0; sums
// and outputs are rescaled to a greatest that grew.
void AttentionSoftmax(const SoftmaxTile& tile);

// Rows of `width` elements where the tensors hold them: row r is part of token
// r / group, `stride` elements after the token before; the group's are
// contiguous.
struct TensorRows {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t width = 0;
  int64_t group = 1;
  int64_t stride = 0;
};

// Copies rows, converting, to contiguous ones padded with zeros to `width`.
void AttentionLoad(const TensorRows& from, DType to_dtype, void* to,
                   int64_t width);

// Copies outputs / sums of the first rows.
void AttentionStore(const SoftmaxTile& from, const TensorRows& to);

}  // namespace seqmark
