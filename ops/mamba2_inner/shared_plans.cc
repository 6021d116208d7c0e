// SPDX-License-Identifier: Apache-2.0
#include "ops/mamba2_inner/shared_plans.h"

#include <memory>
#include <utility>
#include <vector>

#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {

absl::StatusOr<Launch> PlanConvolved(
    const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a, Device& device,
    const std::function<absl::StatusOr<LaunchPart>(const Tensor& convolved)>&
        plan_scan,
    LaunchPart last) {
  const Dims dims = {p.batch, p.seqlen, p.channels()};
  auto buffer = device.Allocate(NumElements(dims) * SizeOf(p.dtype),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto scratch = std::make_shared<Buffer>(*std::move(buffer));
  const Tensor convolved(scratch->data(), p.dtype, dims);
  auto convolution = PlanPart<CausalConv1d>(
      Mamba2Inner::Convolution(p), Mamba2Inner::ConvolutionArgs(a, convolved),
      device);
  if (!convolution.ok()) return convolution.status();
  auto scan = plan_scan(convolved);
  if (!scan.ok()) return scan.status();
  std::vector<LaunchPart> parts = {*std::move(convolution), *std::move(scan)};
  if (last.launch) parts.push_back(std::move(last));
  return LaunchSequence(std::move(parts), std::move(scratch));
}

absl::StatusOr<Launch> PlanComposed(const Mamba2Inner::Problem& p,
                                    const Mamba2Inner::Args& a, Device& device,
                                    PlanGate plan_gate) {
  LaunchPart norm;  // what is left of it
  if (p.norm) {
    auto gate = plan_gate(p, a, device);
    if (!gate.ok()) return gate.status();
    const int64_t rows = p.batch * p.seqlen;
    const int64_t elements = (p.has_z ? 3 : 2) * rows * p.d_inner();
    const Cost all = Mamba2Inner::GetCost(p);
    const Cost convolution = CausalConv1d::GetCost(Mamba2Inner::Convolution(p));
    const Cost scan = SsdScan::GetCost(Mamba2Inner::Scan(p));
    norm = {
        .op = RmsNorm::kName,
        .name = absl::StrCat(Mamba2Inner::kName, "/composed"),
        .launch = *std::move(gate),
        .cost = {.vector_flops = all.vector_flops - convolution.vector_flops -
                                 scan.vector_flops,
                 .special_ops = all.special_ops - convolution.special_ops -
                                scan.special_ops},
        .bytes = static_cast<double>(elements + p.d_inner()) *
                     static_cast<double>(SizeOf(p.dtype)) +
                 static_cast<double>(rows * p.parts()) * sizeof(float)};
  }
  return PlanConvolved(
      p, a, device,
      [&](const Tensor& convolved) {
        return PlanPart<SsdScan>(Mamba2Inner::Scan(p),
                                 Mamba2Inner::ScanArgs(p, a, convolved),
                                 device);
      },
      std::move(norm));
}

}  // namespace seqmark
