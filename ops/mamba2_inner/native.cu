// SPDX-License-Identifier: Apache-2.0
//
// The scan with the gate and the norm's part in its epilogue, where y is in
// registers (see ops/ssd_scan; README.md here has the design). The convolution
// is a launch before it.
#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/mamba2_inner/gated_scan.cuh"
#include "ops/plan_part.h"

namespace seqmark {
namespace {

// The scan of what the convolution gives.
absl::StatusOr<Launch> PlanScan(const Mamba2Inner::Problem& p,
                                const Mamba2Inner::Args& a,
                                const Tensor& convolved, Device& device) {
  const SsdScan::Problem problem = GatedProblem(p);
  const SsdScan::Args args = GatedArgs(p, a, convolved);
  if (absl::Status s = TakesGatedScan(p, a, problem, args); !s.ok()) return s;
  const GatedScan way = {p, a};
  return p.dtype == DType::kF16
             ? ssd::PlanChunks<__half>(problem, args, device, way)
             : ssd::PlanChunks<__nv_bfloat16>(problem, args, device, way);
}

absl::StatusOr<Launch> Plan(const Mamba2Inner::Problem& p,
                            const Mamba2Inner::Args& a, Device& device) {
  const Dims dims = {p.batch, p.seqlen, p.channels()};
  auto buffer = device.Allocate(NumElements(dims) * SizeOf(p.dtype),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto scratch = std::make_shared<Buffer>(*std::move(buffer));
  const Tensor convolved(scratch->data(), p.dtype, dims);
  const auto convolution = PlanPart<CausalConv1d>(
      Mamba2Inner::Convolution(p), Mamba2Inner::ConvolutionArgs(a, convolved),
      device);
  if (!convolution.ok()) return convolution.status();
  const auto scan = PlanScan(p, a, convolved, device);
  if (!scan.ok()) return scan.status();
  return [convolution = *convolution, scan = *scan, scratch](Stream stream) {
    absl::Status status = convolution(stream);
    if (status.ok()) status = scan(stream);
    return status;
  };
}

const bool registered =
    AddProvider<Mamba2Inner>({.name = "native",
                              .device = DeviceKind::kCuda,
                              .dtypes = {DType::kBF16, DType::kF16},
                              .plan = Plan,
                              .supports = IsGated});

}  // namespace
}  // namespace seqmark
