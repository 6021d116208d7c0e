// SPDX-License-Identifier: Apache-2.0
//
// Attention by cuDNN's fused kernels through cudnn-frontend, which picks the
// engine for the GPU (Hopper's reaches 87 % of the rate of a matrix product).
// The tensors are read where they lie: cuDNN takes any strides that are
// multiples of 16 bytes, a head_dim that is a multiple of 8, and no fewer keys
// than queries, which is always so here.
//
// A graph takes some 0.4 s to build, so that they are kept, by what shapes
// them, for as long as the process runs: the layers of a model share one.
#include <array>
#include <cmath>
#include <map>

#include "fixtures/cudnn_cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/attention/attention.h"

namespace seqmark {
namespace {

namespace fe = cudnn_frontend;
using Graph = std::shared_ptr<fe::graph::Graph>;

// q, k, v, o; their uids are 1 to 4.
using Operands = std::array<Tensor, 4>;

// Only the keys that some query sees: with a window, a graph then does not
// depend on how many came before.
Tensor Seen(const Attention::Problem& p, Tensor keys) {
  keys.data = keys.as<std::byte>() +
              p.first_key() * keys.strides[1] * SizeOf(keys.dtype);
  keys.dims[1] = p.keys() - p.first_key();
  return keys;
}

absl::StatusOr<Graph> BuildGraph(const Attention::Problem& p,
                                 const Operands& operands) {
  auto graph = std::make_shared<fe::graph::Graph>();
  graph->set_io_data_type(CudnnDataType(p.dtype))
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  // (batch, seqlen, heads, head_dim) as cuDNN's (batch, heads, seqlen, dim).
  const auto describe = [&](fe::graph::Tensor_attributes& attributes, int i) {
    const Tensor& t = operands[i];
    attributes.set_uid(i + 1)
        .set_dim({t.dims[0], t.dims[2], t.dims[1], t.dims[3]})
        .set_stride({t.strides[0], t.strides[2], t.strides[1], t.strides[3]});
  };
  const auto input = [&](const char* name, int i) {
    fe::graph::Tensor_attributes attributes;
    describe(attributes.set_name(name), i);
    return graph->tensor(attributes);
  };
  const auto q = input("q", 0), k = input("k", 1), v = input("v", 2);

  fe::graph::SDPA_attributes attention;
  attention.set_name("attention")
      .set_generate_stats(false)
      .set_attn_scale(static_cast<float>(1 / std::sqrt(p.head_dim)));
  // A single query sees all the keys here. The last of several sees the last.
  const int64_t keys = operands[1].dims[1];
  if (p.seqlen > 1) {
    attention
        .set_diagonal_alignment(keys == p.seqlen
                                    ? fe::DiagonalAlignment_t::TOP_LEFT
                                    : fe::DiagonalAlignment_t::BOTTOM_RIGHT)
        .set_diagonal_band_right_bound(0);
    // Keys with key + bound > the query's are seen: the bound is the window.
    if (p.reach() < keys)
      attention.set_diagonal_band_left_bound(static_cast<int>(p.reach()));
  }
  const auto o = graph->sdpa(q, k, v, attention)[0];
  describe(o->set_output(true).set_name("o"), 3);
  if (absl::Status s = BuildCudnnGraph(*graph); !s.ok()) return s;
  return graph;
}

absl::StatusOr<Graph> CachedGraph(const Attention::Problem& p,
                                  const Operands& operands) {
  static auto* const graphs = new std::map<std::vector<int64_t>, Graph>();
  std::vector<int64_t> key = {static_cast<int64_t>(p.dtype), p.reach()};
  for (const Tensor& t : operands) {
    key.insert(key.end(), t.dims.begin(), t.dims.end());
    key.insert(key.end(), t.strides.begin(), t.strides.end());
  }
  if (const auto it = graphs->find(key); it != graphs->end()) return it->second;
  absl::StatusOr<Graph> graph = BuildGraph(p, operands);
  if (graph.ok()) (*graphs)[key] = *graph;
  return graph;
}

// Without a window that hides keys but for sinks: cuDNN's masks are bands.
bool Supports(const Attention::Problem& p) {
  return p.sink == 0 || p.span() == p.keys();
}

absl::StatusOr<Launch> Plan(Attention::Problem p, const Attention::Args& a,
                            Device& device) {
  if (p.span() == p.keys()) p.window = 0;
  const Operands operands = {a.q, Seen(p, a.k), Seen(p, a.v), a.o};
  absl::StatusOr<Graph> graph = CachedGraph(p, operands);
  if (!graph.ok()) return graph.status();
  std::unordered_map<int64_t, void*> data;
  for (size_t i = 0; i < operands.size(); ++i) data[i + 1] = operands[i].data;
  return BindCudnnGraph(*std::move(graph), std::move(data), device);
}

const bool registered =
    AddProvider<Attention>({.name = "cudnn",
                            .device = DeviceKind::kCuda,
                            .dtypes = {DType::kBF16, DType::kF16},
                            .plan = Plan,
                            .supports = Supports});

}  // namespace
}  // namespace seqmark
