// SPDX-License-Identifier: Apache-2.0
#include "ops/mamba2_inner/mamba2_inner.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {
namespace {

// Columns of the last axis from `first` on, as (parts, width).
Tensor Columns(const Tensor& t, int64_t first, int64_t parts, int64_t width) {
  Tensor columns(
      t.as<std::byte>() + first * static_cast<int64_t>(SizeOf(t.dtype)),
      t.dtype, {t.dims[0], t.dims[1], parts, width});
  columns.strides[0] = t.strides[0];
  columns.strides[1] = t.strides[1];
  return columns;
}

}  // namespace

std::optional<Slices> Mamba2Inner::PartSlices(const Problem& p,
                                              const Problem& part,
                                              absl::string_view tensor,
                                              double at) {
  if (part.channels() == p.channels()) return std::nullopt;
  if (tensor == "squares") return Slices();
  // The head and its row, as boxes of tensors that have both as axes.
  const int64_t channel =
      PartBegin(p.heads, 1, at) * p.head_dim + PartBegin(p.head_dim, 1, at);
  const PartRange x = {channel, 1};
  if (tensor == "z" || tensor == "y") return Slices{2, {x}};
  if (tensor == "norm_weight") return Slices{0, {x}};
  const int64_t group = p.d_inner() + PartBegin(p.groups, 1, at) * p.d_state;
  const std::vector<PartRange> channels = {
      x, {group, p.d_state}, {group + p.groups * p.d_state, p.d_state}};
  if (tensor == "conv_weight" || tensor == "conv_bias")
    return Slices{0, channels};
  if (tensor == "xbc" || tensor == "conv_state" || tensor == "conv_state_out")
    return Slices{2, channels};
  return std::nullopt;
}

CausalConv1d::Problem Mamba2Inner::Convolution(const Problem& p) {
  CausalConv1d::Problem convolution;
  static_cast<ProblemAxes&>(convolution) = p;
  convolution.channels = p.channels();
  convolution.width = p.conv_width;
  convolution.bias = p.conv_bias;
  convolution.initial_state = p.has_initial_states;
  return convolution;
}

SsdScan::Problem Mamba2Inner::Scan(const Problem& p) {
  SsdScan::Problem scan;
  static_cast<ProblemAxes&>(scan) = p;
  scan.heads = p.heads;
  scan.head_dim = p.head_dim;
  scan.groups = p.groups;
  scan.d_state = p.d_state;
  scan.has_d = p.has_d;
  scan.has_dt_bias = p.has_dt_bias;
  scan.has_z = p.has_z && !p.norm;
  scan.has_initial_state = p.has_initial_states;
  scan.dt_min = p.dt_min;
  return scan;
}

CausalConv1d::Args Mamba2Inner::ConvolutionArgs(const Args& a,
                                                const Tensor& convolved) {
  return {.x = a.xbc,
          .weight = a.conv_weight,
          .bias = a.conv_bias,
          .initial_state = a.conv_state,
          .y = convolved,
          .final_state = a.conv_state_out};
}

SsdScan::Args Mamba2Inner::ScanArgs(const Problem& p, const Args& a,
                                    const Tensor& convolved) {
  const int64_t inner = p.d_inner(), state = p.groups * p.d_state;
  SsdScan::Args scan = {
      .x = Columns(convolved, 0, p.heads, p.head_dim),
      .dt = a.dt,
      .A = a.A,
      .B = Columns(convolved, inner, p.groups, p.d_state),
      .C = Columns(convolved, inner + state, p.groups, p.d_state),
      .D = a.D,
      .dt_bias = a.dt_bias,
      .initial_state = a.state,
      .y = Columns(a.y, 0, p.heads, p.head_dim),
      .final_state = a.state_out};
  if (p.has_z && !p.norm) scan.z = Columns(a.z, 0, p.heads, p.head_dim);
  return scan;
}

