// SPDX-License-Identifier: Apache-2.0
//
// The f32 kernel: the recurrence as written, token by token, in f32 FMAs.
// Matrix units round f32 operands to tf32, and a chunk's cumulative sums would
// cost the decays several bits; this keeps all of f32 instead. It also serves
// 16-bit problems of a shape or alignment that no matrix kernel takes: any
// head_dim, any d_state up to 256, any strides. A warp owns 4 rows p and all of
// d_state (lane n, n + 32, ...), so what limits it is instruction issue, 3 FMAs
// a state element.
#pragma once

#include "ops/ssd_scan/chunk.cuh"

namespace seqmark::ssd {

inline constexpr int kRecurrenceWarps = 4;
inline constexpr int kRecurrenceRows = 4 * kRecurrenceWarps;  // a CTA's
inline constexpr int kRecurrenceTokens = 16;                  // a tile's

template <int kColumns>  // of 32 lanes each: d_state <= 32 * kColumns
struct RecurrenceSharedMemory {
  struct Stage {
    float B[kRecurrenceTokens][32 * kColumns];
    float C[kRecurrenceTokens][32 * kColumns];
    float x[kRecurrenceTokens][kRecurrenceRows];
  } stages[2];
  float y[kRecurrenceTokens][kRecurrenceRows];
};

// To a float in shared memory: waited for as a copy if T is float.
__device__ __forceinline__ void CopyElement(float& to, const float* from,
                                            bool valid) {
  CopyAsync4(SharedAddress(&to), from, valid);
}
template <class T>
__device__ __forceinline__ void CopyElement(float& to, const T* from,
                                            bool valid) {
  to = valid ? ToFloat(*from) : 0.0f;
}

template <class T, int kColumns>
__global__ void __launch_bounds__(32 * kRecurrenceWarps)
    Recurrence(const Params<T> p) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  auto& shared =
      *reinterpret_cast<RecurrenceSharedMemory<kColumns>*>(shared_bytes);
  constexpr int kThreads = 32 * kRecurrenceWarps;
  constexpr int kTokens = kRecurrenceTokens;
  const int slices = (p.head_dim + kRecurrenceRows - 1) / kRecurrenceRows;
  const int first_row = blockIdx.x % slices * kRecurrenceRows;
  const int head = blockIdx.x / slices % p.heads;
  const int64_t batch = blockIdx.x / slices / p.heads;
  const int64_t group = head / (p.heads / p.groups);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const T* const x = p.x + batch * p.x_strides.batch +
                     static_cast<int64_t>(head) * p.head_dim + first_row;
  const T* const dt = p.dt + batch * p.dt_strides.batch + head;
  const T* const B = p.B + batch * p.B_strides.batch + group * p.d_state;
  const T* const C = p.C + batch * p.C_strides.batch + group * p.d_state;

  const auto copy = [&](int token, int stage) {
    auto& to = shared.stages[stage];
    for (int i = threadIdx.x; i < kTokens * 32 * kColumns; i += kThreads) {
      const int l = i / (32 * kColumns), n = i % (32 * kColumns);
      const bool valid = token + l < p.seqlen && n < p.d_state;
      const int64_t at = valid ? token + l : 0;
      const int column = valid ? n : 0;
      CopyElement(to.B[l][n], B + at * p.B_strides.token + column, valid);
      CopyElement(to.C[l][n], C + at * p.C_strides.token + column, valid);
    }
    for (int i = threadIdx.x; i < kTokens * kRecurrenceRows; i += kThreads) {
      const int l = i / kRecurrenceRows, row = i % kRecurrenceRows;
      const bool valid = token + l < p.seqlen && first_row + row < p.head_dim;
      CopyElement(to.x[l][row],
                  valid ? x + (token + l) * p.x_strides.token + row : p.x,
                  valid);
    }
    CommitCopies();
  };

