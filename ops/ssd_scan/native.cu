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
// read one a chunk and C B^T besides. On sm_90a C B^T does too, once for a
// group of many heads (hopper_products.cuh).
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
#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/ssd_scan/plan_scan.cuh"
#include "ops/ssd_scan/recurrence.cuh"
#include "ops/ssd_scan/ssd_scan.h"

namespace seqmark {
namespace {

template <class T, int kColumns>
absl::StatusOr<Launch> PlanRecurrence(const SsdScan::Problem& p,
                                      const SsdScan::Args& a) {
  constexpr size_t kBytes = sizeof(ssd::RecurrenceSharedMemory<kColumns>);
  constexpr int kThreads = 32 * ssd::kRecurrenceWarps;
  const auto ctas =
      ssd::Prepare(reinterpret_cast<const void*>(&ssd::Recurrence<T, kColumns>),
                   kThreads, kBytes);
  if (!ctas.ok()) return ctas.status();
  const int64_t blocks =
      p.batch * p.heads * ssd::CeilDiv(p.head_dim, ssd::kRecurrenceRows);
  return [params = ssd::MakeParams<T>(p, a), blocks](Stream s) {
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

template <class T>
absl::StatusOr<Launch> PlanAnyType(const SsdScan::Problem& p,
                                   const SsdScan::Args& a, Device& device) {
  if (!ssd::TakesChunks(p, a)) return PlanAnyShape<T>(p, a);
  return ssd::PlanChunks<T>(p, a, device, ssd::PlainScan());
}

absl::StatusOr<Launch> Plan(const SsdScan::Problem& p, const SsdScan::Args& a,
                            Device& device) {
  switch (p.dtype) {
    case DType::kBF16:
      return PlanAnyType<__nv_bfloat16>(p, a, device);
    case DType::kF16:
      return PlanAnyType<__half>(p, a, device);
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
