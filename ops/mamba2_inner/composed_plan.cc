// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "ops/mamba2_inner/composed.h"
#include "ops/plan_part.h"

namespace seqmark {

absl::StatusOr<Launch> PlanComposed(const Mamba2Inner::Problem& p,
                                    const Mamba2Inner::Args& a, Device& device,
                                    PlanGate plan_gate) {
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
  const auto scan = PlanPart<SsdScan>(
      Mamba2Inner::Scan(p), Mamba2Inner::ScanArgs(p, a, convolved), device);
  if (!scan.ok()) return scan.status();
  Launch gate;
  if (p.norm) {
    auto planned = plan_gate(p, a, device);
    if (!planned.ok()) return planned.status();
    gate = *std::move(planned);
  }
  return
      [convolution = *convolution, scan = *scan, gate, scratch](Stream stream) {
        absl::Status status = convolution(stream);
        if (status.ok()) status = scan(stream);
        if (status.ok() && gate) status = gate(stream);
        return status;
      };
}

}  // namespace seqmark
