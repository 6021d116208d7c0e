// SPDX-License-Identifier: Apache-2.0
//
// Chooses and launches the kernels of ops/norm/norm_kernel.cuh.
#pragma once

#include <algorithm>

#include "absl/status/statusor.h"
#include "fixtures/device.h"
#include "ops/norm/norm_kernel.cuh"

namespace seqmark {

struct NormShape {
  int packs = 0;  // of a thread; 0: the row does not fit into registers
  int threads = 0;
  int rows = 1;  // of a block
};

// How a row of `packs` 16-byte packs is divided.
inline NormShape ChooseNormShape(const NormForm& form, int64_t packs,
                                 int64_t rows, int multiprocessors) {
  constexpr int kMaxPacks = 4;
  // One sum leaves little to hide, and registers are better spent on more rows
  // at once; unless the row then fits into a warp, which needs no barrier.
  const int preferred =
      form.centered || packs <= 32 * kMaxPacks ? kMaxPacks : 2;
  const auto threads = [packs](int n) {
    return (packs + 32 * n - 1) / (32 * n) * 32;
  };
  NormShape best;
  for (int n = 1; n <= kMaxPacks; ++n) {
    if (threads(n) > kNormMaxThreads) continue;
    if (n > preferred && best.packs > 0) break;
    // Many rows fill the machine: least idle lanes, then fewest warps to add
    // up. A few rows are as fast as their longest thread: most threads.
    if (best.packs == 0 || (rows > 2 * multiprocessors &&
                            threads(n) * n <= best.threads * best.packs))
      best = {n, static_cast<int>(threads(n)), 1};
  }
  // One warp a block spreads evenly; many of them would fill its slots.
  if (best.threads == 32 && rows > 32 * multiprocessors) best.rows = 4;
  return best;
}

// Blocks for `work` blocks' worth of rows: those that run together, or so many
// fewer that all do the same number of rounds. Over many rounds of one short
// sum, a block each is better (6 % at 65,536 x 4,096 on an H200): blocks that
// start at any time keep reads and writes mixed.
template <class... P>
absl::StatusOr<int> NormGrid(void (*kernel)(P...), int threads, int64_t work,
                             int multiprocessors, bool short_sum) {
  constexpr int64_t kManyRounds = 16;
  int resident = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &resident, kernel, threads, 0));
  const int64_t together = int64_t{std::max(resident, 1)} * multiprocessors;
  const int64_t rounds = (work + together - 1) / together;
  if (short_sum && rounds > kManyRounds) return static_cast<int>(work);
  return static_cast<int>((work + rounds - 1) / rounds);
}

// kFast: false for a form that is too rare to have kernels of its own.
template <NormForm kForm, class T, bool kFast>
absl::StatusOr<Launch> PlanNormOf(const NormTensors& t) {
  int device = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const bool packed =
      t.width % kPackSize<T> == 0 &&
      std::ranges::all_of(
          std::initializer_list<const void*>{t.x, t.residual, t.gate, t.weight,
                                             t.bias, t.y, t.residual_out},
          [](const void* p) {
            return reinterpret_cast<uintptr_t>(p) % 16 == 0;
          });
  if constexpr (kFast) {
    const NormShape shape =
        ChooseNormShape(kForm, t.width / kPackSize<T>, t.rows, multiprocessors);
    if (packed && shape.packs > 0) {
      void (*const kernels[])(NormTensors) = {
          RowKernel<T, kForm, 1>, RowKernel<T, kForm, 2>,
          RowKernel<T, kForm, 3>, RowKernel<T, kForm, 4>};
      const auto kernel = kernels[shape.packs - 1];
      const auto grid =
          NormGrid(kernel, shape.threads * shape.rows,
                   (t.rows + shape.rows - 1) / shape.rows, multiprocessors,
                   /*short_sum=*/!kForm.centered);
      if (!grid.ok()) return grid.status();
      return [t, kernel, grid = *grid,
              block = dim3(shape.threads, shape.rows)](Stream stream) {
        kernel<<<grid, block, 0, AsCudaStream(stream)>>>(t);
        return LaunchStatus("norm RowKernel");
      };
    }
  }
  const auto kernel = packed ? WideKernel<T, kPackSize<T>> : WideKernel<T, 1>;
  const int accesses = packed ? t.width / kPackSize<T> : t.width;
  const int threads = std::min(1024, (accesses + 31) / 32 * 32);
  const auto grid = NormGrid(kernel, threads, t.rows, multiprocessors,
                             /*short_sum=*/false);
  if (!grid.ok()) return grid.status();
  return [t, kernel, grid = *grid, threads](Stream stream) {
    kernel<<<grid, threads, 0, AsCudaStream(stream)>>>(t, kForm);
    return LaunchStatus("norm WideKernel");
  };
}

template <NormForm kForm, bool kFast = true>
absl::StatusOr<Launch> PlanNorm(DType dtype, const NormTensors& tensors) {
  Launch launch;
  const absl::Status status = DispatchCudaDType(dtype, [&](auto tag) {
    auto planned = PlanNormOf<kForm, decltype(tag), kFast>(tensors);
    if (planned.ok()) launch = *std::move(planned);
    return planned.status();
  });
  if (!status.ok()) return status;
  return launch;
}

}  // namespace seqmark
