// SPDX-License-Identifier: Apache-2.0
//
// The inside of a Mamba-2 layer in a prompt (Dao and Gu 2024, arXiv:2405.21060,
// section 7.1 and figure 6), between its two projections, as one operator:
//
//   x, B, C = silu(conv(xbc))                   ops/causal_conv1d
//   y = ssd(x, dt, A, B, C) + D x               ops/ssd_scan
//   y = y * silu(z)                             with a z
//   squares[part] = sum of y^2 over the part    with a norm
//   y = y * norm_weight                         with a norm
//
// The norm is RMSNorm over all of y, up to one factor a token, 1 / sqrt(mean of
// y^2 + epsilon). That factor commutes with the output projection, which reads
// y; so it is left to what reads the projection's output (RmsNorm's squares),
// and the sums it is made of are an output here: of 64 columns each, or a head
// where heads are no multiple of them. A norm over several groups of a row does
// not commute: such layers have the z and no norm here, and it follows.
// Unscaled, y is as large as the scan makes it, which f16 may not hold: no f16
// with a norm.
//
// A provider may round the convolution's outputs, and y before the gate, to
// dtype, as the separate operators do; all else is f32.
//
// Bytes: xbc, z and y once are the least, 2 * (channels + 2 * d_inner) a token
// in 16 bits. Apart, the convolution writes and the scan reads its output, and
// the gate reads and writes y once more: 2.4 times as much. Flops are the
// scan's, nearly all of them of matrices: see ops/ssd_scan.
//
// A part is a channel of x with its group's B and C. It has no squares, which
// are of all of a head's channels: of a long row, --verify looks at those of
// the first tokens.
#pragma once

#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/ssd_scan/ssd_scan.h"

namespace seqmark {

struct Mamba2Inner {
  static constexpr absl::string_view kName = "mamba2_inner";

  struct Problem : ProblemAxes {
    int64_t heads = 0;
    int64_t head_dim = 64;
    int64_t groups = 1;  // of B and C; divides heads
    int64_t d_state = 128;
    int64_t conv_width = 4;
    bool conv_bias = true;
    bool has_d = true;
    bool has_dt_bias = true;
    bool has_z = true;
    bool norm = true;
    bool has_initial_states = false;  // of the convolution and the scan
    float dt_min = 0;                 // as SsdScan's

    int64_t d_inner() const { return heads * head_dim; }
    int64_t channels() const { return d_inner() + 2 * groups * d_state; }
    int64_t part_width() const { return head_dim % 64 == 0 ? 64 : head_dim; }
    int64_t parts() const { return d_inner() / part_width(); }
  };

  // Axes 0 and 1 (batch, seqlen) of xbc, dt, z and y may have any stride; the
  // inner axes are contiguous. Everything else is contiguous. Outputs overlap
  // nothing.
  struct Args {
    Tensor xbc;             // (batch, seqlen, channels): x, B, C of a token
    Tensor conv_weight;     // (channels, conv_width)
    Tensor conv_bias;       // (channels), optional
    Tensor conv_state;      // (batch, conv_width - 1, channels), optional
    Tensor dt;              // (batch, seqlen, heads)
    Tensor A;               // (heads) f32, negative
    Tensor D;               // (heads) f32, optional
    Tensor dt_bias;         // (heads) f32, optional
    Tensor z;               // (batch, seqlen, d_inner), optional
    Tensor norm_weight;     // (d_inner), optional
    Tensor state;           // (batch, heads, head_dim, d_state) f32, optional
    Tensor y;               // (batch, seqlen, d_inner)
    Tensor squares;         // (batch, seqlen, parts) f32, optional
    Tensor conv_state_out;  // (batch, conv_width - 1, channels)
    Tensor state_out;       // (batch, heads, head_dim, d_state) f32
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims rows = {p.batch, p.seqlen, p.d_inner()};
    const Dims inputs = {p.batch, p.conv_width - 1, p.channels()};
    const Dims states = {p.batch, p.heads, p.head_dim, p.d_state};
    constexpr DType kF32 = DType::kF32;
    using enum Role;
    visit(
        TensorSpec{
            "xbc", kActivation, p.dtype, {p.batch, p.seqlen, p.channels()}},
        a.xbc);
    visit(
        TensorSpec{
            "conv_weight", kWeight, p.dtype, {p.channels(), p.conv_width}},
        a.conv_weight);
    if (p.conv_bias)
      visit(TensorSpec{"conv_bias", kBias, p.dtype, {p.channels()}},
            a.conv_bias);
    if (p.has_initial_states)
      visit(TensorSpec{"conv_state", kActivation, p.dtype, inputs},
            a.conv_state);
    visit(TensorSpec{"dt", kStep, p.dtype, {p.batch, p.seqlen, p.heads}}, a.dt);
    visit(TensorSpec{"A", kHeadDecay, kF32, {p.heads}}, a.A);
    if (p.has_d) visit(TensorSpec{"D", kScale, kF32, {p.heads}}, a.D);
    if (p.has_dt_bias)
      visit(TensorSpec{"dt_bias", kStepBias, kF32, {p.heads}}, a.dt_bias);
    if (p.has_z) visit(TensorSpec{"z", kActivation, p.dtype, rows}, a.z);
    if (p.norm)
      visit(TensorSpec{"norm_weight", kScale, p.dtype, {p.d_inner()}},
            a.norm_weight);
    if (p.has_initial_states)
      visit(TensorSpec{"state", kState, kF32, states}, a.state);
    visit(TensorSpec{"y", kOutput, p.dtype, rows}, a.y);
    if (p.norm)
      visit(
          TensorSpec{"squares", kOutput, kF32, {p.batch, p.seqlen, p.parts()}},
          a.squares);
    visit(TensorSpec{"conv_state_out", kOutput, p.dtype, inputs},
          a.conv_state_out);
    visit(TensorSpec{"state_out", kOutput, kF32, states}, a.state_out);
  }

  static Problem Part(const Problem& p, double) {
    Problem part = p;
    part.heads = part.groups = part.head_dim = 1;
    return part;
  }
  static std::optional<Slices> PartSlices(const Problem& p, const Problem& part,
                                          absl::string_view tensor, double at);

  // The operators it is made of, the second without the gate where a norm
  // follows that; and the second's tensors, of what the first gives.
  static CausalConv1d::Problem Convolution(const Problem& p);
  static SsdScan::Problem Scan(const Problem& p);
  static CausalConv1d::Args ConvolutionArgs(const Args& a,
                                            const Tensor& convolved);
  static SsdScan::Args ScanArgs(const Problem& p, const Args& a,
                                const Tensor& convolved);

  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
