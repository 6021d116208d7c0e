// SPDX-License-Identifier: Apache-2.0
//
// Selective scan on NVIDIA GPUs from sm_80. What limits it: 16 exponentials a
// (token, channel) for the decays and 3 for softplus and SiLU, at 16 lanes a
// clock and multiprocessor (1.19 clocks), and instruction issue at 128 lanes a
// clock. Two kernels share the work, README.md says what each reaches:
//  - Where batch and channels fill the chip, a thread a pair of channels, in
//    order of time (sequential.cuh).
//  - Elsewhere, waves (waves.cuh): time is split among warps too, and states
//    pass from warp to warp in order, so that every exponential is computed
//    once all the same.
#include <algorithm>
#include <limits>

#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan/sequential.cuh"
#include "ops/selective_scan/waves.cuh"

namespace seqmark {
namespace {

namespace ss = selective_scan;

bool Divides(const Tensor& t, int64_t bytes) {
  const auto size = static_cast<int64_t>(SizeOf(t.dtype));
  return reinterpret_cast<uintptr_t>(t.data) % bytes == 0 &&
         t.strides[0] * size % bytes == 0 && t.strides[1] * size % bytes == 0;
}

// Whether two neighbouring channels can be read and written as one.
bool CanPair(const SelectiveScan::Problem& p, const SelectiveScan::Args& a) {
  const int64_t bytes = 2 * SizeOf(p.dtype);
  return p.d_inner % 2 == 0 && Divides(a.x, bytes) && Divides(a.dt, bytes) &&
         Divides(a.y, bytes) && (!p.has_z || Divides(a.z, bytes));
}

int64_t SequentialBlocks(const SelectiveScan::Problem& p) {
  constexpr int64_t kChannels = ss::kThreads * ss::kPair;
  return p.batch * ((p.d_inner + kChannels - 1) / kChannels);
}

// On an H200 a multiprocessor does a channel and step in 1.02 ns in waves; in
// sequence it does whole blocks of channels, in 1.28 ns where it has one block,
// in 0.85 with three, in 0.78 with ten.
bool IsSequential(const SelectiveScan::Problem& p, const SelectiveScan::Args& a,
                  int multiprocessors) {
  if (p.d_state > ss::kStates || !CanPair(p, a)) return false;
  const int64_t blocks = SequentialBlocks(p);
  const int64_t rounds = (blocks + multiprocessors - 1) / multiprocessors;
  return (0.72 + 0.56 / rounds) * rounds * ss::kThreads * ss::kPair *
             multiprocessors <
         1.02 * p.batch * p.d_inner;
}

template <class T>
ss::Params<T> MakeParams(const SelectiveScan::Problem& p,
                         const SelectiveScan::Args& a) {
  constexpr int64_t kSize = sizeof(T);
  ss::Params<T> params;
  const auto view = [](const Tensor& t) {
    return ss::View<const T>{t.as<const T>(), t.strides[0],
                             static_cast<int>(t.strides[1])};
  };
  const auto rows = [&](int index, const Tensor& t, int64_t block_stride) {
    params.rows[index] = {t.as<char>(), t.strides[0] * kSize,
                          static_cast<int>(t.strides[1] * kSize),
                          static_cast<int>(block_stride)};
  };
  constexpr int64_t kBlock = ss::kChannels * kSize;
  params.x = view(a.x);
  rows(ss::kX, a.x, kBlock);
  params.dt = view(a.dt);
  rows(ss::kDt, a.dt, kBlock);
  if (p.has_z) {
    params.z = view(a.z);
    rows(ss::kZ, a.z, kBlock);
  }
  params.B = view(a.B);
  rows(ss::kB, a.B, 0);
  params.C = view(a.C);
  rows(ss::kC, a.C, 0);
  params.y = {a.y.as<T>(), a.y.strides[0], static_cast<int>(a.y.strides[1])};
  rows(ss::kY, a.y, kBlock);
  params.A = a.A.as<float>();
  params.rows[ss::kA] = {
      a.A.as<char>(), 0, 0,
      static_cast<int>(ss::kChannels * p.d_state * sizeof(float))};
  if (p.has_d) params.D = a.D.as<float>();
  if (p.has_dt_bias) params.dt_bias = a.dt_bias.as<float>();
  if (p.has_initial_state) params.initial_state = a.initial_state.as<float>();
  params.final_state = a.final_state.as<float>();
  params.batch = static_cast<int>(p.batch);
  params.seqlen = static_cast<int>(p.seqlen);
  params.d_inner = static_cast<int>(p.d_inner);
  params.d_state = static_cast<int>(p.d_state);
  params.columns =
      (params.d_state + ss::kStates - 1) / ss::kStates * ss::kStates;
  params.channel_blocks = (params.d_inner + ss::kChannels - 1) / ss::kChannels;
  params.vector = p.d_state % ss::kStates == 0 && Divides(a.x, 16) &&
                  Divides(a.dt, 16) && (!p.has_z || Divides(a.z, 16)) &&
                  Divides(a.B, 16) && Divides(a.C, 16) && Divides(a.y, 16) &&
                  reinterpret_cast<uintptr_t>(a.A.data) % 16 == 0;
  return params;
}

// A state and a tag for each chain and column, and what is read ahead past the
// last.
int64_t Words(int64_t chains, int64_t columns) {
  return (chains * columns + 2) * ss::kChannels;
}

// How the waves are laid out on this device, found once.
struct WaveGrid {
  int warps = 0;   // of a block
  int blocks = 0;  // that run at once
};

template <class T, int kWarps>
absl::StatusOr<WaveGrid> FindGrid(int multiprocessors) {
  const auto kernel = ss::WaveKernel<T, kWarps>;
  constexpr int kBytes = sizeof(ss::BlockTiles<T, kWarps>);
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  int blocks = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, kernel, kWarps * 32, kBytes));
  if (blocks == 0) return absl::InternalError("no block of a wave fits");
  return WaveGrid{kWarps, blocks * multiprocessors};
}

