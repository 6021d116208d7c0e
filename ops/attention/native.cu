// SPDX-License-Identifier: Apache-2.0
//
// What cuDNN's attention has no mask or shape for: a window with sinks, and
// values of another width than keys. FlashAttention-2 (Dao 2023,
// arXiv:2307.08691): a block takes 64 queries of a head, 16 a warp, and walks
// over tiles of 64 keys, those of sinks, then those of the windows; no others
// are read. Scores and weights stay in registers. The matrix units are fed by
// mma.sync, at up to half of a Hopper's rate; of a window there is little to do
// next to the layer's projections.
#include <algorithm>
#include <cmath>

#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/attention/attention.h"
#include "ops/mma.cuh"

namespace seqmark {
namespace {

constexpr int kWarps = 4;
constexpr int kTile = 64;  // queries of a block, and keys of a tile

// Strides are in elements.
struct FlashCall {
  const void* q;
  const void* k;
  const void* v;
  void* o;
  int64_t q_batch, q_row, k_batch, k_row, v_batch, v_row, o_batch, o_row;
  int heads, group;
  int head_dim, value_dim;
  int seqlen, past, reach, sink;
  float scale;  // log2(e) / sqrt(head_dim)
};

// Rows [first, first + kTile) to shared memory, swizzled; beyond `rows` and
// the columns there are: zeros.
template <class T, int kDim>
__device__ __forceinline__ void CopyTile(uint32_t to, const T* from,
                                         int64_t stride, int first, int rows,
                                         int dim) {
  constexpr int kColumns = kDim * sizeof(T) / 16;
  constexpr int kPack = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < kTile * kColumns / (kWarps * 32); ++i) {
    const int at = i * kWarps * 32 + threadIdx.x;
    const int row = at / kColumns, column = at % kColumns;
    CopyAsync16(to + Swizzled(row, column, kDim * sizeof(T)),
                from + (first + row) * stride + column * kPack,
                first + row < rows && column * kPack < dim);
  }
}

template <class T, int kDim, int kValueDim>
struct FlashShared {
  static constexpr int kKeyBytes = kTile * kDim * sizeof(T);
  static constexpr int kStageBytes = kKeyBytes + kTile * kValueDim * sizeof(T);
  static constexpr int kBytes = kKeyBytes + 2 * kStageBytes;  // queries first
};

template <class T, int kDim, int kValueDim>
__global__ void __launch_bounds__(kWarps * 32)
    FlashAttention(const __grid_constant__ FlashCall c) {
  using Shared = FlashShared<T, kDim, kValueDim>;
  constexpr int kRow = kDim * sizeof(T), kValueRow = kValueDim * sizeof(T);
  extern __shared__ __align__(256) unsigned char shared[];
  const uint32_t queries = SharedAddress(shared);
  const uint32_t stages = queries + Shared::kKeyBytes;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  // Neighbouring blocks share keys. The last queries see the most: they go
  // first.
  const int head = static_cast<int>(blockIdx.x % c.heads);
  const int blocks = (c.seqlen + kTile - 1) / kTile;
  const int block = static_cast<int>(blockIdx.x / c.heads % blocks);
  const int64_t batch = blockIdx.x / c.heads / blocks;
  const int first = (blocks - 1 - block) * kTile;  // query
  const int kv_head = head / c.group;
  const T* const k =
      static_cast<const T*>(c.k) + batch * c.k_batch + kv_head * c.head_dim;
  const T* const v =
      static_cast<const T*>(c.v) + batch * c.v_batch + kv_head * c.value_dim;

  // Tiles [0, sink_tiles), then [window_tile, end_tile).
  const int keys = c.past + c.seqlen;
  const int last = min(c.past + first + kTile, keys);  // key, and one more
  const int end_tile = (last + kTile - 1) / kTile;
  const int window_tile = max(0, c.past + first + 1 - c.reach) / kTile;
  const int sink_tiles = min((c.sink + kTile - 1) / kTile, window_tile);
  const int tiles = sink_tiles + end_tile - window_tile;
  const auto key_of = [&](int i) {
    return (i < sink_tiles ? i : i - sink_tiles + window_tile) * kTile;
  };
  const auto ask = [&](int i) {
    if (i < tiles) {
      const uint32_t to = stages + i % 2 * Shared::kStageBytes;
      CopyTile<T, kDim>(to, k, c.k_row, key_of(i), keys, c.head_dim);
      CopyTile<T, kValueDim>(to + Shared::kKeyBytes, v, c.v_row, key_of(i),
                             keys, c.value_dim);
    }
    CommitCopies();
  };

  CopyTile<T, kDim>(queries,
                    static_cast<const T*>(c.q) + batch * c.q_batch +
                        static_cast<int64_t>(head) * c.head_dim,
                    c.q_row, first, c.seqlen, c.head_dim);
  CommitCopies();
  ask(0);
  WaitCopies<1>();
  __syncthreads();
  uint32_t q[kDim / 16][4];
  const uint32_t q_at = Down(queries + warp * 16 * kRow, lane, 0, kRow);
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step)
    LoadMatrices(q[step], Shifted(q_at, 0, step * 2, kRow));

