// SPDX-License-Identifier: Apache-2.0
#include "ops/norm/cudnn_norm_cuda.h"

#include <map>
#include <tuple>

#include "fixtures/cudnn_cuda.h"
#include "ops/norm/norm.h"

namespace seqmark {
namespace {

namespace fe = cudnn_frontend;
using Graph = std::shared_ptr<fe::graph::Graph>;
enum Uid : int64_t { kX = 1, kWeight, kBias, kY };

absl::StatusOr<Graph> BuildGraph(const CudnnNorm& norm, int64_t rows,
                                 int64_t width) {
  using fe::graph::Tensor_attributes;
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
  std::shared_ptr<Tensor_attributes> y;
  if (norm.bias) {
    auto bias = tensor("bias", kBias, 1);
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
  return graph;
}

// Kept for as long as the process runs: the layers of a model share one.
absl::StatusOr<Graph> CachedGraph(const CudnnNorm& norm, int64_t rows,
                                  int64_t width) {
  using Key = std::tuple<DType, int64_t, int64_t, bool, float>;
  static auto* const graphs = new std::map<Key, absl::StatusOr<Graph>>();
  const Key key = {norm.x.dtype, rows, width, static_cast<bool>(norm.bias),
                   norm.epsilon};
  if (const auto it = graphs->find(key); it != graphs->end()) return it->second;
  absl::StatusOr<Graph> graph = BuildGraph(norm, rows, width);
  if (graph.ok() || absl::IsUnimplemented(graph.status()))
    graphs->emplace(key, graph);
  return graph;
}

}  // namespace

absl::StatusOr<Launch> PlanCudnnNorm(const CudnnNorm& norm, Device& device) {
  if (!HasAdjacentRows(norm.x) || !HasAdjacentRows(norm.y))
    return absl::UnimplementedError("needs x and y without gaps between rows");
  for (const Tensor* t : {&norm.x, &norm.weight, &norm.bias, &norm.y})
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0)
      return absl::UnimplementedError("needs tensors on 16-byte boundaries");
  const int64_t width = norm.weight.size();
  absl::StatusOr<Graph> graph = CachedGraph(norm, norm.x.size() / width, width);
  if (!graph.ok()) return graph.status();
  std::unordered_map<int64_t, void*> data = {
      {kX, norm.x.data}, {kWeight, norm.weight.data}, {kY, norm.y.data}};
  if (norm.bias) data[kBias] = norm.bias.data;
  return BindCudnnGraph(*std::move(graph), std::move(data), device);
}

}  // namespace seqmark
