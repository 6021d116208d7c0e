// SPDX-License-Identifier: Apache-2.0
//
// The step of a state space layer on a GPU, in one launch. Of many sequences
// the states come from memory, which limits the call: 8 bytes a state (12 for
// Mamba at batch 1, with A) against a few operations. Of one sequence a layer's
// states are some KB a multiprocessor, and latency is all there is.
//
// So a row of states belongs to a team of lanes of one warp, as few as can take
// it in 16-byte accesses, and a thread asks for all its states, of kRows rows,
// before anything else; dt, x, B and C follow, and while they arrive nothing is
// computed. A warp of teams reads its rows as one piece. What rows share is
// computed by every thread again: cheaper than a barrier. Sums go across the
// team by shuffles. Few rows: one a thread, spread over the chip; many: four,
// so that a multiprocessor of half its threads has 64 KB in flight.
//
// A thread reads its states before it writes them, and no other touches them:
// state_out may be state.
#pragma once

#include <algorithm>
#include <bit>

#include "absl/status/statusor.h"
#include "fixtures/cuda.h"
#include "fixtures/device.h"
#include "ops/ssm_step/ssm_step.h"

namespace seqmark {

inline constexpr int kStepThreads = 128;  // most of a block

struct StepShape {
  int team = 32;            // lanes of a row, a power of two
  unsigned row_blocks = 1;  // blocks of a slice
};

// kVec: states of an access. kPacks: accesses of a row by a thread.
template <class T, bool kRowDecay, int kVec, int kPacks, int kRows>
__global__ void __launch_bounds__(kStepThreads)
    SsmStepKernel(const SsmStep s, const StepShape shape) {
  using States = Pack<float, kVec>;
  using Inputs = Pack<T, kVec>;
  constexpr float kLog2E = 1.4426950408889634f;
  const unsigned unit = blockIdx.x / shape.row_blocks;  // (batch, slice)
  const unsigned slices = static_cast<unsigned>(s.slices);
  const int64_t batch = unit / slices;
  const int64_t slice = unit % slices;
  const int lane = threadIdx.x & (shape.team - 1);
  const int teams = blockDim.x / shape.team;
  const int rows = static_cast<int>(s.rows);
  const int d_state = static_cast<int>(s.d_state);
  // Rows of a block in turn over its teams: neighbours are read together.
  const int first = (blockIdx.x % shape.row_blocks) * (teams * kRows) +
                    threadIdx.x / shape.team;
  const auto row_of = [&](int r) { return first + r * teams; };
  const auto state_of = [&](int i) { return (i * shape.team + lane) * kVec; };
  const auto at = [&](const SsmStep::View& view, int64_t i) {
    return static_cast<T*>(view.data) + batch * view.stride + i;
  };

  States h[kRows][kPacks] = {}, rate[kRows][kPacks] = {};
  const int64_t first_state = unit * s.rows * d_state;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (row_of(r) >= rows || state_of(i) >= d_state) continue;
      const int64_t in_slice = int64_t{row_of(r)} * d_state + state_of(i);
      h[r][i] =
          *reinterpret_cast<const States*>(s.state + first_state + in_slice);
      if constexpr (kRowDecay)
        rate[r][i] = *reinterpret_cast<const States*>(s.A + in_slice);
    }

  // Steps: one a row or one for all.
  constexpr int kSteps = kRowDecay ? kRows : 1;
  float dt[kSteps] = {}, bias[kSteps] = {}, skip[kSteps] = {};
#pragma unroll
  for (int r = 0; r < kSteps; ++r) {
    const int64_t i = kRowDecay ? row_of(r) : slice;
    if (kRowDecay && i >= rows) continue;
    dt[r] = ToFloat(*at(s.dt, i));
    if (s.dt_bias != nullptr) bias[r] = s.dt_bias[i];
    if (s.D != nullptr) skip[r] = s.D[i];
  }
  float slice_rate = 0.0f;
  if constexpr (!kRowDecay) slice_rate = s.A[slice];
  float x[kRows] = {}, gate[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row_of(r) >= rows) continue;
    x[r] = ToFloat(*at(s.x, slice * rows + row_of(r)));
    if (s.z.data != nullptr)
      gate[r] = ToFloat(*at(s.z, slice * rows + row_of(r)));
  }
  Inputs b[kPacks], c[kPacks];
  const int64_t group = slice / s.slices_per_group * d_state;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (state_of(i) >= d_state) continue;
    b[i] = *reinterpret_cast<const Inputs*>(at(s.B, group + state_of(i)));
    c[i] = *reinterpret_cast<const Inputs*>(at(s.C, group + state_of(i)));
  }

  float step[kSteps];
