// SPDX-License-Identifier: Apache-2.0
//
// Plans the kernels over chunks: hopper_scan.cuh where the GPU has what it
// needs, scan.cuh elsewhere, and what they need beforehand (hopper_states.cuh,
// states.cuh). ops/mamba2_inner plans them with an epilogue of its own.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "fixtures/cuda.h"
#include "fixtures/device.h"
#include "ops/ssd_scan/hopper_scan.cuh"
#include "ops/ssd_scan/hopper_states.cuh"
#include "ops/ssd_scan/scan.cuh"
#include "ops/ssd_scan/ssd_scan.h"
#include "ops/ssd_scan/states.cuh"
#include "ops/ssd_scan/tensor_map.cuh"

namespace seqmark::ssd {

template <class T>
Params<T> MakeParams(const SsdScan::Problem& p, const SsdScan::Args& a) {
  const auto strides = [](const Tensor& t) {
    return t ? Strides{t.strides[0], t.strides[1]} : Strides{};
  };
  Params<T> out = {};
  out.x = a.x.as<T>();
  out.dt = a.dt.as<T>();
  out.B = a.B.as<T>();
  out.C = a.C.as<T>();
  out.z = a.z.as<T>();
  out.A = a.A.as<float>();
  out.D = a.D.as<float>();
  out.dt_bias = a.dt_bias.as<float>();
  out.dt_min = p.dt_min;
  out.initial_state = a.initial_state.as<float>();
  out.y = a.y.as<T>();
  out.final_state = a.final_state.as<float>();
  out.x_strides = strides(a.x);
  out.dt_strides = strides(a.dt);
  out.B_strides = strides(a.B);
  out.C_strides = strides(a.C);
  out.z_strides = strides(a.z);
  out.y_strides = strides(a.y);
  out.batch = static_cast<int>(p.batch);
  out.seqlen = static_cast<int>(p.seqlen);
  out.heads = static_cast<int>(p.heads);
  out.head_dim = static_cast<int>(p.head_dim);
  out.groups = static_cast<int>(p.groups);
  out.d_state = static_cast<int>(p.d_state);
  out.segments = out.pieces = 1;
  return out;
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lets a kernel use `bytes` of shared memory; how many CTAs the GPU then runs
// at once.
inline absl::StatusOr<int> Prepare(const void* kernel, int threads,
                                   size_t bytes) {
  SEQMARK_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(bytes)));
  int per_sm = 0, device = 0, sms = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &per_sm, kernel, threads, bytes));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device));
  if (per_sm == 0)
    return absl::UnimplementedError(
        absl::StrCat("needs ", bytes,
                     " bytes of shared memory a block, more than this "
                     "GPU has"));
  return per_sm * sms;
}

// What a plan's kernels take, in chunks of the scan: a CTA's start (its state,
// its first loads), a CTA's of the states' kernel and a chunk there, and more
// than `few` states, summed up or passed on: by themselves and a CTA of those.
//
// Most heads need no more than `memory` chunks of a piece, however long it is;
// CTAs of pieces that are longer end at many times and fill the GPU well, those
// of others in waves. Some heads need it whole, which takes `beyond` a chunk.
// All work costs power, and with it clock, also where it fills multiprocessors
// that would be idle: `power` times the chunks' own.
struct SegmentCosts {
  double start;
  double states_start, states_chunk;
  int64_t memory;
  double beyond, power;
  int64_t most_pieces;
  double pass, pass_cta;
  int64_t few;
};
inline constexpr SegmentCosts kMmaCosts = {
    2, 2, 1.0 / 3, 16, 0, 0, /*most_pieces=*/1, 0, 0, 1};
// So many states the scan sums up itself, a lane having each one's decay; more
// go through PassStates.
inline constexpr int kMostSummed = 12;
static_assert(kMostSummed <= 32);
inline constexpr SegmentCosts kHopperCosts = {
    3.5, 4.5, 0.28, 40, 0.28, 1.25, /*most_pieces=*/8, 4, 0.0125, 6};

// Chunks a segment, and a piece of one.
struct SegmentLengths {
  int64_t segment, piece;
};