  // Of rows lane / 4 and 8 more: positions, what weights are relative to
  // (finite, so that a tile of which a row sees nothing adds nothing), and the
  // sums over this lane's keys.
  const int position = c.past + first + warp * 16 + lane / 4;
  float greatest[2] = {-1e30f, -1e30f}, sum[2] = {};
  float o[kValueDim / 8][4] = {};
  for (int i = 0; i < tiles; ++i) {
    ask(i + 1);
    WaitCopies<1>();
    __syncthreads();
    const uint32_t stage = stages + i % 2 * Shared::kStageBytes;
    const int key = key_of(i);

    float s[kTile / 8][4] = {};
    const uint32_t k_at = Across(stage, lane, 0, kRow);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step)
#pragma unroll
      for (int n = 0; n < kTile / 16; ++n) {
        uint32_t b[4];
        LoadMatrices(b, Shifted(k_at, n * 16, step * 2, kRow));
        Mma<T>(s[2 * n], q[step], b[0], b[1]);
        Mma<T>(s[2 * n + 1], q[step], b[2], b[3]);
      }

    // Whether every row of the warp sees the whole tile.
    const int top = c.past + first + warp * 16;
    const bool whole = key + kTile - 1 <= top &&
                       (key > top + 15 - c.reach || key + kTile <= c.sink);
    if (!whole) {
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int at = key + n * 8 + lane % 4 * 2 + e % 2;
          const int row = position + e / 2 * 8;
          if (at > row || (at <= row - c.reach && at >= c.sink))
            s[n][e] = -INFINITY;
        }
    }

    // Weights may be up to 2^8 above 1: only a greatest that grows by more
    // takes the shuffles and rescales (as in FlashAttention-4).
    float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) most[e / 2] = fmaxf(most[e / 2], s[n][e]);
    const bool grew = most[0] * c.scale > greatest[0] + 8.0f ||
                      most[1] * c.scale > greatest[1] + 8.0f;
    if (__any_sync(0xffffffffu, grew)) {
      float factor[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 1));
        most[r] = fmaxf(most[r], __shfl_xor_sync(0xffffffffu, most[r], 2));
        most[r] = fmaxf(greatest[r], most[r] * c.scale);
        factor[r] = Exp2Fast(greatest[r] - most[r]);
        greatest[r] = most[r];
        sum[r] *= factor[r];
      }
#pragma unroll
      for (int n = 0; n < kValueDim / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[n][e] *= factor[e / 2];
    }
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[n][e] = Exp2Fast(fmaf(s[n][e], c.scale, -greatest[e / 2]));
        sum[e / 2] += s[n][e];
      }

    const uint32_t v_at = Down(stage + Shared::kKeyBytes, lane, 0, kValueRow);
#pragma unroll
    for (int step = 0; step < kTile / 16; ++step) {
      const float(&low)[4] = s[2 * step];
      const float(&high)[4] = s[2 * step + 1];
      const uint32_t p[4] = {
          PackPair<T>(low[0], low[1]), PackPair<T>(low[2], low[3]),
          PackPair<T>(high[0], high[1]), PackPair<T>(high[2], high[3])};
#pragma unroll
      for (int n = 0; n < kValueDim / 16; ++n) {
        uint32_t b[4];
        LoadMatricesTransposed(b, Shifted(v_at, step * 16, n * 2, kValueRow));
        Mma<T>(o[2 * n], p, b[0], b[1]);
        Mma<T>(o[2 * n + 1], p, b[2], b[3]);
      }
    }
    __syncthreads();  // the stage is free
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
    sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
    const int row = position - c.past + r * 8;
    if (row >= c.seqlen) continue;
    T* const to = static_cast<T*>(c.o) + batch * c.o_batch + row * c.o_row +
                  head * c.value_dim;
    const float normalise = 1.0f / sum[r];
