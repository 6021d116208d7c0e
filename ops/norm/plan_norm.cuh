// SPDX-License-Identifier: Apache-2.0
//
// Chooses and launches the kernels of ops/norm/norm_kernel.cuh.
#pragma once

#include <algorithm>

#include "absl/status/statusor.h"
#include "fixtures/device.h"
#include "ops/norm/norm.h"
#include "ops/norm/norm_kernel.cuh"

namespace seqmark {

struct NormShape {
  int packs = 0;  // of a thread; 0: the row does not fit into registers
  int threads = 0;
  int rows = 1;  // of a block
};

// How a row of `packs` packs is divided.
inline NormShape ChooseNormShape(const NormForm& form, int64_t packs,
                                 int64_t rows, int multiprocessors) {
  constexpr int kMaxPacks = 5;
  constexpr int kManyRows = 64;  // a multiprocessor
  // Many rows fill the machine: least idle lanes, then fewest warps to add up.
  // Up to there a block's own time counts, which is shorter with more threads,
  // as long as they are not too many to meet; with more to read or to add up
  // besides, four packs a thread do. Five with their gates are too many.
  const bool many = rows > kManyRows * multiprocessors;
  const bool gated = form.gate_before || form.gate_after;
  const bool more = form.residual || form.centered;
  const int wanted = many ? (gated ? 4 : kMaxPacks) : (more ? 4 : 2);
  NormShape best;
  for (int n = 1; n <= kMaxPacks; ++n) {
    const int64_t threads = (packs + 32 * n - 1) / (32 * n) * 32;
    const int64_t lanes = threads * n;
    if (threads > kNormMaxThreads) continue;
    if (best.packs > 0) {
      // So few that each is as fast as its longest thread: most threads.
      if (rows <= 2 * multiprocessors) break;
      if (n > wanted && threads > 32 && best.threads <= 256) continue;
      if (many ? lanes > int64_t{best.threads} * best.packs
               : 5 * lanes > 6 * packs)
        continue;
    }
    best = {n, static_cast<int>(threads)};
  }
  // Rows of a warp go by twos: a device starts a block every 1.3 ns or so
  // (H200), which is what 5 KB of traffic take.
  if (best.threads == 32 && rows > 4 * multiprocessors) best.rows = 2;
  return best;
}

// Blocks for `work` rows that a block takes in turn: those that run together,
// or so many fewer that all do the same number of rounds. `groups` grids run
// together.
template <class... P>
absl::StatusOr<int> NormGrid(void (*kernel)(P...), int threads, int64_t work,
                             int groups, int multiprocessors) {
  int resident = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &resident, kernel, threads, 0));
  const int64_t together = std::max<int64_t>(
      int64_t{std::max(resident, 1)} * multiprocessors / groups, 1);
  const int64_t rounds = (work + together - 1) / together;
  return static_cast<int>((work + rounds - 1) / rounds);
}

inline NormView ViewOf(const Tensor& t) {
  if (!t) return {};
  return {t.data, t.strides[0], t.strides[1]};
}

// Whether packs of kLanes elements of T can be read and written: rows, groups
// and weights begin at whole ones.
template <class T, class R, int kLanes>
bool IsPacked(const NormTensors& t) {
  const auto aligned = [](const void* p, size_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
  };
  const auto fits = [&](const NormView& view, size_t bytes) {
    return aligned(view.data, bytes) && view.batch_stride % kLanes == 0 &&
           view.token_stride % kLanes == 0;
  };
  return t.width % kLanes == 0 && aligned(t.weight, kLanes * sizeof(T)) &&
         aligned(t.bias, kLanes * sizeof(T)) && fits(t.x, kLanes * sizeof(T)) &&
         fits(t.gate, kLanes * sizeof(T)) && fits(t.y, kLanes * sizeof(T)) &&
         fits(t.residual, kLanes * sizeof(R)) &&
         fits(t.residual_out, kLanes * sizeof(R));
}

// RowKernel, or no launch where the rows do not suit it.
template <class T, NormForm kForm>
absl::StatusOr<Launch> PlanRows(const NormTensorsOf<kForm.scaled>& t,
                                int multiprocessors) {
  constexpr int kLanes = kRowLanes<T, kForm>;
  if (!IsPacked<T, ResidualOf<T, kForm>, kLanes>(t)) return Launch();
  const NormShape shape = ChooseNormShape(kForm, t.width / kLanes,
                                          t.rows * t.groups, multiprocessors);
  if (shape.packs == 0) return Launch();
  void (*const kernels[])(NormTensorsOf<kForm.scaled>) = {
      RowKernel<T, kForm, 1>, RowKernel<T, kForm, 2>, RowKernel<T, kForm, 3>,
      RowKernel<T, kForm, 4>, RowKernel<T, kForm, 5>};
  const auto kernel = kernels[shape.packs - 1];
  const int64_t blocks = (t.rows + shape.rows - 1) / shape.rows * t.groups;
  if (blocks > INT32_MAX) return Launch();
  return [t, kernel, grid = static_cast<unsigned>(blocks),
          block = dim3(shape.threads, shape.rows)](Stream stream) {
    return LaunchDependent(kernel, grid, block, 0, AsCudaStream(stream),
                           "norm RowKernel", t);
  };
}

