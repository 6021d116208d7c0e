// SPDX-License-Identifier: Apache-2.0
//
// The activation of a feed-forward layer, element by element:
//
//   y = act(x)   or, gated (Shazeer 2020, arXiv:2002.05202, eq. 5-6),
//   y = act(x[.., :width]) * x[.., width:]
//
// where x's row is the gate, then the up projection, as one product of a fused
// weight leaves them. act is one of
//
//   silu       x / (1 + e^-x)
//   gelu       x (1 + erf(x / sqrt 2)) / 2              (arXiv:1606.08415)
//   gelu_tanh  x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
//   relu2      max(x, 0)^2                               (arXiv:2109.08668)
//
// Arithmetic is f32 whatever the tensors' type. Bytes: x and y once each, so
// memory limits it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "fixtures/op.h"
#include "fixtures/parts.h"

namespace seqmark {

enum class ActivationFunction : uint8_t { kSilu, kGelu, kGeluTanh, kRelu2 };

inline constexpr absl::string_view Name(ActivationFunction f) {
  switch (f) {
    case ActivationFunction::kSilu:
      return "silu";
    case ActivationFunction::kGelu:
      return "gelu";
    case ActivationFunction::kGeluTanh:
      return "gelu_tanh";
    case ActivationFunction::kRelu2:
      return "relu2";
  }
  return "";
}

struct Activation {
  static constexpr absl::string_view kName = "activation";

  struct Problem : ProblemAxes {
    int64_t width = 0;  // of y
    ActivationFunction function = ActivationFunction::kSilu;
    bool gated = true;

    int64_t rows() const { return batch * seqlen; }
    int64_t x_width() const { return gated ? 2 * width : width; }
  };

  struct Args {
    Tensor x;  // (batch, seqlen, x_width): axes 0 and 1 have any strides
    Tensor y;  // (batch, seqlen, width)
  };

  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    using enum Role;
    visit(
        TensorSpec{"x", kActivation, p.dtype, {p.batch, p.seqlen, p.x_width()}},
        a.x);
    visit(TensorSpec{"y", kOutput, p.dtype, {p.batch, p.seqlen, p.width}}, a.y);
  }

  static Problem Part(const Problem& p, double) { return WithTokens(p, 16); }
  static Cost GetCost(const Problem& p);
  static Tolerance GetTolerance(const Problem& p);
  static std::vector<Problem> Sweep();
  static std::vector<Problem> TestProblems();
  static void Reference(const Problem& p, const Args& a);
  static void CountedReference(const Problem& p, const Args& a);
};

}  // namespace seqmark
