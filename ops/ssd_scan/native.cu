// SPDX-License-Identifier: Apache-2.0
//
// The scan on CUDA: for 16-bit types by matrix units, wgmma on sm_90a
// (hopper_scan.cuh) and mma.sync on sm_80 and newer, and for f32, and 16-bit
// shapes they do not fit, by the recurrence itself (recurrence.cuh). README.md
// has the design, its limits and what was measured.
//
// A sequence is cut into as many segments as fill the GPU, a segment into
// chunks of 64 tokens. SegmentStates (states.cuh) finds what every segment but
// the last adds to the state, PassStates what each starts from, SegmentScan
// (scan.cuh) the outputs, its state in registers from chunk to chunk. Only one
// state a segment goes through memory, where the usual five kernels write and
// read one a chunk and C B^T besides.
//
// A token, per head with head_dim P = 64 and d_state N = 128, two heads a CTA:
//   bytes: x and y, 256, and B and C once in 40 heads or so from HBM, 512 / 80;
//     from L2 512 / 2 more. Reading x again in SegmentStates: up to 128.
//     About 22 KB for 80 heads: 5 ns at 4.28 TB/s.
//   flops: state C^T and (x w)^T B 2PN = 16.4 k each, x^T scores^T on and below
//     the diagonal 5 k, C B^T 10 k / 2: 43 k, and up to 16.4 k in
//     SegmentStates. About 3.5 M for 80 heads: 7 ns at the 500 TFLOP/s that
//     mma.sync can give.
//   shared memory: a warp's 32 rows use each B fragment twice, 128 bytes a
//     product, under the 200 that its bank width allows at that rate.
// So products limit it, then the barriers between phases, which a second CTA
// of the SM covers.
#include <algorithm>
#include <array>
#include <limits>

#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/ssd_scan/hopper_scan.cuh"
#include "ops/ssd_scan/hopper_states.cuh"
#include "ops/ssd_scan/recurrence.cuh"
#include "ops/ssd_scan/scan.cuh"
#include "ops/ssd_scan/ssd_scan.h"
#include "ops/ssd_scan/states.cuh"
#include "ops/ssd_scan/tensor_map.cuh"

