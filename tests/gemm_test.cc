// SPDX-License-Identifier: Apache-2.0
//
// A linear layer on slices of wider rows, as models call it: the same bits as
// on contiguous copies of them, and nothing written beside them.
#include "ops/gemm/gemm.h"

#include <gtest/gtest.h>

#include "fixtures/op_fixture.h"

namespace seqmark {
namespace {

constexpr int64_t kBatch = 2, kSeqlen = 3, kIn = 40, kOut = 24;
constexpr int64_t kXWidth = 96, kYWidth = 64, kOffset = 16;

class Memory {
 public:
  Memory(Device& device, DType dtype, Dims dims) {
    buffer_ = *device.Allocate(NumElements(dims) * SizeOf(dtype));
    tensor_ = Tensor(buffer_.data(), dtype, dims);
  }
  const Tensor& tensor() const { return tensor_; }
  // Columns offset..offset + width of the last axis.
  Tensor Slice(int64_t offset, int64_t width) const {
    Tensor slice = tensor_;
    slice.data =
        tensor_.as<std::byte>() + offset * int64_t(SizeOf(tensor_.dtype));
    slice.dims.back() = width;
    return slice;
  }
  std::vector<double> Read(Device& device) const {
    std::vector<std::byte> raw(tensor_.bytes());
    EXPECT_TRUE(device.CopyToHost(raw.data(), tensor_.data, raw.size()).ok());
    std::vector<double> values(tensor_.size());
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = LoadElement(tensor_.dtype, raw.data(), i);
    return values;
  }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

void CheckSlices(const Provider<Gemm>& provider, Device& device, DType dtype) {
  SCOPED_TRACE(testing::Message() << provider.name << " " << Name(dtype));
  Gemm::Problem p;
  p.dtype = dtype;
  p.batch = kBatch;
  p.seqlen = kSeqlen;
  p.in_features = kIn;
  p.out_features = kOut;
  const Memory weight(device, dtype, {kOut, kIn});
  const Memory wide_x(device, dtype, {kBatch, kSeqlen, kXWidth});
  const Memory wide_y(device, dtype, {kBatch, kSeqlen, kYWidth});
  const Memory x(device, dtype, {kBatch, kSeqlen, kIn});
  const Memory y(device, dtype, {kBatch, kSeqlen, kOut});
  const auto fill = [&](const char* name, Role role, const Memory& m) {
    ASSERT_TRUE(
        Fill({name, role, dtype, m.tensor().dims}, m.tensor(), 1, device).ok());
  };
  fill("weight", Role::kWeight, weight);
  fill("x", Role::kActivation, wide_x);
  fill("beside", Role::kActivation, wide_y);
  const std::vector<double> beside = wide_y.Read(device);
  const size_t element = SizeOf(dtype);
  for (int64_t row = 0; row < kBatch * kSeqlen; ++row)
    ASSERT_TRUE(
        device
            .CopyWithin(x.tensor().as<std::byte>() + row * kIn * element,
                        wide_x.tensor().as<std::byte>() +
                            (row * kXWidth + kOffset) * element,
                        kIn * element)
            .ok());
  const auto run = [&](const Tensor& from, const Tensor& to) {
    const auto launch = provider.plan(
        p, {.x = from, .weight = weight.tensor(), .y = to}, device);
    ASSERT_TRUE(launch.ok()) << launch.status();
    ASSERT_TRUE((*launch)(device.stream()).ok());
    ASSERT_TRUE(device.Synchronize().ok());
  };
  run(x.tensor(), y.tensor());
  run(wide_x.Slice(kOffset, kIn), wide_y.Slice(kOffset, kOut));
  const std::vector<double> want = y.Read(device), got = wide_y.Read(device);
  for (int64_t row = 0; row < kBatch * kSeqlen; ++row)
    for (int64_t i = 0; i < kYWidth; ++i) {
      const bool inside = i >= kOffset && i < kOffset + kOut;
      const double value = got[row * kYWidth + i];
      if (inside)
        EXPECT_NEAR(value, want[row * kOut + i - kOffset],
                    8 * Epsilon(dtype));  // another kernel may be chosen
      else
        EXPECT_EQ(value, beside[row * kYWidth + i]) << row << ", " << i;
    }
}

TEST(Gemm, TakesSlicesOfWiderRows) {
  for (const Provider<Gemm>& provider : ProvidersOf<Gemm>()) {
    auto device = provider.device == DeviceKind::kCpu ? MakeCpuDevice({})
                                                      : MakeCudaDevice();
    if (!device.ok()) continue;
    for (DType dtype : provider.dtypes) CheckSlices(provider, **device, dtype);
  }
}

TEST(Gemm, RowsMustBeEquallySpaced) {
  float memory[1];
  Tensor t(memory, DType::kF32, {2, 3, 4});
  EXPECT_EQ(*Gemm::RowStride(t), 4);
  t.strides[0] = 100;
  EXPECT_EQ(Gemm::RowStride(t).status().code(),
            absl::StatusCode::kInvalidArgument);
  t.dims[1] = 1;
  EXPECT_EQ(*Gemm::RowStride(t), 100);
}

}  // namespace
}  // namespace seqmark