#pragma unroll
    for (int n = 0; n < kValueDim / 8; ++n) {
      const int column = n * 8 + lane % 4 * 2;
      if (column < c.value_dim)
        *reinterpret_cast<uint32_t*>(to + column) =
            PackPair<T>(o[n][r * 2] * normalise, o[n][r * 2 + 1] * normalise);
    }
  }
}

struct Kernel {
  void (*run)(FlashCall);
  int shared;
};
template <class T, int kDim, int kValueDim>
Kernel MakeKernel() {
  return {FlashAttention<T, kDim, kValueDim>,
          FlashShared<T, kDim, kValueDim>::kBytes};
}
// Head dimensions are padded, in shared memory alone.
template <class T>
Kernel ChooseKernel(const Attention::Problem& p) {
  if (p.head_dim <= 64)
    return p.value_dim() <= 64 ? MakeKernel<T, 64, 64>()
                               : MakeKernel<T, 64, 128>();
  return p.value_dim() <= 64 ? MakeKernel<T, 128, 64>()
                             : MakeKernel<T, 128, 128>();
}

absl::StatusOr<Launch> PlanKernel(const Kernel& kernel,
                                  const Attention::Problem& p,
                                  const Attention::Args& a) {
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel.run, cudaFuncAttributeMaxDynamicSharedMemorySize, kernel.shared));
  const FlashCall call = {
      .q = a.q.data,
      .k = a.k.data,
      .v = a.v.data,
      .o = a.o.data,
      .q_batch = a.q.strides[0],
      .q_row = a.q.strides[1],
      .k_batch = a.k.strides[0],
      .k_row = a.k.strides[1],
      .v_batch = a.v.strides[0],
      .v_row = a.v.strides[1],
      .o_batch = a.o.strides[0],
      .o_row = a.o.strides[1],
      .heads = static_cast<int>(p.heads),
      .group = static_cast<int>(p.heads / p.kv_heads),
      .head_dim = static_cast<int>(p.head_dim),
      .value_dim = static_cast<int>(p.value_dim()),
      .seqlen = static_cast<int>(p.seqlen),
      .past = static_cast<int>(p.past),
      .reach = static_cast<int>(p.reach()),
      .sink = static_cast<int>(std::min(p.sink, p.keys())),
      .scale = static_cast<float>(M_LOG2E / std::sqrt(p.head_dim))};
  const auto grid = static_cast<unsigned>(p.batch * p.heads *
                                          ((p.seqlen + kTile - 1) / kTile));
  return [=](Stream stream) {
    kernel.run<<<grid, kWarps * 32, kernel.shared, AsCudaStream(stream)>>>(
        call);
    return LaunchStatus("attention");
  };
}

absl::StatusOr<Launch> Plan(const Attention::Problem& p,
                            const Attention::Args& a, Device&) {
  for (const Tensor* t : {&a.q, &a.k, &a.v, &a.o})
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0 ||
        t->strides[0] % 8 != 0 || t->strides[1] % 8 != 0 || t->dims[3] % 8 != 0)
      return absl::UnimplementedError(
          "rows must start on multiples of 16 bytes");
  if (p.head_dim > 128 || p.value_dim() > 128)
    return absl::UnimplementedError("head_dim must be at most 128");
  return PlanKernel(p.dtype == DType::kBF16 ? ChooseKernel<__nv_bfloat16>(p)
                                            : ChooseKernel<__half>(p),
                    p, a);
}

// All else cuDNN does, and faster.
bool Supports(const Attention::Problem& p) {
  return (p.sink > 0 && p.span() < p.keys()) || p.value_dim() != p.head_dim;
}

const bool registered =
    AddProvider<Attention>({.name = "native",
                            .device = DeviceKind::kCuda,
                            .dtypes = {DType::kBF16, DType::kF16},
                            .plan = Plan,
                            .supports = Supports});

}  // namespace
}  // namespace seqmark
