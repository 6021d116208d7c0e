// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the selective scan are told.
#pragma once

#include <cstdint>

#include "fixtures/cuda.h"

namespace seqmark::selective_scan {

inline constexpr int kStates = 16;  // of a pass over a sequence

template <class T>
struct View {  // (batch, seqlen, ...), the last axis contiguous
  T* data = nullptr;
  int64_t batch_stride = 0;  // in elements, as the next
  int step_stride = 0;
  __device__ T* At(int b, int l) const {
    return data + b * batch_stride + int64_t{l} * step_stride;
  }
};

// The tensors that a tile is of, in the order of Params::rows.
enum TensorIndex : int { kX, kDt, kZ, kB, kC, kY, kA, kTensors };

// A tensor's memory as tiles see it.
struct Rows {
  char* data = nullptr;
  int64_t batch_stride = 0;  // in bytes, as the rest
  int step_stride = 0;
  int block_stride = 0;  // from a block of channels to the next
};

template <class T>
struct Params {
  View<const T> x, dt, z, B, C;  // z.data is null where there is none
  View<T> y;
  const float* A = nullptr;              // (d_inner, d_state)
  const float* D = nullptr;              // (d_inner) or null
  const float* dt_bias = nullptr;        // (d_inner) or null
  const float* initial_state = nullptr;  // (batch, d_inner, d_state) or null
  float* final_state = nullptr;          // (batch, d_inner, d_state)
  Rows rows[kTensors];                   // of all of those with a TensorIndex
  // (chains, columns, kChannels): state and tile of the block before.
  uint64_t* words = nullptr;
  int batch = 1, seqlen = 1, d_inner = 1, d_state = 1;
  int columns = kStates;  // d_state rounded up to whole passes
  int channel_blocks = 1;
  // A grid's worth of tiles, as so many of each.
  int stride_columns = 0, stride_batch = 0, stride_blocks = 0;
  // Whether rows are whole aligned 16-byte vectors.
  bool vector = false;
};

}  // namespace seqmark::selective_scan