namespace seqmark {
namespace {

template <class T>
ssd::Params<T> MakeParams(const SsdScan::Problem& p, const SsdScan::Args& a) {
  const auto strides = [](const Tensor& t) {
    return t ? ssd::Strides{t.strides[0], t.strides[1]} : ssd::Strides{};
  };
  ssd::Params<T> out = {};
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
  out.segments = 1;
  return out;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lets a kernel use `bytes` of shared memory; how many CTAs the GPU then runs
// at once.
absl::StatusOr<int> Prepare(const void* kernel, int threads, size_t bytes) {
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
// its first loads), a chunk of SegmentStates, which in most problems needs no
// more than `memory` chunks however long a segment is, and PassStates, needed
// for more than `few` segments.
struct SegmentCosts {
  double start;
  double states_chunk;
  int64_t memory;
  double pass;
  int64_t few;
};
constexpr SegmentCosts kMmaCosts = {2, 1.0 / 3, 16, 0, 1};
// The longest of many CTAs is what counts there, so no memory is short.
constexpr SegmentCosts kHopperCosts = {3.5, 0.35, 1 << 30, 4, 6};

// Chunks a segment: waves of CTAs times their length.
int64_t SegmentChunks(int64_t units, int64_t chunks, int64_t ctas,
                      const SegmentCosts& costs) {
  constexpr int64_t kMaxSegments = 256;
  int64_t best = chunks;
  double best_time = std::numeric_limits<double>::infinity();
  for (int64_t segments = 1; segments <= std::min(chunks, kMaxSegments);
       ++segments) {
    const int64_t length = CeilDiv(chunks, segments);
    const int64_t needed = CeilDiv(chunks, length);
    double time = CeilDiv(units * needed, ctas) * (costs.start + length);
    if (needed > 1)
      time +=
          CeilDiv(units * (needed - 1), ctas) *
          (costs.start + costs.states_chunk * std::min(length, costs.memory));
    if (needed > costs.few) time += costs.pass;
    if (time < best_time) {
      best_time = time;
      best = length;
    }
  }
  return best;
}

// Cuts the problem into segments and gives them memory for their states.
template <class T>
absl::StatusOr<std::shared_ptr<Buffer>> PlanSegments(
    const SsdScan::Problem& p, int64_t units, int64_t ctas,
    const SegmentCosts& costs, Device& device, ssd::Params<T>& params) {
  const int64_t chunks = CeilDiv(p.seqlen, ssd::kChunk);
  params.segment_chunks =
      static_cast<int>(SegmentChunks(units, chunks, ctas, costs));
  params.segments = static_cast<int>(CeilDiv(chunks, params.segment_chunks));
  if (units * params.segments > std::numeric_limits<int>::max())
    return absl::UnimplementedError("more blocks than a grid has");
  if (params.segments == 1) return nullptr;
  const int64_t segments = p.batch * params.segments * p.heads;
  auto buffer =
      device.Allocate(segments * (p.head_dim * p.d_state + 1) * sizeof(float),
                      MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto workspace = std::make_shared<Buffer>(*std::move(buffer));
  params.states = static_cast<float*>(workspace->data());
  params.decays = params.states + segments * p.head_dim * p.d_state;
  return workspace;
}

template <class T>
absl::Status LaunchPassStates(const ssd::Params<T>& params,
                              cudaStream_t stream) {
  const int64_t quads = static_cast<int64_t>(params.batch) * params.heads *
                        params.head_dim * params.d_state / 4;
  return LaunchDependent(
      &ssd::PassStates<T>,
      dim3(static_cast<unsigned>(CeilDiv(quads, ssd::kPassThreads))),
      dim3(ssd::kPassThreads), 0, stream, "ssd::PassStates", params);
}

template <class Tile>
absl::StatusOr<Launch> PlanTile(const SsdScan::Problem& p,
                                const SsdScan::Args& a, Device& device) {
  using T = typename Tile::Element;
  constexpr size_t kStatesBytes = sizeof(ssd::StateSharedMemory<Tile>);
  constexpr size_t kScanBytes = sizeof(ssd::ScanSharedMemory<Tile>);
  static_assert(kScanBytes <= 99 * 1024);
  const auto states =
      Prepare(reinterpret_cast<const void*>(&ssd::SegmentStates<Tile>),
              Tile::kThreads, kStatesBytes);
  if (!states.ok()) return states.status();
  const auto ctas =
      Prepare(reinterpret_cast<const void*>(&ssd::SegmentScan<Tile>),
              Tile::kThreads, kScanBytes);
  if (!ctas.ok()) return ctas.status();

  ssd::Params<T> params = MakeParams<T>(p, a);
  const int64_t units =
      p.batch * p.groups * CeilDiv(p.heads_per_group(), Tile::kHeads);
  auto workspace = PlanSegments(p, units, *ctas, kMmaCosts, device, params);
  if (!workspace.ok()) return workspace.status();
  return [params, units, workspace = *workspace](Stream s) -> absl::Status {
    const cudaStream_t stream = AsCudaStream(s);
    const auto blocks = [](int64_t n) { return static_cast<unsigned>(n); };
    if (params.segments > 1) {
      ssd::SegmentStates<Tile>
          <<<blocks(units * (params.segments - 1)), Tile::kThreads,
             kStatesBytes, stream>>>(params);
      if (absl::Status e = LaunchStatus("ssd::SegmentStates"); !e.ok())
        return e;
      if (absl::Status e = LaunchPassStates(params, stream); !e.ok()) return e;
    }
    ssd::SegmentScan<Tile><<<blocks(units * params.segments), Tile::kThreads,
                             kScanBytes, stream>>>(params);
    return LaunchStatus("ssd::SegmentScan");
  };
}

// Whether this GPU runs `kernel` of hopper_scan.cuh: builds without sm_90a have
// it empty.
bool RunsHopper(const void* kernel) {
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
  return ssd::MakeTensorMap<T>(
      t.as<T>(), std::array{p.heads * p.head_dim, p.seqlen, p.batch},
      std::array{t.strides[1], batch},
      std::array<uint32_t, 3>{64, ssd::kChunk, 1});
}

template <class T>
absl::StatusOr<CUtensorMap> MapGroups(const SsdScan::Problem& p,
                                      const Tensor& t) {
  const int64_t batch = p.batch > 1 ? t.strides[0] : p.seqlen * t.strides[1];
  return ssd::MakeTensorMap<T>(
      t.as<T>(), std::array{p.d_state, p.groups, p.seqlen, p.batch},
      std::array{p.d_state, t.strides[1], batch},
      std::array<uint32_t, 4>{64, 1, ssd::kChunk, 1});
}

template <class Tile>
absl::StatusOr<Launch> PlanHopper(const SsdScan::Problem& p,
                                  const SsdScan::Args& a, Device& device) {
  using T = typename Tile::Element;
  constexpr int kStatesBytes = ssd::kHopperBytes<ssd::HopperStateShared<Tile>>;
  constexpr int kScanBytes = ssd::kHopperBytes<ssd::HopperScanShared<Tile>>;
  const auto states =
      Prepare(reinterpret_cast<const void*>(&ssd::HopperStates<Tile>),
              Tile::kStateThreads, kStatesBytes);
  if (!states.ok()) return states.status();
  const auto ctas =
      Prepare(reinterpret_cast<const void*>(&ssd::HopperScan<Tile>),
              Tile::kScanThreads, kScanBytes);
  if (!ctas.ok()) return ctas.status();

  ssd::HopperParams<T> params = {.p = MakeParams<T>(p, a)};
  const int64_t units =
      p.batch * p.groups * CeilDiv(p.heads_per_group(), Tile::kHeads);
  auto workspace =
      PlanSegments(p, units, *ctas, kHopperCosts, device, params.p);
  if (!workspace.ok()) return workspace.status();
  // The scan sums up the states of few segments itself.
  params.passed = params.p.segments > kHopperCosts.few;
  const auto x = MapHeads<T>(p, a.x), y = MapHeads<T>(p, a.y);
  const auto B = MapGroups<T>(p, a.B), C = MapGroups<T>(p, a.C);
  for (const auto* map : {&x, &y, &B, &C})
    if (!map->ok()) return map->status();
  params.x = *x;
  params.y = *y;
  params.B = *B;
  params.C = *C;
  return [params, units, workspace = *workspace](Stream s) -> absl::Status {
    const cudaStream_t stream = AsCudaStream(s);
    const auto blocks = [&](int segments) {
      return dim3(static_cast<unsigned>(units * segments));
    };
    const int segments = params.p.segments;
    if (segments > 1) {
      ssd::HopperStates<Tile>
          <<<blocks(segments - 1), Tile::kStateThreads, kStatesBytes, stream>>>(
              params);
      if (absl::Status e = LaunchStatus("ssd::HopperStates"); !e.ok()) return e;
      if (params.passed)
        if (absl::Status e = LaunchPassStates(params.p, stream); !e.ok())
          return e;
      return LaunchDependent(&ssd::HopperScan<Tile>, blocks(segments),
                             dim3(Tile::kScanThreads), kScanBytes, stream,
                             "ssd::HopperScan", params);
    }
    ssd::HopperScan<Tile>
        <<<blocks(1), Tile::kScanThreads, kScanBytes, stream>>>(params);
    return LaunchStatus("ssd::HopperScan");
  };
}

template <class T, int kColumns>
absl::StatusOr<Launch> PlanRecurrence(const SsdScan::Problem& p,
                                      const SsdScan::Args& a) {
  constexpr size_t kBytes = sizeof(ssd::RecurrenceSharedMemory<kColumns>);
  constexpr int kThreads = 32 * ssd::kRecurrenceWarps;
  const auto ctas =
      Prepare(reinterpret_cast<const void*>(&ssd::Recurrence<T, kColumns>),
              kThreads, kBytes);
  if (!ctas.ok()) return ctas.status();
  const int64_t blocks =
      p.batch * p.heads * CeilDiv(p.head_dim, ssd::kRecurrenceRows);
  return [params = MakeParams<T>(p, a), blocks](Stream s) {
    ssd::Recurrence<T, kColumns>
        <<<static_cast<unsigned>(blocks), kThreads, kBytes, AsCudaStream(s)>>>(
            params);
    return LaunchStatus("ssd::Recurrence");
  };
}

template <class T>
absl::StatusOr<Launch> PlanAnyShape(const SsdScan::Problem& p,
                                    const SsdScan::Args& a) {
  if (p.d_state <= 64) return PlanRecurrence<T, 2>(p, a);
  if (p.d_state <= 128) return PlanRecurrence<T, 4>(p, a);
  if (p.d_state <= 256) return PlanRecurrence<T, 8>(p, a);
  return absl::UnimplementedError(
      absl::StrCat("needs d_state up to 256, not ", p.d_state));
}

// 16-byte copies: every row that is copied starts on 16 bytes.
bool Aligned(const SsdScan::Args& a) {
  for (const Tensor* t : {&a.x, &a.B, &a.C, &a.z, &a.y}) {
    if (!*t) continue;
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0 ||
        t->strides[0] % 8 != 0 || t->strides[1] % 8 != 0)
      return false;
  }
  return true;
}

template <class T>
absl::StatusOr<Launch> PlanChunked(const SsdScan::Problem& p,
                                   const SsdScan::Args& a, Device& device) {
  if (p.d_state % 8 != 0 || p.d_state > 256 || !Aligned(a) ||
      (p.head_dim != 64 && p.head_dim != 128))
    return PlanAnyShape<T>(p, a);
  const auto plan = [&]<int kP>() -> absl::StatusOr<Launch> {
    using Narrow = ssd::HopperTile<T, kP, 64>;
    using Wide = ssd::HopperTile<T, kP, 128>;
    if (p.d_state <= 128 &&
        RunsHopper(reinterpret_cast<const void*>(&ssd::HopperScan<Wide>)))
      return p.d_state <= 64 ? PlanHopper<Narrow>(p, a, device)
                             : PlanHopper<Wide>(p, a, device);
    if (p.d_state <= 64) return PlanTile<ssd::Tile<T, kP, 64>>(p, a, device);
    if (p.d_state <= 128) return PlanTile<ssd::Tile<T, kP, 128>>(p, a, device);
    return PlanTile<ssd::Tile<T, kP, 256>>(p, a, device);
  };
  if (p.head_dim == 64) return plan.template operator()<64>();
  return plan.template operator()<128>();
}

absl::StatusOr<Launch> Plan(const SsdScan::Problem& p, const SsdScan::Args& a,
                            Device& device) {
  switch (p.dtype) {
    case DType::kBF16:
      return PlanChunked<__nv_bfloat16>(p, a, device);
    case DType::kF16:
      return PlanChunked<__half>(p, a, device);
    default:
      break;
  }
  return PlanAnyShape<float>(p, a);
}

const bool registered =
    AddProvider<SsdScan>({.name = "native",
                          .device = DeviceKind::kCuda,
                          .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                          .plan = Plan});

}  // namespace
}  // namespace seqmark
