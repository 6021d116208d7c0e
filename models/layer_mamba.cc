// SPDX-License-Identifier: Apache-2.0
//
// Mamba-1 (Gu and Dao 2023, arXiv:2312.00752, figure 3) and Mamba-2 (Dao and
// Gu 2024, arXiv:2405.21060, section 7): projection, short convolution, scan,
// gate, projection. Slices of the fused projections are read where they lie.
#include <cmath>

#include "models/forward.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan_step/selective_scan_step.h"
#include "ops/ssd_scan/ssd_scan.h"
#include "ops/ssd_step/ssd_step.h"

namespace seqmark {
namespace {

// Where the scan reads the state and where it writes it.
std::pair<Tensor, Tensor> ScanStates(ForwardPass& pass, const SubLayer& layer) {
  RotatingStates& states = pass.memory().state.ssm;
  const Tensor before = states.now(layer.ssm);
  const bool in_place = pass.shape().past == 0 || pass.shape().step;
  return {before, in_place ? before : states.Next(layer.ssm)};
}

}  // namespace

absl::Status Mamba1Scan(ForwardPass& pass, const SubLayer& layer,
                        const LayerInput& input, const Tensor& y) {
  const Mamba1Config& m = pass.config().mamba1;
  const PassShape& shape = pass.shape();
  const Weights& weights = pass.memory().weights;
  const std::string name = ForwardPass::Prefix(layer) + "mamba.";
  const Tensor xz = pass.Temporary(2 * m.d_inner);
  Tensor x = pass.Temporary(m.d_inner);
  const Tensor dbc = pass.Temporary(m.dt_rank + 2 * m.d_state);
  const Tensor dt = pass.Temporary(m.d_inner);
  absl::Status status = pass.LinearAndConvolution(
      name + "in_proj", name + "conv", layer, input, xz, 0, x);
  if (status.ok()) status.Update(pass.Linear(name + "x_proj", x, dbc));
  const Tensor dt_in = Slice(dbc, 0, m.dt_rank);
  const Tensor B = Slice(dbc, m.dt_rank, m.d_state);
  const Tensor C = Slice(dbc, m.dt_rank + m.d_state, m.d_state);
  if (m.inner_norms) {
    if (status.ok()) status.Update(pass.InnerNorm(name + "dt_norm", dt_in));
    if (status.ok()) status.Update(pass.InnerNorm(name + "B_norm", B));
    if (status.ok()) status.Update(pass.InnerNorm(name + "C_norm", C));
  }
  if (status.ok()) status.Update(pass.Linear(name + "dt_proj", dt_in, dt));
  if (!status.ok()) return status;

  const auto [before, after] = ScanStates(pass, layer);
  const auto fill = [&](auto& args, const auto& shaped) {
    args.x = shaped(x);
    args.dt = shaped(dt);
    args.A = weights.Find(name + "A");
    args.B = shaped(B);
    args.C = shaped(C);
    args.D = weights.Find(name + "D");
    args.z = shaped(Slice(xz, m.d_inner, m.d_inner));
    args.dt_bias = weights.Find(name + "dt_bias");
    args.y = shaped(y);
  };
  if (shape.step) {
    auto problem = pass.Make<SelectiveScanStep::Problem>();
    problem.seqlen = shape.past + 1;
    problem.d_inner = m.d_inner;
    problem.d_state = m.d_state;
    SelectiveScanStep::Args args;
    fill(args, WithoutTokens);
    args.state = before;
    args.state_out = after;
    status.Update(pass.composer().Add<SelectiveScanStep>(OpClass::kSsmScan,
                                                         problem, args));
  } else {
    auto problem = pass.Make<SelectiveScan::Problem>();
    problem.d_inner = m.d_inner;
    problem.d_state = m.d_state;
    problem.has_initial_state = shape.past > 0;
    SelectiveScan::Args args;
    fill(args, [](const Tensor& t) { return t; });
    if (problem.has_initial_state) args.initial_state = before;
    args.final_state = after;
    status.Update(
        pass.composer().Add<SelectiveScan>(OpClass::kSsmScan, problem, args));
  }
  return status;
}

namespace {

absl::Status Mamba1(ForwardPass& pass, const SubLayer& layer,
                    const LayerInput& input, const Tensor& delta) {
  const Tensor y = pass.Temporary(pass.config().mamba1.d_inner);
  absl::Status status = Mamba1Scan(pass, layer, input, y);
  if (status.ok())
    status.Update(
        pass.Linear(ForwardPass::Prefix(layer) + "mamba.out_proj", y, delta));
  return status;
}

absl::Status Mamba2(ForwardPass& pass, const SubLayer& layer,
                    const LayerInput& input, const Tensor& delta) {
  const Mamba2Config& m = pass.config().mamba2;
  if (std::isfinite(m.dt_max))
    return absl::UnimplementedError("a limit on dt from above");
  const PassShape& shape = pass.shape();
  const Weights& weights = pass.memory().weights;
  const std::string name = ForwardPass::Prefix(layer) + "mamba.";
  const int64_t inner = m.d_inner(), channels = m.conv_channels();
  const int64_t bc = m.groups * m.d_state;
  const Tensor projected = pass.Temporary(inner + channels + m.heads);
  Tensor xbc = pass.Temporary(channels);
  const Tensor y = pass.Temporary(inner);
  const Tensor z = Slice(projected, 0, inner);
  // In a step the scan's kernel gates: it is one, and its outputs are few.
  const bool gates = !m.gated_norm || (shape.step && !m.norm_before_gate);
  absl::Status status = pass.LinearAndConvolution(
      name + "in_proj", name + "conv", layer, input, projected, inner, xbc);
  if (!status.ok()) return status;

  const auto [before, after] = ScanStates(pass, layer);
  const auto fill = [&](auto& problem, auto& args, const auto& shaped) {
    problem.heads = m.heads;
    problem.head_dim = m.head_dim;
    problem.groups = m.groups;
    problem.d_state = m.d_state;
    problem.has_z = gates;
    args.x = shaped(Heads(Slice(xbc, 0, inner), m.heads, m.head_dim));
    args.dt = shaped(Slice(projected, inner + channels, m.heads));
    args.A = weights.Find(name + "A");
    args.B = shaped(Heads(Slice(xbc, inner, bc), m.groups, m.d_state));
    args.C = shaped(Heads(Slice(xbc, inner + bc, bc), m.groups, m.d_state));
    args.D = weights.Find(name + "D");
    args.dt_bias = weights.Find(name + "dt_bias");
    if (gates) args.z = shaped(Heads(z, m.heads, m.head_dim));
    args.y = shaped(Heads(y, m.heads, m.head_dim));
  };
  if (shape.step) {
    auto problem = pass.Make<SsdStep::Problem>();
    SsdStep::Args args;
    fill(problem, args, WithoutTokens);
    problem.seqlen = shape.past + 1;
    args.state = before;
    args.state_out = after;
    status.Update(
        pass.composer().Add<SsdStep>(OpClass::kSsmScan, problem, args));
  } else {
    auto problem = pass.Make<SsdScan::Problem>();
    SsdScan::Args args;
    fill(problem, args, [](const Tensor& t) { return t; });
    problem.has_initial_state = shape.past > 0;
    problem.dt_min = static_cast<float>(m.dt_min);  // of prompts alone
    if (problem.has_initial_state) args.initial_state = before;
    args.final_state = after;
    status.Update(
        pass.composer().Add<SsdScan>(OpClass::kSsmScan, problem, args));
  }
  if (m.gated_norm && gates && status.ok())
    return pass.Linear(name + "out_proj",
                       {.u = y,
                        .weight = weights.Find(name + "norm.weight"),
                        .x = y,
                        .groups = m.norm_groups,
                        .epsilon = m.norm_epsilon},
                       delta);
  if (m.gated_norm && status.ok()) {
    auto problem = pass.Make<RmsNorm::Problem>();
    problem.width = inner;
    problem.groups = m.norm_groups;
    problem.gate = m.norm_before_gate ? NormGate::kAfter : NormGate::kBefore;
    problem.epsilon = static_cast<float>(m.norm_epsilon);
    status.Update(pass.composer().Add<RmsNorm>(
        OpClass::kNorm, problem,
        {.x = y,
         .gate = z,
         .weight = weights.Find(name + "norm.weight"),
         .y = y}));
  }
  if (status.ok()) status.Update(pass.Linear(name + "out_proj", y, delta));
  return status;
}

}  // namespace

absl::Status MambaLayer(ForwardPass& pass, const SubLayer& layer,
                        const LayerInput& input, const Tensor& delta) {
  return pass.config().ssm.version == 1 ? Mamba1(pass, layer, input, delta)
                                        : Mamba2(pass, layer, input, delta);
}

}  // namespace seqmark
