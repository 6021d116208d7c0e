// SPDX-License-Identifier: Apache-2.0
//
// A call of an operator whose tensors a test may make views of wider ones, or
// the same memory: what rows, whose tensors are all contiguous, cannot show.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "fixtures/op_fixture.h"

namespace seqmark {

template <Operator Op>
struct OpCall {
  OpCall(const typename Op::Problem& p, Device& device)
      : problem(p), device(device) {
    Op::Visit(p, args, [&](const TensorSpec& spec, Tensor& tensor) {
      buffers.push_back(*device.Allocate(Bytes(spec)));
      tensor = Tensor(buffers.back().data(), spec.dtype, spec.dims);
      EXPECT_TRUE(Fill(spec, tensor, 1, device).ok());
    });
  }

  absl::Status TryRun(const Provider<Op>& provider) {
    const auto launch = provider.plan(problem, args, device);
    if (!launch.ok()) return launch.status();
    if (absl::Status s = (*launch)(device.stream()); !s.ok()) return s;
    return device.Synchronize();
  }
  void Run(const Provider<Op>& provider) {
    const absl::Status status = TryRun(provider);
    ASSERT_TRUE(status.ok()) << status;
  }

  // Makes `tensor` a view, with the same elements, into a tensor whose rows
  // (all but the first `axes` axes) are `row` elements, from element `offset`
  // of each; between entries of axis 0 there is one more row, unused.
  void Widen(Tensor& tensor, size_t axes, int64_t row, int64_t offset) {
    const std::string narrow = Read(tensor);
    const size_t element = SizeOf(tensor.dtype);
    Tensor view = tensor;
    view.strides[axes - 1] = row;
    if (axes == 2) view.strides[0] = (tensor.dims[1] + 1) * row;
    const int64_t extent = view.strides[0] * tensor.dims[0];
    std::string wide(extent * element, '\x7f');
    ForEachRow(view, axes, [&](int64_t i, int64_t from, int64_t size) {
      std::memcpy(&wide[(from + offset) * element], &narrow[i * size * element],
                  size * element);
    });
    buffers.push_back(*device.Allocate(wide.size()));
    ASSERT_TRUE(
        device.CopyToDevice(buffers.back().data(), wide.data(), wide.size())
            .ok());
    view.data =
        static_cast<std::byte*>(buffers.back().data()) + offset * element;
    tensor = view;
  }

  // The elements of a tensor, which may have any strides of axes 0 and 1.
  std::string Read(const Tensor& tensor) const {
    const size_t element = SizeOf(tensor.dtype);
    const size_t axes = std::min<size_t>(2, tensor.dims.size() - 1);
    int64_t extent = 0;
    ForEachRow(tensor, axes, [&](int64_t, int64_t from, int64_t size) {
      extent = std::max(extent, from + size);
    });
    std::string span(extent * element, '\0'), bytes(tensor.bytes(), '\0');
    EXPECT_TRUE(device.CopyToHost(span.data(), tensor.data, span.size()).ok());
    ForEachRow(tensor, axes, [&](int64_t i, int64_t from, int64_t size) {
      std::memcpy(&bytes[i * size * element], &span[from * element],
                  size * element);
    });
    return bytes;
  }

  typename Op::Problem problem;
  Device& device;
  typename Op::Args args;
  std::vector<Buffer> buffers;

