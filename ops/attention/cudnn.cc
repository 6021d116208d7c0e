// SPDX-License-Identifier: Apache-2.0
//
// Attention by cuDNN's fused kernels through cudnn-frontend, which picks the
// engine for the GPU (Hopper's reaches 87 % of the rate of a matrix product).
// The tensors are read where they lie: cuDNN takes any strides.
#include <cmath>

#include "fixtures/cudnn_cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/attention/attention.h"

namespace seqmark {
namespace {

namespace fe = cudnn_frontend;

absl::StatusOr<Launch> Plan(const Attention::Problem& p,
                            const Attention::Args& a, Device& device) {
  auto graph = std::make_shared<fe::graph::Graph>();
  graph->set_io_data_type(CudnnDataType(p.dtype))
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  std::unordered_map<int64_t, void*> data;
  // (batch, seqlen, heads, head_dim) as cuDNN's (batch, heads, seqlen, dim).
  const auto describe = [&](fe::graph::Tensor_attributes& attributes,
                            const Tensor& t) {
    const auto uid = static_cast<int64_t>(data.size()) + 1;
    data[uid] = t.data;
    attributes.set_uid(uid)
        .set_dim({t.dims[0], t.dims[2], t.dims[1], t.dims[3]})
        .set_stride({t.strides[0], t.strides[2], t.strides[1], t.strides[3]});
  };
  const auto input = [&](const char* name, const Tensor& t) {
    fe::graph::Tensor_attributes attributes;
    describe(attributes.set_name(name), t);
    return graph->tensor(attributes);
  };
  const auto q = input("q", a.q), k = input("k", a.k), v = input("v", a.v);

  fe::graph::SDPA_attributes attention;
  attention.set_name("attention")
      .set_generate_stats(false)
      .set_attn_scale(static_cast<float>(1 / std::sqrt(p.head_dim)))
      .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0);
  // Keys with key + bound > query are seen: the bound is the window.
  if (p.span() < p.seqlen)
    attention.set_diagonal_band_left_bound(static_cast<int>(p.span()));
  const auto o = graph->sdpa(q, k, v, attention)[0];
  describe(o->set_output(true).set_name("o"), a.o);
  return BuildCudnnGraph(std::move(graph), std::move(data), device);
}

const bool registered =
    AddProvider<Attention>({.name = "cudnn",
                            .device = DeviceKind::kCuda,
                            .dtypes = {DType::kBF16, DType::kF16},
                            .plan = Plan});

}  // namespace
}  // namespace seqmark
