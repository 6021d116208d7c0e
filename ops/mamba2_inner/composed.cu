// SPDX-License-Identifier: Apache-2.0
//
// CUDA's: its convolution and its scan, then the gate and the norm's part in
// one pass over y, as fast as memory is. It moves what a gated norm moves, so
// that this is the unfused chain to compare with. Also what other providers
// leave: f32, and heads of any size.
#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/mamba2_inner/shared_plans.h"

namespace seqmark {
namespace {

constexpr int kThreads = 256;
constexpr int kPartThreads = 8;  // side by side, on one part of a row

struct GateTensors {
  void* y;
  const void* z;  // or null
  const void* weight;
  float* squares;
  int64_t y_batch, y_token, z_batch, z_token;  // strides, in elements
  int64_t squares_batch, squares_token;
  int64_t rows_parts;        // batch * seqlen * parts
  int seqlen, parts, width;  // width: of a part
};

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads) GateKernel(const GateTensors t) {
  const int64_t id =
      (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) /
      kPartThreads;
  const bool exists = id < t.rows_parts;
  const int64_t at = exists ? id : t.rows_parts - 1;
  const int64_t row = at / t.parts;
  const int part = static_cast<int>(at - row * t.parts);
  const int64_t batch = row / t.seqlen, token = row - batch * t.seqlen;
  T* const y = static_cast<T*>(t.y) + batch * t.y_batch + token * t.y_token +
               part * t.width;
  const T* const z = static_cast<const T*>(t.z) + batch * t.z_batch +
                     token * t.z_token + part * t.width;
  const T* const weight = static_cast<const T*>(t.weight) + part * t.width;
  using Raw = Words<T, kPack>;
  float sum = 0;
  for (int i = threadIdx.x % kPartThreads * kPack; exists && i < t.width;
       i += kPartThreads * kPack) {
    float v[kPack], w[kPack];
    Unpack<T, kPack>(*reinterpret_cast<const Raw*>(y + i), v);
    Unpack<T, kPack>(*reinterpret_cast<const Raw*>(weight + i), w);
    if (t.z != nullptr) {
      float gate[kPack];
      Unpack<T, kPack>(*reinterpret_cast<const Raw*>(z + i), gate);
#pragma unroll
      for (int k = 0; k < kPack; ++k) v[k] *= SiluFast(gate[k]);
    }
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      sum += v[k] * v[k];
      v[k] *= w[k];
    }
    *reinterpret_cast<Raw*>(y + i) = RoundPack<T, kPack>(v);
  }
#pragma unroll
  for (int lane = kPartThreads / 2; lane > 0; lane /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, lane);
  if (exists && threadIdx.x % kPartThreads == 0)
    t.squares[batch * t.squares_batch + token * t.squares_token + part] = sum;
}

template <class T>
bool IsPacked(const GateTensors& t) {
  const auto aligned = [](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
  };
  const auto whole = [](int64_t n) { return n % kPackSize<T> == 0; };
  return aligned(t.y) && aligned(t.z) && aligned(t.weight) && whole(t.width) &&
         whole(t.y_batch) && whole(t.y_token) && whole(t.z_batch) &&
         whole(t.z_token);
}

absl::StatusOr<Launch> Gate(const Mamba2Inner::Problem& p,
                            const Mamba2Inner::Args& a, Device&) {
  GateTensors t = {.y = a.y.data,
                   .z = a.z.data,
                   .weight = a.norm_weight.data,
                   .squares = a.squares.as<float>(),
                   .y_batch = a.y.strides[0],
                   .y_token = a.y.strides[1],
                   .squares_batch = a.squares.strides[0],
                   .squares_token = a.squares.strides[1],
                   .rows_parts = p.batch * p.seqlen * p.parts(),
                   .seqlen = static_cast<int>(p.seqlen),
                   .parts = static_cast<int>(p.parts()),
                   .width = static_cast<int>(p.part_width())};
  if (p.has_z) {
    t.z_batch = a.z.strides[0];
    t.z_token = a.z.strides[1];
  }
  const int64_t blocks =
      (t.rows_parts * kPartThreads + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX || p.seqlen > INT32_MAX)
    return absl::UnimplementedError("more blocks than a grid has");
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch = [t, blocks = static_cast<unsigned>(blocks),
              packed = IsPacked<T>(t)](Stream s) {
      const cudaStream_t stream = AsCudaStream(s);
      if (packed)
        GateKernel<T, kPackSize<T>><<<blocks, kThreads, 0, stream>>>(t);
      else
        GateKernel<T, 1><<<blocks, kThreads, 0, stream>>>(t);
      return LaunchStatus("mamba2_inner GateKernel");
    };
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return launch;
}

const bool registered = AddProvider<Mamba2Inner>(
    {.name = "composed",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const Mamba2Inner::Problem& p, const Mamba2Inner::Args& a,
                Device& device) { return PlanComposed(p, a, device, Gate); },
     .supports = HoldsItsOutput});

}  // namespace
}  // namespace seqmark