// The lengths with the least time.
inline SegmentLengths ChooseLengths(int64_t units, int64_t chunks, int64_t ctas,
                                    const SegmentCosts& costs) {
  constexpr int64_t kMaxSegments = 256;
  SegmentLengths best = {chunks, chunks};
  double best_time = CeilDiv(units, ctas) * (costs.start + chunks);
  for (int64_t most = 2; most <= std::min(chunks, kMaxSegments); ++most)
    for (int64_t parts = 1; parts <= costs.most_pieces; ++parts) {
      const int64_t length = CeilDiv(chunks, most);
      const int64_t segments = CeilDiv(chunks, length);
      const int64_t piece = CeilDiv(length, parts);
      const int64_t pieces = (segments - 1) * CeilDiv(length, piece);
      const double soon = costs.states_chunk * std::min(piece, costs.memory);
      const double share = static_cast<double>(units * pieces) / ctas;
      const double waves =
          piece > costs.memory ? std::max(1.0, share) : std::ceil(share);
      double time = CeilDiv(units * segments, ctas) * (costs.start + length) +
                    waves * (costs.states_start + soon) +
                    costs.beyond * std::max<int64_t>(0, piece - costs.memory) +
                    costs.power * share * soon;
      if (pieces + 1 > costs.few)
        time += costs.pass + costs.pass_cta * units * pieces;
      if (time < best_time) {
        best_time = time;
        best = {length, piece};
      }
    }
  return best;
}

// Cuts the problem into segments and gives them memory for their states.
template <class T>
absl::StatusOr<std::shared_ptr<Buffer>> PlanSegments(
    const SsdScan::Problem& p, int64_t units, int64_t ctas,
    const SegmentCosts& costs, Device& device, Params<T>& params) {
  const int64_t chunks = CeilDiv(p.seqlen, kChunk);
  const SegmentLengths lengths = ChooseLengths(units, chunks, ctas, costs);
  params.segment_chunks = static_cast<int>(lengths.segment);
  params.segments = static_cast<int>(CeilDiv(chunks, lengths.segment));
  params.piece_chunks = static_cast<int>(lengths.piece);
  params.pieces = static_cast<int>(CeilDiv(lengths.segment, lengths.piece));
  if (units * (params.segments + params.state_count()) >
      std::numeric_limits<int>::max())
    return absl::UnimplementedError("more blocks than a grid has");
  if (params.segments == 1) return nullptr;
  const int64_t states = p.batch * params.state_count() * p.heads;
  auto buffer =
      device.Allocate(states * (params.state_size() + 1) * sizeof(float),
                      MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto workspace = std::make_shared<Buffer>(*std::move(buffer));
  params.states = static_cast<float*>(workspace->data());
  params.decays = params.states + states * params.state_size();
  return workspace;
}

template <class T>
absl::Status LaunchPassStates(const Params<T>& params, cudaStream_t stream) {
  const int64_t quads = static_cast<int64_t>(params.batch) * params.heads *
                        params.state_size() / 4;
  return LaunchDependent(
      &PassStates<T>, dim3(static_cast<unsigned>(CeilDiv(quads, kPassThreads))),
      dim3(kPassThreads), 0, stream, "PassStates", params);
}

// How the scan's kernels are called: Of is the tile that the last is made for,
// Set and SetHopper give what parameters it has besides. This is ssd_scan's own
// way.
struct PlainScan {
  template <class Tile>
  using Of = Tile;
  template <class Tile>
  absl::Status Set(ParamsOf<Tile>&) const {
    return absl::OkStatus();
  }
  template <class Tile>
  absl::Status SetHopper(HopperParamsOf<Tile>&) const {
    return absl::OkStatus();
  }
};

template <class Plain, class Way>
absl::StatusOr<Launch> PlanTile(const SsdScan::Problem& p,
                                const SsdScan::Args& a, Device& device,
                                const Way& way) {
  using T = typename Plain::Element;
  using Tile = typename Way::template Of<Plain>;
  constexpr size_t kStatesBytes = sizeof(StateSharedMemory<Plain>);
  constexpr size_t kScanBytes = sizeof(ScanSharedMemory<Tile>);
  static_assert(kScanBytes <= 99 * 1024);
  const auto states =
      Prepare(reinterpret_cast<const void*>(&SegmentStates<Plain>),
              Plain::kThreads, kStatesBytes);
  if (!states.ok()) return states.status();
  const auto ctas = Prepare(reinterpret_cast<const void*>(&SegmentScan<Tile>),
                            Tile::kThreads, kScanBytes);
  if (!ctas.ok()) return ctas.status();

  ParamsOf<Tile> params;
  static_cast<Params<T>&>(params) = MakeParams<T>(p, a);
  if (absl::Status s = way.template Set<Tile>(params); !s.ok()) return s;
  const int64_t units =
      p.batch * p.groups * CeilDiv(p.heads_per_group(), Tile::kHeads);
  auto workspace = PlanSegments<T>(p, units, *ctas, kMmaCosts, device, params);
  if (!workspace.ok()) return workspace.status();
  return [params, units, workspace = *workspace](Stream s) -> absl::Status {
    const cudaStream_t stream = AsCudaStream(s);
    const auto blocks = [](int64_t n) { return static_cast<unsigned>(n); };
    if (params.segments > 1) {
      SegmentStates<Plain><<<blocks(units * (params.state_count() - 1)),
                             Plain::kThreads, kStatesBytes, stream>>>(params);
      if (absl::Status e = LaunchStatus("SegmentStates"); !e.ok()) return e;
      if (absl::Status e = LaunchPassStates<T>(params, stream); !e.ok())
        return e;
    }
    SegmentScan<Tile><<<blocks(units * params.segments), Tile::kThreads,
                        kScanBytes, stream>>>(params);
    return LaunchStatus("SegmentScan");
  };
}

// Whether this GPU runs `kernel` of hopper_scan.cuh: builds without sm_90a have
// it empty.
inline bool RunsHopper(const void* kernel) {
  int device = 0, major = 0;
  cudaFuncAttributes attributes;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                             device) != cudaSuccess ||
      cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return major == 9 && attributes.numRegs >= 64;
}