  // The state of the warp's rows.
  float state[4][kColumns];
  const int64_t state_base =
      ((batch * p.heads + head) * p.head_dim + first_row + 4 * warp) *
      p.d_state;
  const int rows = min(4, p.head_dim - first_row - 4 * warp);
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      const int n = lane + 32 * k;
      state[r][k] = p.initial_state != nullptr && r < rows && n < p.d_state
                        ? p.initial_state[state_base + r * p.d_state + n]
                        : 0.0f;
    }
  const float rate = p.A[head];
  const float bias = p.dt_bias != nullptr ? p.dt_bias[head] : 0.0f;
  const float skip = p.D != nullptr ? p.D[head] : 0.0f;

  copy(0, 0);
  for (int token = 0; token < p.seqlen; token += kTokens) {
    const int stage = token / kTokens % 2;
    WaitCopies<0>();
    __syncthreads();
    if (token + kTokens < p.seqlen) copy(token + kTokens, stage ^ 1);
    const auto& tile = shared.stages[stage];
    // Lane l has the step and decay of token l. A small step needs its own
    // relative accuracy, so e^-|raw| comes from the exponential itself. The
    // decay comes from expm1f, exact under fast math: over a slow head's
    // memory, thousands of tokens, a bias of it would add up.
    const float raw = ToFloat(dt[min(token + lane % kTokens, p.seqlen - 1) *
                                 p.dt_strides.token]) +
                      bias;
    const float step =
        fmaxf(fmaxf(raw, 0.0f) + log1pf(__expf(-fabsf(raw))), p.dt_min);
    const float decay = 1.0f + expm1f(step * rate);
    const int count = min(kTokens, p.seqlen - token);
#pragma unroll 4
    for (int l = 0; l < count; ++l) {
      const float step_l = __shfl_sync(~0u, step, l);
      const float decay_l = __shfl_sync(~0u, decay, l);
      const float4 v = *reinterpret_cast<const float4*>(&tile.x[l][4 * warp]);
      const float input[4] = {step_l * v.x, step_l * v.y, step_l * v.z,
                              step_l * v.w};
      float sum[4] = {};
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        const float b = tile.B[l][lane + 32 * k];
        const float c = tile.C[l][lane + 32 * k];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          state[r][k] = decay_l * state[r][k] + input[r] * b;
          sum[r] += state[r][k] * c;
        }
      }
      // Over the lanes: halves exchange rows, so 4 sums cost 6 shuffles.
      const bool upper = lane & 16, odd = lane & 8;
      float a0 = upper ? sum[2] : sum[0], a1 = upper ? sum[3] : sum[1];
      a0 += __shfl_xor_sync(~0u, upper ? sum[0] : sum[2], 16);
      a1 += __shfl_xor_sync(~0u, upper ? sum[1] : sum[3], 16);
      float total = odd ? a1 : a0;
      total += __shfl_xor_sync(~0u, odd ? a0 : a1, 8);
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2)
        total += __shfl_xor_sync(~0u, total, offset);
      const int r = 2 * upper + odd;
      if (lane % 8 == 0)
        shared.y[l][4 * warp + r] = total + skip * tile.x[l][4 * warp + r];
    }
    __syncwarp();
    // The warp writes its rows of the tile.
    for (int i = lane; i < 4 * count; i += 32) {
      const int l = i / 4, r = i % 4;
      if (r >= rows) continue;
      const int64_t column =
          static_cast<int64_t>(head) * p.head_dim + first_row + 4 * warp + r;
      float v = shared.y[l][4 * warp + r];
      if (p.z != nullptr)
        v *= SiluFast(ToFloat(p.z[batch * p.z_strides.batch +
                                  (token + l) * p.z_strides.token + column]));
      p.y[batch * p.y_strides.batch + (token + l) * p.y_strides.token +
          column] = FromFloat<T>(v);
    }
    __syncwarp();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      const int n = lane + 32 * k;
      if (r < rows && n < p.d_state)
        p.final_state[state_base + r * p.d_state + n] = state[r][k];
    }
}

}  // namespace seqmark::ssd