Cost Mamba2Inner::GetCost(const Problem& p) {
  Cost cost = SsdScan::GetCost(Scan(p));
  const Cost convolution = CausalConv1d::GetCost(Convolution(p));
  cost.vector_flops += convolution.vector_flops;
  cost.special_ops += convolution.special_ops;
  if (!p.norm) return cost;
  const double elements = static_cast<double>(p.batch) * p.seqlen *
                          static_cast<double>(p.d_inner());
  cost.vector_flops += elements * 3;  // square and sum; times the weight
  if (p.has_z) {
    cost.vector_flops += elements * 2;  // 1 + e^-z; times silu
    cost.special_ops += elements * 2;   // e^-z; the division
  }
  return cost;
}

Tolerance Mamba2Inner::GetTolerance(const Problem& p) {
  // As SsdScan's, where a term of y has up to 4 roundings, with three more: of
  // the x, B and C that it is made of.
  const double roundings = 7;
  const double sigma = Epsilon(p.dtype) * std::sqrt(roundings / 12);
  // Beneath: the scan's f32 arithmetic (see there) and, three times over, the
  // convolution's.
  CausalConv1d::Problem convolution = Convolution(p);
  convolution.dtype = DType::kF32;
  const double f32 =
      Epsilon(DType::kF32) * (std::sqrt(p.d_state + 256.0) + 32) +
      3 * CausalConv1d::GetTolerance(convolution).l2_error;
  // Worst of n as there; a norm's weights differ by up to 1.5 from their rms.
  // Errors relative to an element are twice as large relative to its square.
  const double outputs = static_cast<double>(p.batch) * p.heads * p.head_dim *
                         std::max<int64_t>(p.seqlen, p.d_state);
  const double spread = 4 * (p.has_z ? 6 : 1) * (p.norm ? 1.5 : 1);
  const double worst = std::sqrt(2 * std::log(outputs + 2)) * spread;
  const double doubled = p.norm ? 2 : 1;
  return {.max_error = 0.5 * Epsilon(p.dtype) + worst * (sigma + f32),
          .l2_error = doubled * (sigma + f32)};
}

std::vector<Mamba2Inner::Problem> Mamba2Inner::Sweep() {
  std::vector<Problem> problems;
  std::vector<Extent> extents(kLongExtents.begin(), kLongExtents.end());
  extents.push_back({8, 4096});
  extents.push_back({32, 2048});
  for (const Mamba2Layer& layer : kMamba2Layers)
    for (const Extent& extent : extents) {
      Problem p;
      p.shape = std::string(layer.model);
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      p.heads = layer.heads;
      p.head_dim = layer.head_dim;
      p.groups = layer.groups;
      p.d_state = layer.d_state;
      p.conv_width = layer.d_conv;
      p.norm = layer.groups == 1;  // the norm's groups are as many
      problems.push_back(p);
    }
  return problems;
}

