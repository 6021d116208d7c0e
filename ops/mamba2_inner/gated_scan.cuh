// SPDX-License-Identifier: Apache-2.0
//
// What the providers here with a fused scan share: the scan's problem with the
// gate in it, and how its kernels are called (ops/ssd_scan/plan_scan.cuh).
#pragma once

#include "ops/mamba2_inner/mamba2_inner.h"
#include "ops/ssd_scan/plan_scan.cuh"

namespace seqmark {

// Without a gate there is nothing to fuse; f16 may not hold a norm's y.
inline bool IsGated(const Mamba2Inner::Problem& p) {
  return p.has_z && (!p.norm || p.dtype != DType::kF16);
}

inline Mamba2Inner::Problem WithoutNorm(Mamba2Inner::Problem p) {
  p.norm = false;
  return p;
}
inline SsdScan::Problem GatedProblem(const Mamba2Inner::Problem& p) {
  return Mamba2Inner::Scan(WithoutNorm(p));
}
inline SsdScan::Args GatedArgs(const Mamba2Inner::Problem& p,
                               const Mamba2Inner::Args& a,
                               const Tensor& convolved) {
  return Mamba2Inner::ScanArgs(WithoutNorm(p), a, convolved);
}

inline absl::Status TakesGatedScan(const Mamba2Inner::Problem& p,
                                   const Mamba2Inner::Args& a,
                                   const SsdScan::Problem& scan,
                                   const SsdScan::Args& args) {
  if (ssd::TakesChunks(scan, args) &&
      (!p.norm || reinterpret_cast<uintptr_t>(a.norm_weight.data) % 16 == 0))
    return absl::OkStatus();
  return absl::UnimplementedError(
      "needs head_dim 64 or 128, d_state a multiple of 8 up to 256, and rows "
      "on "
      "16-byte boundaries");
}

// How a gated scan's kernels are called: see ssd::PlainScan.
struct GatedScan {
  const Mamba2Inner::Problem& p;
  const Mamba2Inner::Args& a;

  static constexpr bool kAnywhere = true;
  template <class Tile>
  using Of = ssd::Gated<Tile>;
  template <class Tile>
  using StatesOf = Tile;

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
    // Each warp that gates has copies of its own.
    const SsdScan::Problem scan = Mamba2Inner::Scan(p);
    const auto z = ssd::MapHeads<T>(scan, a.z, ssd::kGateTokens);
    const auto y = ssd::MapHeads<T>(scan, a.y, ssd::kGateTokens);
    if (!z.ok()) return z.status();
    if (!y.ok()) return y.status();
    params.z = *z;
    params.y = *y;
    return absl::OkStatus();
  }
};

}  // namespace seqmark
