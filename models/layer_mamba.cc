// SPDX-License-Identifier: Apache-2.0
//
// Mamba-1 (Gu and Dao 2023, arXiv:2312.00752, figure 3) and Mamba-2 (Dao and
// Gu 2024, arXiv:2405.21060, section 7): projection, short convolution, scan,
// gate, projection. Slices of the fused projections are read where they lie.
#include <cmath>

#include "models/forward.h"
#include "ops/mamba2_inner/mamba2_inner.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan_step/selective_scan_step.h"
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

// The inside of a Mamba-2 layer: `projected` is the input projection's output,
// d_inner of z, the convolution's channels, and a step for each head.
struct Mamba2Inside {
  const Mamba2Config& m;
  std::string name;  // of weights
  Tensor projected;  // (batch, length, d_inner + channels + heads)
  Tensor y;          // (batch, length, d_inner)

  Tensor z() const { return Slice(projected, 0, m.d_inner()); }
  Tensor dt() const {
    return Slice(projected, m.d_inner() + m.conv_channels(), m.heads);
  }
};

template <class Problem>
void SetAxes(const Mamba2Config& m, Problem& problem) {
  problem.heads = m.heads;
  problem.head_dim = m.head_dim;
  problem.groups = m.groups;
  problem.d_state = m.d_state;
}

// One token: the projection's launch may have the convolution too, and the
// scan's gates where `gates`, as it is one and its outputs are few.
absl::Status Mamba2Step(ForwardPass& pass, const SubLayer& layer,
                        const LayerInput& input, const Mamba2Inside& inside,
                        bool gates) {
  const Mamba2Config& m = inside.m;
  const Weights& weights = pass.memory().weights;
  const std::string& name = inside.name;
  const int64_t inner = m.d_inner(), bc = m.groups * m.d_state;
  Tensor xbc = pass.Temporary(m.conv_channels());
  if (absl::Status s =
          pass.LinearAndConvolution(name + "in_proj", name + "conv", layer,
                                    input, inside.projected, inner, xbc);
      !s.ok())
    return s;
  const auto heads = [](const Tensor& t, int64_t count, int64_t dim) {
    return WithoutTokens(Heads(t, count, dim));
  };
  auto problem = pass.Make<SsdStep::Problem>();
  SetAxes(m, problem);
  problem.seqlen = pass.shape().past + 1;
  problem.has_z = gates;
  const auto [before, after] = ScanStates(pass, layer);
  SsdStep::Args args;
  args.x = heads(Slice(xbc, 0, inner), m.heads, m.head_dim);
  args.dt = WithoutTokens(inside.dt());
  args.A = weights.Find(name + "A");
  args.B = heads(Slice(xbc, inner, bc), m.groups, m.d_state);
  args.C = heads(Slice(xbc, inner + bc, bc), m.groups, m.d_state);
  args.D = weights.Find(name + "D");
  args.dt_bias = weights.Find(name + "dt_bias");
  if (gates) args.z = heads(inside.z(), m.heads, m.head_dim);
  args.y = heads(inside.y, m.heads, m.head_dim);
  args.state = before;
  args.state_out = after;
  return pass.composer().Add<SsdStep>(OpClass::kSsmScan, problem, args);
}

// A prompt's tokens; `left` is where the norm's squares go if the norm is left
// to the next one.
absl::Status Mamba2Prompt(ForwardPass& pass, const SubLayer& layer,
                          const LayerInput& input, const Mamba2Inside& inside,
                          bool gates, const RowScale* left) {
  const Mamba2Config& m = inside.m;
  const Weights& weights = pass.memory().weights;
  const std::string& name = inside.name;
  if (absl::Status s = pass.Linear(name + "in_proj", input, inside.projected);
      !s.ok())
    return s;
  const bool starts = pass.shape().past == 0;
  auto problem = pass.Make<Mamba2Inner::Problem>();
  SetAxes(m, problem);
  problem.conv_width = m.d_conv;
  problem.has_z = gates;
  problem.norm = left != nullptr;
  problem.has_initial_states = !starts;
  problem.dt_min = static_cast<float>(m.dt_min);  // of prompts alone
  Mamba2Inner::Args args;
  args.xbc = Slice(inside.projected, m.d_inner(), m.conv_channels());
  args.conv_weight = weights.Find(name + "conv.weight");
  args.conv_bias = weights.Find(name + "conv.bias");
  problem.conv_bias = static_cast<bool>(args.conv_bias);
  args.dt = inside.dt();
  args.A = weights.Find(name + "A");
  args.D = weights.Find(name + "D");
  args.dt_bias = weights.Find(name + "dt_bias");
  if (gates) args.z = inside.z();
  args.y = inside.y;
  if (left != nullptr) {
    args.norm_weight = weights.Find(name + "norm.weight");
    args.squares = left->squares;
  }
  RotatingStates& inputs = pass.memory().state.conv;
  const Tensor last_inputs = inputs.now(layer.ssm);
  args.conv_state_out = starts ? last_inputs : inputs.Next(layer.ssm);
  const auto [before, after] = ScanStates(pass, layer);
  args.state_out = after;
  if (!starts) {
    args.conv_state = last_inputs;
    args.state = before;
  }
  return pass.composer().Add<Mamba2Inner>(OpClass::kSsmScan, problem, args);
}

