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
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/device.h"
#include "ops/ssm_step/ssm_step.h"

namespace seqmark {

inline constexpr int kStepThreads = 128;  // most of a block

// Loads before this are issued before those after it. Left alone, the compiler
// puts loads off, behind arithmetic that waits for others.
__device__ __forceinline__ void KeepOrder() { __syncwarp(); }

// Grid (blocks of a slice's rows, slices, batch). kVec: states of an access.
// kPacks: accesses of a row by a thread. `team`: lanes of a row, a power of
// two.
//
// What lies beyond the last row or state is loaded as the last one is, so that
// no load waits behind a branch, and goes nowhere: it meets a C of zero, and
// only stores ask.
template <class T, bool kRowDecay, int kVec, int kPacks, int kRows>
__global__ void __launch_bounds__(kStepThreads)
    SsmStepKernel(const SsmStep s, const int team_bits) {
  LetNextStart();
  using States = Pack<float, kVec>;
  using Inputs = Pack<T, kVec>;
  constexpr float kLog2E = 1.4426950408889634f;
  const int slice = blockIdx.y;
  const int64_t batch = blockIdx.z;
  const int team = 1 << team_bits;
  const int lane = threadIdx.x & (team - 1);
  const int teams = blockDim.x >> team_bits;
  const int rows = static_cast<int>(s.rows);
  const int d_state = static_cast<int>(s.d_state);
  // Rows of a block in turn over its teams: neighbours are read together.
  const int first = blockIdx.x * (teams * kRows) + (threadIdx.x >> team_bits);
  int row[kRows], state[kPacks];
#pragma unroll
  for (int r = 0; r < kRows; ++r) row[r] = min(first + r * teams, rows - 1);
#pragma unroll
  for (int i = 0; i < kPacks; ++i)
    state[i] = min((i * team + lane) * kVec, d_state - kVec);
  const auto has_row = [&](int r) { return first + r * teams < rows; };
  const auto has_state = [&](int i) {
    return (i * team + lane) * kVec < d_state;
  };

  // Before the kernels that make the inputs have ended: the weights, and that
  // the block's states come into L2.
  constexpr int kSteps = kRowDecay ? kRows : 1;  // one a row, or one for all
  const auto step_of = [&](int r) { return kRowDecay ? row[r] : slice; };
  States h[kRows][kPacks], rate[kRows][kPacks];
  float bias[kSteps] = {}, skip[kSteps] = {}, slice_rate = 0.0f;
  const int64_t first_row = (batch * gridDim.y + slice) * rows;
  const float* const from = s.state + first_row * d_state;
  float* const to = s.state_out + first_row * d_state;
  if constexpr (kVec * sizeof(float) == 16)
    if (threadIdx.x == 0) {
      const int of_block = blockIdx.x * (teams * kRows);
      FetchL2(from + int64_t{of_block} * d_state,
              min(teams * kRows, rows - of_block) * d_state *
                  static_cast<int>(sizeof(float)));
    }
  if constexpr (kRowDecay) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int i = 0; i < kPacks; ++i)
        rate[r][i] = *reinterpret_cast<const States*>(
            s.A + int64_t{row[r]} * d_state + state[i]);
  } else {
    slice_rate = s.A[slice];
  }
  if (s.dt_bias != nullptr) {
#pragma unroll
    for (int r = 0; r < kSteps; ++r) bias[r] = s.dt_bias[step_of(r)];
  }
  if (s.D != nullptr) {
#pragma unroll
    for (int r = 0; r < kSteps; ++r) skip[r] = s.D[step_of(r)];
  }
  WaitForPrevious();
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int64_t at = int64_t{row[r]} * d_state + state[i];
      h[r][i] = *reinterpret_cast<const States*>(from + at);
    }
  KeepOrder();

  const auto at = [&](const SsmStep::View& view, int64_t i) {
    return static_cast<T*>(view.data) + batch * view.stride + i;
  };
  const int64_t first_x = int64_t{slice} * rows;
  T dt[kSteps], x[kRows], gate[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) x[r] = *at(s.x, first_x + row[r]);
  if (s.z.data != nullptr) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) gate[r] = *at(s.z, first_x + row[r]);
  }
  Inputs b[kPacks], c[kPacks];
  unsigned group = 0;
  if constexpr (!kRowDecay)
    group = blockIdx.y / static_cast<unsigned>(s.slices_per_group);
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int64_t at_state = int64_t{group} * d_state + state[i];
    b[i] = *reinterpret_cast<const Inputs*>(at(s.B, at_state));
    c[i] = *reinterpret_cast<const Inputs*>(at(s.C, at_state));
  }
  // Last what is waited for first: all else is on its way by then.
  KeepOrder();