#pragma unroll
  for (int r = 0; r < kSteps; ++r) step[r] = SoftplusFast(dt[r] + bias[r]);
  float slice_decay = 0.0f;
  if constexpr (!kRowDecay)
    slice_decay = Exp2Fast(step[0] * kLog2E * slice_rate);

  float sum[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float row_step = step[kRowDecay ? r : 0];
    const float input = row_step * x[r];
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (row_of(r) >= rows || state_of(i) >= d_state) continue;
      States next;
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        float decay = slice_decay;
        if constexpr (kRowDecay)
          decay = Exp2Fast(row_step * kLog2E * rate[r][i].v[v]);
        next.v[v] = fmaf(decay, h[r][i].v[v], input * ToFloat(b[i].v[v]));
        sum[r] = fmaf(ToFloat(c[i].v[v]), next.v[v], sum[r]);
      }
      *reinterpret_cast<States*>(s.state_out + first_state +
                                 int64_t{row_of(r)} * d_state + state_of(i)) =
          next;
    }
  }
  for (int other = shape.team / 2; other > 0; other /= 2)
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], other);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (lane != (r & (shape.team - 1)) || row_of(r) >= rows) continue;
    float y = fmaf(skip[kRowDecay ? r : 0], x[r], sum[r]);
    if (s.z.data != nullptr) y *= SiluFast(gate[r]);
    *at(s.y, slice * rows + row_of(r)) = FromFloat<T>(y);
  }
}

template <class T, bool kRowDecay>
absl::StatusOr<Launch> PlanSsmStepOf(const SsmStep& s) {
  int device = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  // Four states an access, where every row and every batch entry allows it.
  const auto aligned = [](const void* p, size_t bytes) {
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
  };
  const bool wide = s.d_state % 4 == 0 && aligned(s.state, 16) &&
                    aligned(s.state_out, 16) &&
                    (!kRowDecay || aligned(s.A, 16)) &&
                    aligned(s.B.data, 4 * sizeof(T)) && s.B.stride % 4 == 0 &&
                    aligned(s.C.data, 4 * sizeof(T)) && s.C.stride % 4 == 0;
  const auto packs = static_cast<unsigned>(wide ? s.d_state / 4 : s.d_state);
  StepShape shape;
  shape.team = static_cast<int>(std::min(32u, std::bit_ceil(packs)));
  // Four rows a thread where one each would take more than a wave of warps.
  const int64_t units = s.batch * s.slices;
  const int64_t warps = units * s.rows * shape.team / 32;
  const int rows = wide && warps > int64_t{multiprocessors} * 48 ? 4 : 1;
  const auto blocks_of = [&](int threads) {  // of a slice
    const int64_t rows_of_block = threads / shape.team * rows;
    return (s.rows + rows_of_block - 1) / rows_of_block;
  };
  int threads = kStepThreads;
  while (threads > 32 && units * blocks_of(threads) < multiprocessors)
    threads /= 2;
  const int64_t grid = units * blocks_of(threads);
  if (s.d_state > 256 || grid > INT32_MAX || s.rows > INT32_MAX / 2)
    return absl::UnimplementedError(
        "needs d_state <= 256 and batch * channels < 2^30");
  shape.row_blocks = static_cast<unsigned>(blocks_of(threads));
  const auto kernel = !wide ? SsmStepKernel<T, kRowDecay, 1, 8, 1>
                      : packs <= 32
                          ? (rows == 1 ? SsmStepKernel<T, kRowDecay, 4, 1, 1>
                                       : SsmStepKernel<T, kRowDecay, 4, 1, 4>)
                          : (rows == 1 ? SsmStepKernel<T, kRowDecay, 4, 2, 1>
                                       : SsmStepKernel<T, kRowDecay, 4, 2, 4>);
  return [s, shape, kernel, grid = static_cast<unsigned>(grid),
          threads](Stream stream) {
    kernel<<<grid, threads, 0, AsCudaStream(stream)>>>(s, shape);
    return LaunchStatus("SsmStepKernel");
  };
}

template <bool kRowDecay>
absl::StatusOr<Launch> PlanSsmStep(DType dtype, const SsmStep& s) {
  Launch launch;
  const absl::Status status = DispatchCudaDType(dtype, [&](auto tag) {
    auto planned = PlanSsmStepOf<decltype(tag), kRowDecay>(s);
    if (planned.ok()) launch = *std::move(planned);
    return planned.status();
  });
  if (!status.ok()) return status;
  return launch;
}

}  // namespace seqmark