template <class T>
absl::StatusOr<CUtensorMap> MapHeads(const SsdScan::Problem& p,
                                     const Tensor& t) {
  // A batch of 1 may have any stride.
  const int64_t batch = p.batch > 1 ? t.strides[0] : p.seqlen * t.strides[1];
  return MakeTensorMap<T>(
      t.as<T>(), std::array{p.heads * p.head_dim, p.seqlen, p.batch},
      std::array{t.strides[1], batch}, std::array<uint32_t, 3>{64, kChunk, 1});
}

template <class T>
absl::StatusOr<CUtensorMap> MapGroups(const SsdScan::Problem& p,
                                      const Tensor& t) {
  const int64_t batch = p.batch > 1 ? t.strides[0] : p.seqlen * t.strides[1];
  return MakeTensorMap<T>(t.as<T>(),
                          std::array{p.d_state, p.groups, p.seqlen, p.batch},
                          std::array{p.d_state, t.strides[1], batch},
                          std::array<uint32_t, 4>{64, 1, kChunk, 1});
}

// Whether C B^T is made once for a group, not by each of its CTAs: reading B
// and C for it once more has to take less than so many save.
inline bool SharesProducts(int64_t ctas_of_group, int64_t chunks,
                           int64_t segments) {
  if (ctas_of_group < (chunks < 128 ? 24 : 12)) return false;
  // A launch that makes nothing else takes some microseconds.
  return segments > 1 || chunks >= 48;
}

