// SPDX-License-Identifier: Apache-2.0
//
// oneDNN's matmul on the CPU, for 2.x and 3.x, with errors as absl::Status and
// all memory from the Device. Only onednn.cc files include it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dnnl.hpp"
#include "fixtures/device.h"
#include "fixtures/tensor.h"

namespace seqmark {

inline dnnl::memory::data_type DnnlType(DType t) {
  using enum dnnl::memory::data_type;
  switch (t) {
    case DType::kBF16:
      return bf16;
    case DType::kF16:
      return f16;
    case DType::kF32:
      return f32;
    case DType::kF64:
    case DType::kI32:
      break;
  }
  return undef;
}

inline const dnnl::engine& DnnlCpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Runs body(), which calls oneDNN, and returns what it threw.
template <class Body>
absl::Status CatchDnnl(Body&& body) {
  try {
    body();
    return absl::OkStatus();
  } catch (const dnnl::error& e) {
    const std::string message = absl::StrCat("oneDNN: ", e.what());
    if (e.status == dnnl_unimplemented)
      return absl::UnimplementedError(message);
    if (e.status == dnnl_out_of_memory)
      return absl::ResourceExhaustedError(message);
    return absl::InternalError(message);
  }
}

// dst = src * weights (+ bias, where its descriptor is not empty). Throws.
inline dnnl::matmul::primitive_desc DescribeMatmul(
    const dnnl::memory::desc& src, const dnnl::memory::desc& weights,
    const dnnl::memory::desc& bias, const dnnl::memory::desc& dst,
    dnnl::primitive_attr attributes = {}) {
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(DnnlCpu(), src, weights, bias, dst,
                                      attributes);
#else
  const auto operation = bias.data.ndims == 0
                             ? dnnl::matmul::desc(src, weights, dst)
                             : dnnl::matmul::desc(src, weights, bias, dst);
  return dnnl::matmul::primitive_desc(operation, attributes, DnnlCpu());
#endif
}

// Whether this library has a matmul of `dtype` for this CPU: 2.x has none of
// f16 anywhere, and bf16 needs AVX-512 or newer there.
inline bool DnnlHasMatmul(DType dtype) {
  const dnnl::memory::desc square({64, 64}, DnnlType(dtype),
                                  dnnl::memory::format_tag::ab);
  return CatchDnnl([&] { DescribeMatmul(square, square, {}, square); }).ok();
}

// A linear layer prepared for repeated calls: the weights are repacked once
// into the layout that the kernel reads fastest.
class DnnlLinear {
 public:
  // Rows of a matrix, `stride` elements apart.
  struct Rows {
    Tensor tensor;
    int64_t stride = 0;
  };
  // x (m, in), weight (out, in), bias (out) or none, addend (m, out) or none,
  // y (m, out).
  static absl::StatusOr<std::shared_ptr<DnnlLinear>> Make(
      int64_t m, const Rows& x, const Tensor& weight, const Tensor& bias,
      const Rows& addend, const Rows& y, Device& device) {
    auto linear = std::shared_ptr<DnnlLinear>(new DnnlLinear());
    absl::Status allocated;
    absl::Status status = CatchDnnl([&] {
      allocated = linear->Init(m, x, weight, bias, addend, y, device);
    });
    if (!status.ok()) return status;
    if (!allocated.ok()) return allocated;
    return linear;
  }

  absl::Status Run() {
    return CatchDnnl([&] {
      matmul_.execute(stream_, args_);
      stream_.wait();
    });
  }

 private:
  DnnlLinear() = default;

  absl::Status Init(int64_t m, const Rows& x, const Tensor& weight,
                    const Tensor& bias, const Rows& addend, const Rows& y,
                    Device& device) {
    using dnnl::memory;
    using Tag = memory::format_tag;
    const int64_t n = weight.dims[0], k = weight.dims[1];
    const auto type = DnnlType(weight.dtype);
    const memory::desc x_desc({m, k}, type, memory::dims{x.stride, 1}),
        y_desc({m, n}, type, memory::dims{y.stride, 1}),
        addend_desc({m, n}, type, memory::dims{addend.stride, 1});
    const memory::desc bias_desc =
        bias ? memory::desc({1, n}, type, Tag::ab) : memory::desc();
    const bool in_place = addend.tensor && addend.tensor.data == y.tensor.data;
    dnnl::post_ops after;
    if (in_place)
      after.append_sum();
    else if (addend.tensor)
      after.append_binary(dnnl::algorithm::binary_add, addend_desc);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(after);
    const auto matmul =
        DescribeMatmul(x_desc, memory::desc({k, n}, type, Tag::any), bias_desc,
                       y_desc, attributes);
    const memory::desc plain({k, n}, type, Tag::ba);  // W^T is W, transposed
    memory weights(plain, DnnlCpu(), weight.data);
    if (const memory::desc desc = matmul.weights_desc(); desc != plain) {
      auto packed = device.Packed(
          weight.data, Layout(desc), desc.get_size(), [&](void* data) {
            memory copy(desc, DnnlCpu(), data);
            dnnl::reorder(weights, copy).execute(stream_, weights, copy);
            stream_.wait();
            return absl::OkStatus();
          });
      if (!packed.ok()) return packed.status();
      packed_ = *std::move(packed);
      weights = memory(desc, DnnlCpu(), packed_->data());
    }
    auto scratch = device.Allocate(matmul.scratchpad_desc().get_size(),
                                   MemoryClass::kWorkspace);
    if (!scratch.ok()) return scratch.status();
    scratch_ = *std::move(scratch);
    matmul_ = dnnl::matmul(matmul);
    args_ = {{DNNL_ARG_SRC, memory(x_desc, DnnlCpu(), x.tensor.data)},
             {DNNL_ARG_WEIGHTS, weights},
             {DNNL_ARG_DST, memory(y_desc, DnnlCpu(), y.tensor.data)},
             {DNNL_ARG_SCRATCHPAD,
              memory(matmul.scratchpad_desc(), DnnlCpu(), scratch_.data())}};
    if (bias)
      args_.insert({DNNL_ARG_BIAS, memory(bias_desc, DnnlCpu(), bias.data)});
    if (addend.tensor && !in_place)
      args_.insert({DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                    memory(addend_desc, DnnlCpu(), addend.tensor.data)});
    return absl::OkStatus();
  }

  // What tells a layout from another: block sizes, strides, padding.
  static std::string Layout(const dnnl::memory::desc& desc) {
#if DNNL_VERSION_MAJOR >= 3
    return absl::StrCat(absl::StrJoin(desc.get_padded_dims(), ","), "/",
                        absl::StrJoin(desc.get_strides(), ","), "/",
                        absl::StrJoin(desc.get_inner_blks(), ","), "/",
                        absl::StrJoin(desc.get_inner_idxs(), ","));
#else
    return std::string(reinterpret_cast<const char*>(&desc.data),
                       sizeof(desc.data));
#endif
  }

  dnnl::stream stream_{DnnlCpu()};
  dnnl::matmul matmul_;
  std::unordered_map<int, dnnl::memory> args_;
  std::shared_ptr<const Buffer> packed_;
  Buffer scratch_;
};

}  // namespace seqmark