template <class T, class R, bool kScaled>
absl::StatusOr<Launch> PlanWide(const NormForm& form,
                                const NormTensorsOf<kScaled>& t,
                                int multiprocessors) {
  constexpr int kLanes = kPackSize<T>;
  const bool packed = IsPacked<T, R, kLanes>(t);
  const auto kernel =
      packed ? WideKernel<T, R, kLanes, kScaled> : WideKernel<T, R, 1, kScaled>;
  const int accesses = packed ? t.width / kLanes : t.width;
  const int threads = std::min(1024, (accesses + 31) / 32 * 32);
  const auto blocks =
      NormGrid(kernel, threads, t.rows, t.groups, multiprocessors);
  if (!blocks.ok()) return blocks.status();
  return [t, form, kernel, grid = dim3(*blocks, t.groups),
          threads](Stream stream) {
    kernel<<<grid, threads, 0, AsCudaStream(stream)>>>(t, form);
    return LaunchStatus("norm WideKernel");
  };
}

// Which of a form's RowKernels exist; WideKernel does the rest.
enum class NormKernels : uint8_t { kNone, kPlain, kPlainAndStrided };

template <NormForm kForm, class T, NormKernels kKernels>
absl::StatusOr<Launch> PlanNormOf(const NormTensorsOf<kForm.scaled>& t,
                                  bool strided) {
  int device = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  if constexpr (kKernels != NormKernels::kNone)
    if (!strided) {
      auto launch = PlanRows<T, kForm>(t, multiprocessors);
      if (!launch.ok() || *launch) return launch;
    }
  if constexpr (kKernels == NormKernels::kPlainAndStrided)
    if (strided) {
      constexpr NormForm kStrided = With(kForm, &NormForm::strided, true);
      auto launch = PlanRows<T, kStrided>(t, multiprocessors);
      if (!launch.ok() || *launch) return launch;
    }
  return PlanWide<T, ResidualOf<T, kForm>, kForm.scaled>(kForm, t,
                                                         multiprocessors);
}

// What a scaled form reads besides.
struct NormScale {
  Tensor squares;  // (batch, seqlen, parts) f32
  int64_t width = 1;
  float epsilon = 0;
};

// The norm of `args`, RmsNorm's or LayerNorm's: `gate`, `bias` and `scale` are
// none where the operator has none.
template <NormForm kForm, NormKernels kKernels, class Args>
absl::StatusOr<Launch> PlanNorm(const NormAxes& p, const Args& args,
                                const Tensor& gate, const Tensor& bias,
                                int64_t groups, const NormScale& scale = {}) {
  if (p.rows() > INT32_MAX || p.width > INT32_MAX || groups > 65535)
    return absl::UnimplementedError(
        "needs batch * seqlen and width < 2^31, groups < 2^16");
  NormTensorsOf<kForm.scaled> tensors;
  tensors.x = ViewOf(args.x);
  tensors.residual = ViewOf(args.residual);
  tensors.gate = ViewOf(gate);
  tensors.y = ViewOf(args.y);
  tensors.residual_out = ViewOf(args.residual_out);
  tensors.weight = args.weight.data;
  tensors.bias = bias.data;
  tensors.rows = p.rows();
  tensors.seqlen = static_cast<unsigned>(p.seqlen);
  tensors.width = static_cast<int>(p.width / groups);
  tensors.groups = static_cast<int>(groups);
  tensors.per_element = 1.0f / static_cast<float>(p.width / groups);
  tensors.epsilon = p.epsilon;
  if constexpr (kForm.scaled) {
    tensors.squares = ViewOf(scale.squares);
    tensors.parts = static_cast<int>(scale.squares.dims[2]);
    tensors.per_square = 1.0f / static_cast<float>(scale.width);
    tensors.scale_epsilon = scale.epsilon;
  }
  const bool strided = groups > 1 || !HasAdjacentRows(args.x) ||
                       !HasAdjacentRows(args.residual) ||
                       !HasAdjacentRows(gate) || !HasAdjacentRows(args.y) ||
                       !HasAdjacentRows(args.residual_out);
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    // Of f32 rows every residual is f32.
    constexpr NormForm kOfT = std::is_same_v<T, float>
                                  ? With(kForm, &NormForm::residual_f32, false)
                                  : kForm;
    auto planned = PlanNormOf<kOfT, T, kKernels>(tensors, strided);
    if (planned.ok()) launch = *std::move(planned);
    return planned.status();
  });
  if (!status.ok()) return status;
  return launch;
}

}  // namespace seqmark