// Gives the products memory; null where they are not shared.
template <class Tile>
absl::StatusOr<std::shared_ptr<Buffer>> PlanProducts(
    const SsdScan::Problem& p, Device& device, HopperParamsOf<Tile>& params) {
  const int64_t chunks = CeilDiv(p.seqlen, kChunk);
  params.products = nullptr;
  params.product_blocks = 0;
  if (!SharesProducts(CeilDiv(p.heads_per_group(), Tile::kHeads), chunks,
                      params.p.segments))
    return nullptr;
  const int64_t products = p.batch * p.groups * chunks;
  const int64_t ctas = CeilDiv(products, kProductChunks<Tile>);
  if (products + params.state_blocks > std::numeric_limits<int>::max())
    return absl::UnimplementedError("more blocks than a grid has");
  auto buffer = device.Allocate(products * kProductQuads * sizeof(float4),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto memory = std::make_shared<Buffer>(*std::move(buffer));
  params.products = static_cast<float4*>(memory->data());
  params.product_blocks = static_cast<int>(ctas);
  return memory;
}

template <class Plain, class Way>
absl::StatusOr<Launch> PlanHopper(const SsdScan::Problem& p,
                                  const SsdScan::Args& a, Device& device,
                                  const Way& way) {
  using T = typename Plain::Element;
  using Tile = typename Way::template Of<Plain>;
  constexpr int kStatesBytes = kHopperBytes<HopperStateShared<Tile>>;
  constexpr int kScanBytes = kHopperBytes<HopperScanShared<Tile>>;
  static_assert(std::max(kStatesBytes, kScanBytes) <= 227 * 1024);
  const auto states =
      Prepare(reinterpret_cast<const void*>(&HopperStates<Tile>),
              Tile::kStateThreads, kStatesBytes);
  if (!states.ok()) return states.status();
  const auto ctas = Prepare(reinterpret_cast<const void*>(&HopperScan<Tile>),
                            Tile::kScanThreads, kScanBytes);
  if (!ctas.ok()) return ctas.status();

  HopperParamsOf<Tile> params;
  params.p = MakeParams<T>(p, a);
  params.p.held_d_state = Tile::kN;
  const int64_t units =
      p.batch * p.groups * CeilDiv(p.heads_per_group(), Tile::kHeads);
  auto workspace =
      PlanSegments(p, units, *ctas, kHopperCosts, device, params.p);
  if (!workspace.ok()) return workspace.status();
  params.passed = params.p.state_count() > kMostSummed;
  const auto x = MapHeads<T>(p, a.x), y = MapHeads<T>(p, a.y);
  const auto B = MapGroups<T>(p, a.B), C = MapGroups<T>(p, a.C);
  for (const auto* map : {&x, &y, &B, &C})
    if (!map->ok()) return map->status();
  params.x = *x;
  params.y = *y;
  params.B = *B;
  params.C = *C;
  if (absl::Status s = way.template SetHopper<Tile>(params); !s.ok()) return s;
  params.state_blocks = static_cast<int>(units * (params.p.state_count() - 1));
  auto products = PlanProducts<Tile>(p, device, params);
  if (!products.ok()) return products.status();
  return [params, units, workspace = *workspace,
          products = *products](Stream s) -> absl::Status {
    const cudaStream_t stream = AsCudaStream(s);
    const dim3 scan_blocks(static_cast<unsigned>(units * params.p.segments));
    const dim3 blocks(params.state_blocks + params.product_blocks);
    if (blocks.x == 0) {
      HopperScan<Tile>
          <<<scan_blocks, Tile::kScanThreads, kScanBytes, stream>>>(params);
      return LaunchStatus("HopperScan");
    }
    const auto launch_states = [&]() -> absl::Status {
      if constexpr (Tile::kGated)
        return LaunchDependent(&HopperStates<Tile>, blocks,
                               dim3(Tile::kStateThreads), kStatesBytes, stream,
                               "HopperStates", params);
      HopperStates<Tile>
          <<<blocks, Tile::kStateThreads, kStatesBytes, stream>>>(params);
      return LaunchStatus("HopperStates");
    };
    if (absl::Status e = launch_states(); !e.ok()) return e;
    if (params.passed)
      if (absl::Status e = LaunchPassStates(params.p, stream); !e.ok())
        return e;
    return LaunchDependent(&HopperScan<Tile>, scan_blocks,
                           dim3(Tile::kScanThreads), kScanBytes, stream,
                           "HopperScan", params);
  };
}

// Whether these kernels do a problem of 16-bit elements: by copies of 16 bytes,
// every row that is copied starts on a multiple of them.
inline bool TakesChunks(const SsdScan::Problem& p, const SsdScan::Args& a) {
  if (p.d_state % 8 != 0 || p.d_state > 256 ||
      (p.head_dim != 64 && p.head_dim != 128))
    return false;
  for (const Tensor* t : {&a.x, &a.B, &a.C, &a.z, &a.y}) {
    if (!*t) continue;
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0 ||
        t->strides[0] % 8 != 0 || t->strides[1] % 8 != 0)
      return false;
  }
  return true;
}

template <class T, class Way>
absl::StatusOr<Launch> PlanChunks(const SsdScan::Problem& p,
                                  const SsdScan::Args& a, Device& device,
                                  const Way& way) {
  const auto plan = [&]<int kP>() -> absl::StatusOr<Launch> {
    using Narrow = HopperTile<T, kP, 64>;
    using Wide = HopperTile<T, kP, 128>;
    if (p.d_state <= 128 && RunsHopper(reinterpret_cast<const void*>(
                                &HopperScan<typename Way::template Of<Wide>>)))
      return p.d_state <= 64 ? PlanHopper<Narrow>(p, a, device, way)
                             : PlanHopper<Wide>(p, a, device, way);
    if (p.d_state <= 64) return PlanTile<Tile<T, kP, 64>>(p, a, device, way);
    if (p.d_state <= 128) return PlanTile<Tile<T, kP, 128>>(p, a, device, way);
    return PlanTile<Tile<T, kP, 256>>(p, a, device, way);
  };
  if (p.head_dim == 64) return plan.template operator()<64>();
  return plan.template operator()<128>();
}

}  // namespace seqmark::ssd
