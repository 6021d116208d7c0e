// SPDX-License-Identifier: Apache-2.0
//
// The linear layer on NVIDIA GPUs for few rows: a decode step of up to 32
// sequences. Time is the reading of W, once, so the design is bytes in flight
// and no latency beside them:
//
//  - a block takes 8 features at a time (more where there are many rows, so
//    that x is not read more often than W), its warps share K, and it stays for
//    the tiles that follow: each register that held 16 bytes of W is filled
//    again as soon as they are used, across tiles too;
//  - the product is m16n8k16 with x's rows (padded to 16) as m and features as
//    n. The sum over k has no order, so a thread takes 8 neighbouring k by one
//    16-byte load and calls them what the fragment wants: W and x go from
//    memory to the tensor core's registers, through nothing;
//  - W is asked for before the kernel that makes x has ended
//    (fixtures/dependent_launch_cuda.h).
//
// Warps' sums are added in their order: runs are identical bit for bit.
#include <algorithm>

#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/gemm/gemm.h"
#include "ops/mma.cuh"

namespace seqmark {
namespace {

constexpr int kStep = 32;  // k of a warp's load: 8 for each of 4 lanes
constexpr int kLoads = 8;  // a thread's 16-byte loads of W in flight
constexpr int kMostRows = 32;

struct Shape {
  int rows, in_features, out_features;
  int64_t x_stride, addend_stride, y_stride;  // elements from row to row
};

// kEights: rows of x, by eights. kGroups: features of a block, by eights.
template <class T, int kEights, int kGroups, int kWarps>
__global__ void __launch_bounds__(kWarps * 32, 16 / kWarps)
    FewRowsKernel(const T* x, const T* weight, const T* bias, const T* addend,
                  T* y, Shape shape) {
  constexpr int kTiles = (kEights + 1) / 2;
  constexpr int kFeatures = 8 * kGroups;
  constexpr int kAhead = kLoads / kGroups;
  constexpr int kStride = kWarps * kStep;
  constexpr uint4 kZero = {0, 0, 0, 0};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int g = lane / 4, t = lane % 4;
  const int first_k = warp * kStep + t * 8;
  const int rounds =
      (shape.in_features + kAhead * kStride - 1) / (kAhead * kStride);
  const int tiles = (shape.out_features + kFeatures - 1) / kFeatures;

  uint4 w[kAhead][kGroups];
  const auto load_w = [&](uint4(&to)[kGroups], int tile, int k) {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const int f = tile * kFeatures + j * 8 + g;
      to[j] =
          f < shape.out_features && k < shape.in_features
              ? LoadOnce(reinterpret_cast<const uint4*>(
                    weight + static_cast<int64_t>(f) * shape.in_features + k))
              : kZero;
    }
  };
  int tile = static_cast<int>(blockIdx.x);
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load_w(w[i], tile, first_k + i * kStride);
  LetNextStart();
  WaitForPrevious();

  __shared__ float partial[2][kWarps][kTiles * 16][kFeatures];
  for (int parity = 0; tile < tiles; tile += gridDim.x, parity ^= 1) {
    float sums[kTiles][kGroups][4] = {};
    for (int round = 0; round < rounds; ++round) {
      const int round_k = first_k + round * kAhead * kStride;
      const bool last = round + 1 == rounds;
      const int next_tile = last ? tile + static_cast<int>(gridDim.x) : tile;
      const int next_k = last ? first_k : round_k + kAhead * kStride;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int k = round_k + i * kStride;
        uint4 rows[2 * kTiles];
#pragma unroll
        for (int e = 0; e < 2 * kTiles; ++e) {
          const int row = e * 8 + g;
          rows[e] = e < kEights && row < shape.rows && k < shape.in_features
                        ? *reinterpret_cast<const uint4*>(
                              x + row * shape.x_stride + k)
                        : kZero;
        }
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          const uint4 low = rows[2 * m], high = rows[2 * m + 1];
#pragma unroll
          for (int j = 0; j < kGroups; ++j) {
            Mma<T>(sums[m][j], {low.x, high.x, low.y, high.y}, w[i][j].x,
                   w[i][j].y);
            Mma<T>(sums[m][j], {low.z, high.z, low.w, high.w}, w[i][j].z,
                   w[i][j].w);
          }
        }
        load_w(w[i], next_tile, next_k + i * kStride);
      }
    }