// Whether the norm after the gate is one factor of a token, up to its weights,
// and can be left to who reads the output projection's rows. What is not yet
// scaled may be too large for f16.
bool CanLeaveNorm(const ForwardPass& pass) {
  const Mamba2Config& m = pass.config().mamba2;
  return pass.config().norm == NormKind::kRms && !pass.shape().step &&
         pass.shape().dtype != DType::kF16 && m.gated_norm &&
         !m.norm_before_gate && m.norm_groups == 1 && !m.proj_bias;
}

absl::Status Mamba2(ForwardPass& pass, const SubLayer& layer,
                    const LayerInput& input, const Tensor& delta,
                    RowScale* left) {
  const Mamba2Config& m = pass.config().mamba2;
  if (std::isfinite(m.dt_max))
    return absl::UnimplementedError("a limit on dt from above");
  const int64_t inner = m.d_inner();
  const Mamba2Inside inside = {
      .m = m,
      .name = ForwardPass::Prefix(layer) + "mamba.",
      .projected = pass.Temporary(inner + m.conv_channels() + m.heads),
      .y = pass.Temporary(inner)};
  const bool step = pass.shape().step;
  const bool leaves = left != nullptr && left->squares;
  // Between the gate and a norm of its own y would have to fit f16.
  const bool gates =
      !m.gated_norm ||
      (!m.norm_before_gate && (step || pass.shape().dtype != DType::kF16));
  absl::Status status = step ? Mamba2Step(pass, layer, input, inside, gates)
                             : Mamba2Prompt(pass, layer, input, inside, gates,
                                            leaves ? left : nullptr);
  if (!status.ok()) return status;
  if (leaves) {
    left->width = inner;
    left->epsilon = m.norm_epsilon;
  }
  const std::string out_proj = inside.name + "out_proj";
  const Tensor& y = inside.y;
  if (!m.gated_norm || leaves) return pass.Linear(out_proj, y, delta);
  const Tensor weight = pass.memory().weights.Find(inside.name + "norm.weight");
  if (gates)
    return pass.Linear(out_proj,
                       {.u = y,
                        .weight = weight,
                        .x = y,
                        .groups = m.norm_groups,
                        .epsilon = m.norm_epsilon},
                       delta);
  auto problem = pass.Make<RmsNorm::Problem>();
  problem.width = inner;
  problem.groups = m.norm_groups;
  problem.gate = m.norm_before_gate ? NormGate::kAfter : NormGate::kBefore;
  problem.epsilon = static_cast<float>(m.norm_epsilon);
  status = pass.composer().Add<RmsNorm>(
      OpClass::kNorm, problem,
      {.x = y, .gate = inside.z(), .weight = weight, .y = y});
  if (status.ok()) status.Update(pass.Linear(out_proj, y, delta));
  return status;
}

}  // namespace

RowScale PlaceRowScale(ForwardPass& pass) {
  RowScale place;
  if (pass.config().ssm.version != 2 || !CanLeaveNorm(pass)) return place;
  Mamba2Inner::Problem problem;
  SetAxes(pass.config().mamba2, problem);
  const PassShape& shape = pass.shape();
  place.squares = pass.memory().activations.Place(
      DType::kF32, {shape.batch, shape.length, problem.parts()});
  return place;
}

absl::Status MambaLayer(ForwardPass& pass, const SubLayer& layer,
                        const LayerInput& input, const Tensor& delta,
                        RowScale* left) {
  if (pass.config().ssm.version == 2)
    return Mamba2(pass, layer, input, delta, left);
  return Mamba1(pass, layer, input, delta);
}

}  // namespace seqmark
