// SPDX-License-Identifier: Apache-2.0
//
// A call of an operator outside its rows, for tests of what rows cannot show:
// views, in-place calls, calls that follow each other.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fixtures/op_fixture.h"

namespace seqmark {

// Contiguous tensors of a Problem on a Device; a test may replace some.
template <class Op>
struct OpCall {
  OpCall(const typename Op::Problem& p, Device& device)
      : problem(p), device(device) {
    Op::Visit(p, args, [&](const TensorSpec& spec, Tensor& tensor) {
      buffers.push_back(*device.Allocate(Bytes(spec)));
      tensor = Tensor(buffers.back().data(), spec.dtype, spec.dims);
      EXPECT_TRUE(Fill(spec, tensor, 1, device).ok());
    });
  }
  void Run(const Provider<Op>& provider) {
    const auto launch = provider.plan(problem, args, device);
    ASSERT_TRUE(launch.ok()) << launch.status();
    ASSERT_TRUE((*launch)(device.stream()).ok());
    ASSERT_TRUE(device.Synchronize().ok());
  }
  // The bytes of a contiguous tensor.
  std::string Read(const Tensor& tensor) const {
    std::string bytes(tensor.bytes(), '\0');
    EXPECT_TRUE(
        device.CopyToHost(bytes.data(), tensor.data, bytes.size()).ok());
    return bytes;
  }

  typename Op::Problem problem;
  Device& device;
  typename Op::Args args;
  std::vector<Buffer> buffers;
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

// body(provider, device) for each provider whose device is there.
template <class Op, class Body>
void ForEachProvider(Body&& body) {
  auto cpu = MakeCpuDevice({}), cuda = MakeCudaDevice();
  for (const auto& provider : ProvidersOf<Op>()) {
    auto& device = provider.device == DeviceKind::kCpu ? cpu : cuda;
    SCOPED_TRACE(provider.name);
    if (device.ok()) body(provider, **device);
  }
}

}  // namespace seqmark
