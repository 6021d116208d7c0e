// SPDX-License-Identifier: Apache-2.0
//
// Each part is defined once, by its own operator.
#include "fixtures/reference.h"

#include <algorithm>
#include <vector>

#include "ops/norm_gemm/norm_gemm.h"

namespace seqmark {
namespace {

template <class Norm, class Product, class Convolution>
void Define(const NormGemm::Problem& p, const NormGemm::Args& a, Norm&& norm,
            Product&& product, Convolution&& convolution) {
  std::vector<double> normed(p.batch * p.in_features);
  const Tensor n(normed.data(), DType::kF64, {p.batch, 1, p.in_features});
  norm(NormGemm::Norm(p), RmsNorm::Args{.x = a.x,
                                        .residual = a.residual,
                                        .weight = a.norm_weight,
                                        .y = n,
                                        .residual_out = a.residual_out});
  product(NormGemm::Product(p),
          Gemm::Args{.x = n, .weight = a.weight, .bias = a.bias, .y = a.y});
  if (p.conv_channels == 0) return;
  Tensor inputs = a.y;
  inputs.data = a.y.as<double>() + p.conv_first;
  inputs.dims[2] = p.conv_channels;
  std::vector<double> convolved(p.batch * p.conv_channels);
  const Tensor outputs(convolved.data(), DType::kF64, inputs.dims);
  convolution(NormGemm::Convolution(p),
              CausalConv1d::Args{.x = inputs,
                                 .weight = a.conv_weight,
                                 .bias = a.conv_bias,
                                 .initial_state = a.conv_state,
                                 .y = outputs,
                                 .final_state = a.conv_state_out});
  for (int64_t b = 0; b < p.batch; ++b)
    std::copy_n(&convolved[b * p.conv_channels], p.conv_channels,
                inputs.as<double>() + b * inputs.strides[0]);
}

}  // namespace

void NormGemm::Reference(const Problem& p, const Args& a) {
  Define(p, a, RmsNorm::Reference, Gemm::Reference, CausalConv1d::Reference);
}

void NormGemm::CountedReference(const Problem& p, const Args& a) {
  Define(p, a, RmsNorm::CountedReference, Gemm::CountedReference,
         CausalConv1d::CountedReference);
}

}  // namespace seqmark