#pragma unroll
  for (int r = 0; r < kSteps; ++r) dt[r] = *at(s.dt, step_of(r));

  float step[kSteps], slice_decay = 0.0f;
#pragma unroll
  for (int r = 0; r < kSteps; ++r)
    step[r] = SoftplusFast(ToFloat(dt[r]) + bias[r]);
  if constexpr (!kRowDecay)
    slice_decay = Exp2Fast(step[0] * kLog2E * slice_rate);

  float sum[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float row_step = step[kRowDecay ? r : 0];
    const float input = row_step * ToFloat(x[r]);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        float decay = slice_decay;
        if constexpr (kRowDecay)
          decay = Exp2Fast(row_step * kLog2E * rate[r][i].v[v]);
        const float next =
            fmaf(decay, h[r][i].v[v], input * ToFloat(b[i].v[v]));
        const float weight = has_state(i) ? ToFloat(c[i].v[v]) : 0.0f;
        sum[r] = fmaf(weight, next, sum[r]);
        h[r][i].v[v] = next;
      }
      if (has_row(r) && has_state(i))
        *reinterpret_cast<States*>(to + int64_t{row[r]} * d_state + state[i]) =
            h[r][i];
    }
  }
  for (int other = team / 2; other > 0; other /= 2)
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], other);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float y = fmaf(skip[kRowDecay ? r : 0], ToFloat(x[r]), sum[r]);
    if (s.z.data != nullptr) y *= SiluFast(ToFloat(gate[r]));
    if (lane == (r & (team - 1)) && has_row(r))
      *at(s.y, first_x + row[r]) = FromFloat<T>(y);
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
  const int team = static_cast<int>(std::min(32u, std::bit_ceil(packs)));
  // Four rows a thread where one each would take more than a wave of warps.
  const int64_t units = s.batch * s.slices;
  const int64_t warps = units * s.rows * team / 32;
  const int rows = wide && warps > int64_t{multiprocessors} * 48 ? 4 : 1;
  const auto blocks_of = [&](int threads) {  // of a slice
    const int64_t rows_of_block = threads / team * rows;
    return (s.rows + rows_of_block - 1) / rows_of_block;
  };
  int threads = kStepThreads;
  while (threads > 32 && units * blocks_of(threads) < multiprocessors)
    threads /= 2;
  if (s.d_state > 256 || s.rows > INT32_MAX / 2 || s.slices > 65535 ||
      s.batch > 65535)
    return absl::UnimplementedError(
        "needs d_state <= 256, less than 2^30 channels, and fewer than 2^16 "
        "heads and sequences");
  const auto kernel = !wide ? SsmStepKernel<T, kRowDecay, 1, 8, 1>
                      : packs <= 32
                          ? (rows == 1 ? SsmStepKernel<T, kRowDecay, 4, 1, 1>
                                       : SsmStepKernel<T, kRowDecay, 4, 1, 4>)
                          : (rows == 1 ? SsmStepKernel<T, kRowDecay, 4, 2, 1>
                                       : SsmStepKernel<T, kRowDecay, 4, 2, 4>);
  const dim3 grid(static_cast<unsigned>(blocks_of(threads)),
                  static_cast<unsigned>(s.slices),
                  static_cast<unsigned>(s.batch));
  const int team_bits = std::countr_zero(static_cast<unsigned>(team));
  return [s, team_bits, kernel, grid, threads](Stream stream) {
    return LaunchDependent(kernel, grid, threads, 0, AsCudaStream(stream),
                           "SsmStepKernel", s, team_bits);
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
