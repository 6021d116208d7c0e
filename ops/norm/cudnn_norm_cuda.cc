// SPDX-License-Identifier: Apache-2.0
#include "ops/norm/cudnn_norm_cuda.h"

#include "fixtures/cudnn_cuda.h"
#include "ops/norm/norm.h"

namespace seqmark {

absl::StatusOr<Launch> PlanCudnnNorm(const CudnnNorm& norm, Device& device) {
  namespace fe = cudnn_frontend;
  using fe::graph::Tensor_attributes;
  enum Uid : int64_t { kX = 1, kWeight, kBias, kY };
  if (!HasAdjacentRows(norm.x) || !HasAdjacentRows(norm.y))
    return absl::UnimplementedError("needs x and y without gaps between rows");
  for (const Tensor* t : {&norm.x, &norm.weight, &norm.y})
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0)
      return absl::UnimplementedError("needs tensors on 16-byte boundaries");
  const int64_t width = norm.weight.size();
  const int64_t rows = norm.x.size() / width;
  const fe::DataType_t type = CudnnDataType(norm.x.dtype);
  auto graph = std::make_shared<fe::graph::Graph>();
  graph->set_io_data_type(type)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  // A row is one image with `width` channels of a single pixel.
  const auto tensor = [&](const char* name, Uid uid, int64_t n) {
    return graph->tensor(Tensor_attributes()
                             .set_name(name)
                             .set_uid(uid)
                             .set_dim({n, width, 1, 1})
                             .set_stride({width, 1, width, width})
                             .set_data_type(type));
  };
  auto x = tensor("x", kX, rows);
  auto weight = tensor("weight", kWeight, 1);
  auto epsilon = graph->tensor(Tensor_attributes(norm.epsilon)
                                   .set_dim({1, 1, 1, 1})
                                   .set_stride({1, 1, 1, 1}));
  std::unordered_map<int64_t, void*> data = {
      {kX, norm.x.data}, {kWeight, norm.weight.data}, {kY, norm.y.data}};
  std::shared_ptr<Tensor_attributes> y;
  if (norm.bias) {
    auto bias = tensor("bias", kBias, 1);
    data[kBias] = norm.bias.data;
    y = graph->layernorm(x, weight, bias,
                         fe::graph::Layernorm_attributes()
                             .set_forward_phase(fe::NormFwdPhase_t::INFERENCE)
                             .set_epsilon(epsilon))[0];
  } else {
    y = graph->rmsnorm(x, weight,
                       fe::graph::Rmsnorm_attributes()
                           .set_forward_phase(fe::NormFwdPhase_t::INFERENCE)
                           .set_epsilon(epsilon))[0];
  }
  y->set_output(true).set_uid(kY).set_data_type(type);
  if (absl::Status s = BuildCudnnGraph(*graph); !s.ok()) return s;
  return BindCudnnGraph(std::move(graph), std::move(data), device);
}

}  // namespace seqmark