 private:
  // body(index of the row, its first element, its elements)
  template <class Body>
  static void ForEachRow(const Tensor& t, size_t axes, Body&& body) {
    int64_t size = 1;
    for (size_t axis = axes; axis < t.dims.size(); ++axis) size *= t.dims[axis];
    const int64_t inner = axes == 2 ? t.dims[1] : 1;
    for (int64_t i = 0; i < (axes > 0 ? t.dims[0] : 1); ++i)
      for (int64_t j = 0; j < inner; ++j)
        body(i * inner + j,
             (axes > 0 ? i * t.strides[0] : 0) +
                 (axes == 2 ? j * t.strides[1] : 0),
             size);
  }
};

// Memory on a device under a tensor whose axes 0 and 1 are spaced out, with
// its elements' values or, of an output, with what must not be overwritten.
class SpacedView {
 public:
  // `tensor` is contiguous and becomes the view: token t of sequence b begins
  // at element offset + (b * (seqlen + 1) + t) * token_stride.
  SpacedView(Tensor& tensor, int64_t offset, int64_t token_stride,
             Device& device)
      : device_(device), offset_(offset * SizeOf(tensor.dtype)) {
    const int64_t batch = tensor.dims[0], seqlen = tensor.dims[1];
    const size_t element = SizeOf(tensor.dtype);
    row_ = tensor.bytes() / (batch * seqlen);
    EXPECT_LE(row_, token_stride * element);
    std::string dense(tensor.bytes(), '\0');
    EXPECT_TRUE(
        device.CopyToHost(dense.data(), tensor.data, dense.size()).ok());
    before_.assign(offset_ + batch * (seqlen + 1) * token_stride * element,
                   '\x7f');
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t t = 0; t < seqlen; ++t) {
        rows_.push_back(offset_ +
                        (b * (seqlen + 1) + t) * token_stride * element);
        before_.replace(rows_.back(), row_, dense, (b * seqlen + t) * row_,
                        row_);
      }
    buffer_ = *device.Allocate(before_.size());
    EXPECT_TRUE(
        device.CopyToDevice(buffer_.data(), before_.data(), before_.size())
            .ok());
    tensor.data = static_cast<std::byte*>(buffer_.data()) + offset_;
    tensor.strides[0] = (seqlen + 1) * token_stride;
    tensor.strides[1] = token_stride;
  }

  // The view's elements, made contiguous; all else must be as it was.
  std::string Read() const {
    std::string after(before_.size(), '\0'), dense;
    EXPECT_TRUE(
        device_.CopyToHost(after.data(), buffer_.data(), after.size()).ok());
    std::string around = before_;
    for (size_t row : rows_) {
      dense += after.substr(row, row_);
      around.replace(row, row_, after, row, row_);
    }
    EXPECT_TRUE(around == after) << "written outside the view";
    return dense;
  }

 private:
  Device& device_;
  size_t offset_, row_ = 0;  // bytes
  std::string before_;
  std::vector<size_t> rows_;
  Buffer buffer_;
};

// Every output of `actual` within a rounding of `expected`'s and 1e-5: a kernel
// for views may add up in another order.
template <Operator Op>
void ExpectSameOutputs(OpCall<Op>& actual, OpCall<Op>& expected) {
  std::vector<Tensor> outputs;
  Op::Visit(expected.problem, expected.args,
            [&](const TensorSpec& spec, Tensor& tensor) {
              if (IsOutput(spec.role)) outputs.push_back(tensor);
            });
  size_t output = 0;
  Op::Visit(actual.problem, actual.args,
            [&](const TensorSpec& spec, Tensor& tensor) {
              if (!IsOutput(spec.role)) return;
              SCOPED_TRACE(spec.name);
              const std::string e = expected.Read(outputs[output++]);
              const std::string a = actual.Read(tensor);
              for (int64_t i = 0; i < tensor.size(); ++i) {
                const double value = LoadElement(spec.dtype, e.data(), i);
                ASSERT_NEAR(LoadElement(spec.dtype, a.data(), i), value,
                            std::fabs(value) * Epsilon(spec.dtype) + 1e-5)
                    << "element " << i;
              }
            });
}

// body(provider, device) of all that have a device here.
template <Operator Op, class Body>
void ForEachProvider(Body&& body) {
  auto cpu = MakeCpuDevice({}), cuda = MakeCudaDevice();
  for (const auto& provider : ProvidersOf<Op>()) {
    auto& device = provider.device == DeviceKind::kCpu ? cpu : cuda;
    SCOPED_TRACE(provider.name);
    if (device.ok()) body(provider, **device);
  }
}

}  // namespace seqmark
