// SPDX-License-Identifier: Apache-2.0
//
// The scan with the gate and the norm's part in its epilogue, where y is in
// registers (see ops/ssd_scan; README.md here has the design). The convolution
// is a launch before it.
#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/mamba2_inner/shared_plans.h"
#include "ops/ssd_scan/plan_scan.cuh"

namespace seqmark {
namespace {

// Without a gate there is nothing to fuse.
bool IsGated(const Mamba2Inner::Problem& p) {
  return p.has_z && HoldsItsOutput(p);
}

Mamba2Inner::Problem WithoutNorm(Mamba2Inner::Problem p) {
  p.norm = false;
  return p;
}
SsdScan::Problem GatedProblem(const Mamba2Inner::Problem& p) {
  return Mamba2Inner::Scan(WithoutNorm(p));
}
SsdScan::Args GatedArgs(const Mamba2Inner::Problem& p,
                        const Mamba2Inner::Args& a, const Tensor& convolved) {
  return Mamba2Inner::ScanArgs(WithoutNorm(p), a, convolved);
}

absl::Status TakesGatedScan(const Mamba2Inner::Problem& p,
                            const Mamba2Inner::Args& a,
                            const SsdScan::Problem& scan,
                            const SsdScan::Args& args) {
  if (ssd::TakesChunks(scan, args) &&
      (!p.norm || reinterpret_cast<uintptr_t>(a.norm_weight.data) % 16 == 0))
    return absl::OkStatus();
  return absl::UnimplementedError(
      "needs head_dim 64 or 128, d_state a multiple of 8 up to 256, and rows "
      "on 16-byte boundaries");
}

// How a gated scan's kernels are called: see ssd::PlainScan.
struct GatedScan {
  const Mamba2Inner::Problem& p;
  const Mamba2Inner::Args& a;

  template <class Tile>
  using Of = ssd::Gated<Tile>;

  template <class T>
  ssd::GateParams<T> Gate() const {
    ssd::GateParams<T> gate = {};
    if (!p.norm) return gate;
    gate.weight = a.norm_weight.as<T>();
    gate.squares = a.squares.as<float>();
    gate.squares_strides = {a.squares.strides[0], a.squares.strides[1]};
    return gate;
  }
  template <class Tile>
  absl::Status Set(ssd::ParamsOf<Tile>& params) const {
    params.gate = Gate<typename Tile::Element>();
    return absl::OkStatus();
  }
  template <class Tile>
  absl::Status SetHopper(ssd::HopperParamsOf<Tile>& params) const {
    using T = typename Tile::Element;
    params.gate = Gate<T>();
    const auto z = ssd::MapHeads<T>(Mamba2Inner::Scan(p), a.z);
    if (!z.ok()) return z.status();
    params.z = *z;
    return absl::OkStatus();
  }
};

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
  return PlanConvolved(
      p, a, device, [&](const Tensor& convolved) -> absl::StatusOr<LaunchPart> {
        auto launch = PlanScan(p, a, convolved, device);
        if (!launch.ok()) return launch.status();
        return MakePart<SsdScan>(GatedProblem(p), GatedArgs(p, a, convolved),
                                 "mamba2_inner/native", *std::move(launch));
      });
}

const bool registered =
    AddProvider<Mamba2Inner>({.name = "native",
                              .device = DeviceKind::kCuda,
                              .dtypes = {DType::kBF16, DType::kF16},
                              .plan = Plan,
                              .supports = IsGated});

}  // namespace
}  // namespace seqmark