std::vector<Mamba2Inner::Problem> Mamba2Inner::TestProblems() {
  struct Options {
    bool conv_bias, d, dt_bias, z, norm, initial_states;
    float dt_min = 0;
  };
  constexpr Options kPlain = {true, true, true, true, true, false};
  constexpr Options kAll = {true, true, true, true, true, true};
  constexpr Options kGate = {true, true, true, true, false, true};
  constexpr Options kScan = {true, true, true, false, false, true};
  constexpr Options kNone = {false, false, false, false, false, false};
  constexpr Options kNoZ = {true, false, true, false, true, false};
  constexpr Options kConvBias = {true, false, false, false, false, false};
  constexpr Options kD = {false, true, false, false, false, false};
  constexpr Options kBias = {false, false, true, false, false, false};
  constexpr Options kZ = {false, false, false, true, false, false};
  constexpr Options kNorm = {false, false, false, false, true, false};
  constexpr Options kInitial = {false, false, false, false, false, true};
  std::vector<Problem> problems;
  const auto add = [&](int64_t batch, int64_t seqlen, int64_t heads,
                       int64_t head_dim, int64_t groups, int64_t d_state,
                       int64_t conv_width, const Options& o) {
    Problem p;
    p.shape = absl::StrCat(
        "custom.h", heads, "-p", head_dim, "-g", groups, "-n", d_state, "-w",
        conv_width, o.conv_bias ? "-convbias" : "", o.d ? "-d" : "",
        o.dt_bias ? "-bias" : "", o.z ? "-z" : "", o.norm ? "-norm" : "",
        o.initial_states ? "-init" : "", o.dt_min > 0 ? "-min" : "");
    p.batch = batch;
    p.seqlen = seqlen;
    p.heads = heads;
    p.head_dim = head_dim;
    p.groups = groups;
    p.d_state = d_state;
    p.conv_width = conv_width;
    p.conv_bias = o.conv_bias;
    p.has_d = o.d;
    p.has_dt_bias = o.dt_bias;
    p.has_z = o.z;
    p.norm = o.norm;
    p.has_initial_states = o.initial_states;
    p.dt_min = o.dt_min;
    problems.push_back(p);
  };
  // One token; fewer than the convolution's memory; less than a chunk; odd
  // lengths over several chunks; heads that fill no tile; padded states; two
  // tiles' worth of a convolution's halo.
  add(1, 1, 1, 64, 1, 16, 4, kPlain);
  add(2, 1, 3, 64, 3, 128, 4, kAll);
  add(2, 2, 2, 64, 1, 64, 4, kGate);
  add(1, 3, 2, 128, 2, 64, 3, kAll);
  add(1, 7, 2, 64, 2, 64, 2, kNone);
  add(2, 63, 5, 64, 1, 16, 4, kAll);
  add(1, 64, 4, 64, 2, 24, 3, kPlain);
  add(1, 65, 3, 32, 1, 40, 4, kAll);
  add(2, 66, 3, 64, 1, 128, 4, kGate);
  add(1, 67, 3, 64, 1, 128, 2, kScan);
  add(1, 129, 6, 64, 2, 128, 2, kNone);
  add(1, 257, 3, 128, 1, 64, 4, kNoZ);
  add(2, 333, 3, 64, 1, 128, 3, {false, true, false, true, true, true});
  add(1, 191, 2, 128, 1, 128, 4, kAll);
  add(1, 130, 2, 64, 1, 256, 4, kAll);
  add(1, 100, 3, 128, 3, 256, 2, kGate);
  add(2, 301, 8, 64, 8, 64, 4, kGate);
  add(1, 200, 16, 64, 8, 128, 4, kAll);
  // More chunks than CTAs fit on a GPU at once: several in a segment.
  add(4, 641, 16, 64, 2, 16, 4, kAll);
  // So many heads a group and so many tokens that its C B^T is made once for
  // them all, on 132 multiprocessors.
  add(1, 970, 94, 64, 2, 16, 4, kAll);
  add(2, 1000, 47, 64, 1, 16, 4, kGate);
  // Every option alone; all groups, head_dims and d_states of models with each
  // other.
  add(1, 1000, 2, 64, 1, 16, 4, kZ);
  add(64, 65, 1, 64, 1, 16, 4, kNorm);
  add(1, 65, 8, 128, 8, 16, 4, kD);
  add(1, 63, 4, 128, 2, 32, 4, kInitial);
  add(1, 63, 2, 32, 2, 256, 4, kZ);
  add(1, 40, 8, 32, 8, 64, 4, kNorm);
  add(1, 33, 2, 32, 1, 16, 4, kBias);
  add(1, 20, 2, 32, 1, 128, 4, kConvBias);
  // Many segments, the last chunk not full.
  add(1, 57001, 1, 64, 1, 8, 4, kAll);
  // Steps held up by a minimum.
  add(1, 77, 3, 64, 1, 32, 4, {true, true, true, true, true, true, 0.02f});
  // Shapes no matrix tile fits: of tiny models, and an odd d_state.
  add(2, 70, 4, 8, 2, 16, 4, kAll);
  add(1, 37, 3, 12, 1, 8, 3, kPlain);
  add(1, 50, 2, 16, 1, 20, 4, kGate);
  add(1, 33, 2, 64, 1, 7, 4, kPlain);
  // A real layer.
  add(1, 192, 24, 64, 1, 128, 4, kPlain);
  return problems;
}

namespace {
const bool registered = AddOperator<Mamba2Inner>();
}  // namespace

}  // namespace seqmark
