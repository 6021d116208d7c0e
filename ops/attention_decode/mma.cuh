// SPDX-License-Identifier: Apache-2.0
//
// A piece of the keys with matrix products, for 16-bit types. Keys and values
// are the left operand, so that eight heads are the least a product has and the
// scores of 16 keys take one register quad:
//
//   S (16 keys x 8 heads)     = K (16 x head_dim) Q^T
//   O (head_dim x 8 heads)   += V^T (head_dim x 16 keys) P (16 keys x 8 heads)
//
// A group of fewer heads wastes products, of which a Hopper SM could do three
// times as many as the memory brings keys for.
#pragma once

#include "ops/attention_decode/split.cuh"

namespace seqmark::decode {

// kEights tiles of eight heads a block.
template <class T, int kDim, int kEights>
__global__ void __launch_bounds__(32 * kMaxWarps)
    DecodeMma(const __grid_constant__ Call c) {
  using R = Ring<T, kDim>;
  constexpr int kHeads = 8 * kEights, kSteps = kDim / 16;
  static_assert(kHeads * (kOutputRow<kDim> + 2) * 4 <= R::kBytes);
  extern __shared__ __align__(16) unsigned char shared[];
  LetNextStart();
  WaitForPrevious();
  const Piece<kHeads> piece(c);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  const int row = lane / 4, pair = lane % 4 * 2;  // of a fragment
  TileStream<T, kDim> tiles(c, piece, SharedAddress(shared) + warp * R::kBytes,
                            warp, warps);

  // Q^T: of head `row`, columns pair, pair + 1 and those + 8 of each step.
  uint32_t q[kEights][kSteps][2];
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    const int head = n * 8 + row;
    const T* const from = static_cast<const T*>(c.q) + piece.batch * c.q_batch +
                          (static_cast<int64_t>(piece.kv_head) * c.group +
                           piece.first_head + head) *
                              c.head_dim;
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = step * 16 + half * 8 + pair;
        const bool there = head < piece.heads && column < c.head_dim;
        q[n][step][half] = there ? PackPair<T>(ToFloat(from[column]),
                                               ToFloat(from[column + 1]))
                                 : 0;
      }
  }

  // Of heads pair and pair + 1 of each eight: what weights are relative to,
  // and the sums over this lane's keys.
  float greatest[kEights][2], sum[kEights][2];
  float o[kEights][kSteps][4] = {};
#pragma unroll
  for (int n = 0; n < kEights; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) greatest[n][i] = -INFINITY, sum[n][i] = 0;

  const uint32_t k_at =
      (((lane >> 3) & 1) * 8 + (lane & 7)) * R::kRowBytes + (lane >> 4) * 16;
  const uint32_t v_at = R::kValues +
                        ((lane >> 4) * 8 + (lane & 7)) * R::kRowBytes +
                        ((lane >> 3) & 1) * 16;
  for (int t = piece.first_tile + warp; t < piece.end_tile; t += warps) {
    const uint32_t tile = tiles.Next();
    float s[kEights][4] = {};  // keys row, row + 8; heads pair, pair + 1
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t k[4];
      LoadMatrices(k, tile + k_at + step * 32);
#pragma unroll
      for (int n = 0; n < kEights; ++n)
        Mma<T>(s[n], k, q[n][step][0], q[n][step][1]);
    }
    const int left = KeysLeft(c, t);
    if (left < kTileKeys) {
#pragma unroll
      for (int n = 0; n < kEights; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (row + i / 2 * 8 >= left) s[n][i] = -INFINITY;
    }

    // Weights may be up to 2^8 above 1: only a greatest that grows by more
    // takes the shuffles and rescales (as in FlashAttention-4).
    bool grew = false;
#pragma unroll
    for (int n = 0; n < kEights; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        grew |= fmaxf(s[n][i], s[n][i + 2]) * c.scale > greatest[n][i] + 8.0f;
    if (__any_sync(0xffffffffu, grew)) {
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
        float factor[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float most = fmaxf(s[n][i], s[n][i + 2]);
#pragma unroll
          for (int lanes = 4; lanes < 32; lanes *= 2)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
          most = fmaxf(greatest[n][i], most * c.scale);
          factor[i] = Exp2Fast(greatest[n][i] - most);  // 0 at the first tile
          greatest[n][i] = most;
          sum[n][i] *= factor[i];
        }
#pragma unroll
        for (int step = 0; step < kSteps; ++step)
#pragma unroll
          for (int i = 0; i < 4; ++i) o[n][step][i] *= factor[i % 2];
      }
    }

    uint32_t p[kEights][2];
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[n][i] = Exp2Fast(fmaf(s[n][i], c.scale, -greatest[n][i % 2]));
        sum[n][i % 2] += s[n][i];
      }
      // From keys down, heads across to the reverse.
      p[n][0] = TransposeMatrix(PackPair<T>(s[n][0], s[n][1]));
      p[n][1] = TransposeMatrix(PackPair<T>(s[n][2], s[n][3]));
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t v[4];
      LoadMatricesTransposed(v, tile + v_at + step * 32);
#pragma unroll
      for (int n = 0; n < kEights; ++n) Mma<T>(o[n][step], v, p[n][0], p[n][1]);
    }
  }

  WaitCopies<0>();
  __syncthreads();  // the rings are free
  auto* const outputs = reinterpret_cast<float*>(shared);
  auto* const sums =
      reinterpret_cast<float2*>(outputs + warps * kHeads * kOutputRow<kDim>);
#pragma unroll
  for (int n = 0; n < kEights; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2)
        sum[n][i] += __shfl_xor_sync(0xffffffffu, sum[n][i], lanes);
      const int head = warp * kHeads + n * 8 + pair + i;
      if (row == 0) sums[head] = make_float2(greatest[n][i], sum[n][i]);
#pragma unroll
      for (int step = 0; step < kSteps; ++step)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          outputs[head * kOutputRow<kDim> + step * 16 + half * 8 + row] =
              o[n][step][half * 2 + i];
    }
  FinishPiece<T, kDim, kHeads>(c, piece, outputs);
}

}  // namespace seqmark::decode
