// SPDX-License-Identifier: Apache-2.0
#include "ops/mamba2_inner/shared_plans.h"

#include <memory>

#include "ops/plan_part.h"

namespace seqmark {

absl::StatusOr<Launch> PlanConvolved(
    const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a, Device& device,
    const std::function<absl::StatusOr<Launch>(const Tensor& convolved)>&
        plan_scan) {
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
  const auto scan = plan_scan(convolved);
  if (!scan.ok()) return scan.status();
  return [convolution = *convolution, scan = *scan, scratch](Stream stream) {
    absl::Status status = convolution(stream);
    if (status.ok()) status = scan(stream);
    return status;
  };
}

absl::StatusOr<Launch> PlanComposed(const Mamba2Inner::Problem& p,
                                    const Mamba2Inner::Args& a, Device& device,
                                    PlanGate plan_gate) {
  auto scan = PlanConvolved(p, a, device, [&](const Tensor& convolved) {
    return PlanPart<SsdScan>(Mamba2Inner::Scan(p),
                             Mamba2Inner::ScanArgs(p, a, convolved), device);
  });
  if (!scan.ok() || !p.norm) return scan;
  const auto gate = plan_gate(p, a, device);
  if (!gate.ok()) return gate.status();
  return [scan = *std::move(scan), gate = *gate](Stream stream) {
    absl::Status status = scan(stream);
    if (status.ok()) status = gate(stream);
    return status;
  };
}

}  // namespace seqmark