// Warps of a block where shared memory is large, and where it is small.
template <class T>
inline constexpr int kManyWarps = sizeof(T) == 2 ? 16 : 12;
template <class T>
inline constexpr int kFewWarps = sizeof(T) == 2 ? 8 : 4;

template <class T>
absl::StatusOr<WaveGrid> ChooseGrid(int multiprocessors) {
  int most_bytes = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  constexpr int kMany = kManyWarps<T>, kFew = kFewWarps<T>;
  if (most_bytes >= static_cast<int>(sizeof(ss::BlockTiles<T, kMany>)))
    return FindGrid<T, kMany>(multiprocessors);
  return FindGrid<T, kFew>(multiprocessors);
}

template <class T>
absl::Status EnqueueWaves(ss::Params<T> params, const WaveGrid& grid,
                          cudaStream_t stream) {
  const int64_t chains = int64_t{params.batch} * params.channel_blocks;
  const int64_t steps = int64_t{grid.warps} * ss::kSteps;
  const int64_t columns = (params.seqlen + steps - 1) / steps;
  const auto blocks =
      static_cast<int>(std::min<int64_t>(grid.blocks, chains * columns));
  params.stride_blocks = blocks % params.channel_blocks;
  params.stride_batch = blocks / params.channel_blocks % params.batch;
  params.stride_columns = static_cast<int>(blocks / chains);
  if (columns > 1)
    SEQMARK_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(
        params.words, 0, Words(chains, params.columns) * sizeof(uint64_t),
        stream));
  const bool many = grid.warps == kManyWarps<T>;
  const void* const kernel =
      many ? reinterpret_cast<const void*>(ss::WaveKernel<T, kManyWarps<T>>)
           : reinterpret_cast<const void*>(ss::WaveKernel<T, kFewWarps<T>>);
  const size_t bytes = many ? sizeof(ss::BlockTiles<T, kManyWarps<T>>)
                            : sizeof(ss::BlockTiles<T, kFewWarps<T>>);
  void* arguments[] = {&params};
  return CudaStatus(
      cudaLaunchCooperativeKernel(kernel, dim3(blocks), dim3(grid.warps * 32),
                                  arguments, bytes, stream),
      "selective_scan WaveKernel");
}

absl::Status CheckExtents(const SelectiveScan::Problem& p,
                          const SelectiveScan::Args& a) {
  const auto fits = [&](const Tensor& t) {
    return t.strides[1] * static_cast<int64_t>(SizeOf(p.dtype)) < int64_t{1}
                                                                      << 26;
  };
  if (p.seqlen > std::numeric_limits<int>::max() - 1024 || !fits(a.x) ||
      !fits(a.dt) || !fits(a.B) || !fits(a.C) || !fits(a.y) ||
      (p.has_z && !fits(a.z)))
    return absl::UnimplementedError(
        "a sequence of 2^31 tokens, or rows 64 MiB apart");
  if (p.d_state > 256)
    return absl::UnimplementedError(
        absl::StrCat("d_state ", p.d_state, " is more than 256"));
  return absl::OkStatus();
}

absl::StatusOr<Launch> Plan(const SelectiveScan::Problem& p,
                            const SelectiveScan::Args& a, Device& device) {
  if (absl::Status s = CheckExtents(p, a); !s.ok()) return s;
  int multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  if (IsSequential(p, a, multiprocessors))
    return [=](Stream stream) {
      return DispatchCudaDType(p.dtype, [&](auto tag) {
        using T = decltype(tag);
        ss::SequentialKernel<T>
            <<<static_cast<int>(SequentialBlocks(p)), ss::kThreads, 0,
               AsCudaStream(stream)>>>(MakeParams<T>(p, a));
        return LaunchStatus("selective_scan SequentialKernel");
      });
    };
  WaveGrid grid;
  if (absl::Status s = DispatchCudaDType(
          p.dtype,
          [&](auto tag) -> absl::Status {
            auto chosen = ChooseGrid<decltype(tag)>(multiprocessors);
            if (chosen.ok()) grid = *chosen;
            return chosen.status();
          });
      !s.ok())
    return s;
  const int64_t columns =
      (p.d_state + ss::kStates - 1) / ss::kStates * ss::kStates;
  const int64_t channel_blocks =
      (p.d_inner + ss::kChannels - 1) / ss::kChannels;
  const int64_t words = Words(p.batch * channel_blocks, columns);
  auto buffer =
      device.Allocate(words * sizeof(uint64_t), MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto work = std::make_shared<Buffer>(*std::move(buffer));
  return [=](Stream stream) {
    return DispatchCudaDType(p.dtype, [&](auto tag) {
      auto params = MakeParams<decltype(tag)>(p, a);
      params.words = static_cast<uint64_t*>(work->data());
      return EnqueueWaves(params, grid, AsCudaStream(stream));
    });
  };
}

const bool registered = AddProvider<SelectiveScan>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
