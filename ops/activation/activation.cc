// SPDX-License-Identifier: Apache-2.0
#include "ops/activation/activation.h"

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/shapes.h"

namespace seqmark {

Cost Activation::GetCost(const Problem& p) {
  double flops = p.gated ? 1 : 0, special = 0;
  switch (p.function) {
    case ActivationFunction::kSilu:  // 1 + e^-x; the division
      flops += 1;
      special = 2;
      break;
    case ActivationFunction::kGelu:
      flops += 4;
      special = 1;
      break;
    case ActivationFunction::kGeluTanh:
      flops += 8;
      special = 1;
      break;
    case ActivationFunction::kRelu2:
      flops += 1;
      break;
  }
  const double elements = static_cast<double>(p.rows()) * p.width;
  return {.vector_flops = elements * flops, .special_ops = elements * special};
}

Tolerance Activation::GetTolerance(const Problem& p) {
  // The output is rounded once to dtype. In f32 act(x) is off by at most 4
  // epsilon of |x|: each is x times a slope in 0..1 made of an exponential
  // (argument rounded twice and 2 epsilon; its slope times its argument is
  // below 1/4), a sum and a division (2 epsilon), or of an erf within 1.5e-7 of
  // which half counts. relu2 rounds once, and so does the gate's product. For
  // normal x the output's rms is 0.6 or more, and |x| up to 5.5 where the
  // output is near nothing: 10 times; gated it is |gate * up|, of which 30 is
  // beyond all chance: 50 times.
  const double f32 = Epsilon(DType::kF32);
  const double error =
      (p.function == ActivationFunction::kRelu2 ? 1 : 4.5) * f32;
  return {
      .max_error = 0.5 * Epsilon(p.dtype) * 1.01 + (p.gated ? 50 : 10) * error,
      .l2_error = 0.5 * Epsilon(p.dtype) + error / 0.6};
}

std::vector<Activation::Problem> Activation::Sweep() {
  std::vector<Problem> problems;
  const auto add = [&](absl::string_view shape, int64_t width,
                       ActivationFunction function, bool gated) {
    Problem p;
    p.shape = std::string(shape);
    p.width = width;
    p.function = function;
    p.gated = gated;
    const auto add_at = [&](const Extent& extent) {
      p.batch = extent.batch;
      p.seqlen = extent.seqlen;
      problems.push_back(p);
    };
    for (const Extent& extent : kDecodeExtents) add_at(extent);
    for (const Extent& extent : kLongExtents) add_at(extent);
  };
  for (const auto& layer : kAttentionLayers)
    add(layer.model, layer.intermediate, ActivationFunction::kSilu, true);
  // The feed-forward layers between mamba2-8b's (arXiv:2406.07887).
  add("mamba2-hybrid-8b.mlp", 16384, ActivationFunction::kRelu2, false);
  return problems;
}

std::vector<Activation::Problem> Activation::TestProblems() {
  std::vector<Problem> problems;
  // Packs and single elements, a few rows and many.
  for (const auto& [batch, seqlen, width] : {std::tuple{1, 1, 33},
                                             {3, 17, 1},
                                             {1, 5, 1001},
                                             {2, 3, 264},
                                             {1, 1, 8960},
                                             {1, 61, 4864},
                                             {2, 700, 904}})
    for (auto function :
         {ActivationFunction::kSilu, ActivationFunction::kGelu,
          ActivationFunction::kGeluTanh, ActivationFunction::kRelu2})
      for (bool gated : {false, true}) {
        Problem p;
        p.shape = absl::StrCat("custom.width", width, "-", Name(function),
                               gated ? "-gated" : "");
        p.batch = batch;
        p.seqlen = seqlen;
        p.width = width;
        p.function = function;
        p.gated = gated;
        problems.push_back(p);
      }
  return problems;
}

namespace {
const bool registered = AddOperator<Activation>();
}  // namespace

}  // namespace seqmark