    // sums[m][j]: rows 16 m + g and + 8, features 8 j + 2t and 2t + 1. Two
    // buffers, so that one barrier a tile is enough.
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
#pragma unroll
      for (int j = 0; j < kGroups; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          partial[parity][warp][m * 16 + g + i / 2 * 8][j * 8 + 2 * t + i % 2] =
              sums[m][j][i];
    __syncthreads();
    for (int i = threadIdx.x; i < shape.rows * kFeatures; i += kWarps * 32) {
      const int row = i / kFeatures, column = i % kFeatures;
      const int f = tile * kFeatures + column;
      if (f >= shape.out_features) continue;
      float sum = bias == nullptr ? 0.0f : ToFloat(bias[f]);
#pragma unroll
      for (int other = 0; other < kWarps; ++other)
        sum += partial[parity][other][row][column];
      if (addend != nullptr)
        sum += ToFloat(addend[row * shape.addend_stride + f]);
      y[row * shape.y_stride + f] = FromFloat<T>(sum);
    }
  }
}

template <class T, int kEights, int kGroups>
Launch PlanGroups(const Shape& shape, const Gemm::Args& a,
                  int multiprocessors) {
  // Warps sharing K: as many as leave every block work and none without.
  const int tiles = (shape.out_features + 8 * kGroups - 1) / (8 * kGroups);
  const int steps = (shape.in_features + kStep - 1) / kStep;
  const int wanted =
      std::min(16 * multiprocessors / tiles + 1, (steps + 1) / 2);
  const auto launch = [=](auto* kernel, int warps) -> Launch {
    const int blocks = std::min(tiles, multiprocessors * 16 / warps);
    return [=](Stream stream) {
      return LaunchDependent(kernel, dim3(blocks), dim3(warps * 32), 0,
                             AsCudaStream(stream), "FewRowsKernel", a.x.as<T>(),
                             a.weight.as<T>(), a.bias.as<T>(), a.addend.as<T>(),
                             a.y.as<T>(), shape);
    };
  };
  if constexpr (kEights * kGroups < 16)  // of more, the sums fill the block
    if (wanted > 4) return launch(&FewRowsKernel<T, kEights, kGroups, 8>, 8);
  return launch(&FewRowsKernel<T, kEights, kGroups, 4>, 4);
}

template <class T, int kEights>
Launch PlanRows(const Shape& shape, const Gemm::Args& a, int multiprocessors) {
  // With many rows, wide tiles where there are enough of them.
  const bool many = shape.out_features >= 32 * 2 * multiprocessors;
  if (kEights > 1 && many)
    return PlanGroups<T, kEights, 4>(shape, a, multiprocessors);
  if (kEights > 2 || many)
    return PlanGroups<T, kEights, 2>(shape, a, multiprocessors);
  return PlanGroups<T, kEights, 1>(shape, a, multiprocessors);
}

bool Supports(const Gemm::Problem& p) {
  return p.rows() <= kMostRows && p.in_features % 8 == 0 &&
         p.dtype != DType::kF32;
}

absl::StatusOr<Launch> Plan(const Gemm::Problem& p, const Gemm::Args& a,
                            Device&) {
  if (!Supports(p))
    return absl::UnimplementedError(
        "the kernel for few rows takes up to 32 rows of 16-bit elements, "
        "in_features a multiple of 8");
  const auto x_stride = Gemm::RowStride(a.x), y_stride = Gemm::RowStride(a.y);
  if (!x_stride.ok()) return x_stride.status();
  if (!y_stride.ok()) return y_stride.status();
  const auto addend_stride = a.addend ? Gemm::RowStride(a.addend) : y_stride;
  if (!addend_stride.ok()) return addend_stride.status();
  const auto aligned = [](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
  };
  if (*x_stride % 8 != 0 || !aligned(a.x.data) || !aligned(a.weight.data))
    return absl::UnimplementedError(
        "the kernel for few rows needs rows of x and W on 16-byte boundaries");
  const Shape shape = {.rows = static_cast<int>(p.rows()),
                       .in_features = static_cast<int>(p.in_features),
                       .out_features = static_cast<int>(p.out_features),
                       .x_stride = *x_stride,
                       .addend_stride = *addend_stride,
                       .y_stride = *y_stride};
  int id = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&id));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, id));
  const auto plan = [&](auto type) {
    using T = decltype(type);
    if (shape.rows <= 8) return PlanRows<T, 1>(shape, a, multiprocessors);
    if (shape.rows <= 16) return PlanRows<T, 2>(shape, a, multiprocessors);
    return PlanRows<T, 4>(shape, a, multiprocessors);
  };
  return p.dtype == DType::kBF16 ? plan(__nv_bfloat16()) : plan(__half());
}

const bool registered =
    AddProvider<Gemm>({.name = "native",
                       .device = DeviceKind::kCuda,
                       .dtypes = {DType::kBF16, DType::kF16},
                       .plan = Plan,
                       .overlaps = true,
                       .supports = Supports});

}  // namespace
}  // namespace seqmark
