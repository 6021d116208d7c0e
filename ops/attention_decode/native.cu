// SPDX-License-Identifier: Apache-2.0
//
// Attention of one token on NVIDIA GPUs, bound by reading keys and values once
// ("flash decoding": Dao et al. 2023). The keys are cut into as many pieces as
// fill the GPU once, at two key heads as at hundreds; each piece keeps a
// hundred kilobytes a multiprocessor on their way (split.cuh), and 16-bit types
// use matrix products whatever the number of heads (mma.cuh). A second kernel
// adds up the pieces; it comes up while the first still runs.
#include <algorithm>
#include <cmath>

#include "fixtures/op_fixture.h"
#include "ops/attention_decode/attention_decode.h"
#include "ops/attention_decode/combine.cuh"
#include "ops/attention_decode/fma.cuh"
#include "ops/attention_decode/mma.cuh"

namespace seqmark {
namespace {

using decode::Call;
using decode::kMaxWarps;

struct Kernel {
  void (*run)(Call) = nullptr;
  int heads = 1;          // of a group that a block takes
  size_t warp_bytes = 0;  // of shared memory
  size_t block_bytes = 0;
};

template <class T, int kDim>
Kernel MmaKernel(int64_t group) {
  const size_t ring = decode::Ring<T, kDim>::kBytes;
  if (group <= 8)
    return {
        .run = decode::DecodeMma<T, kDim, 1>, .heads = 8, .warp_bytes = ring};
  return {
      .run = decode::DecodeMma<T, kDim, 2>, .heads = 16, .warp_bytes = ring};
}

template <int kDim, int kHeads>
Kernel FmaKernel() {
  return {.run = decode::DecodeFma<kDim, kHeads>,
          .heads = kHeads,
          .warp_bytes =
              decode::Ring<float, kDim>::kBytes + decode::kWeightBytes<kHeads>,
          .block_bytes = decode::kQueryBytes<kDim, kHeads>};
}
template <int kDim>
Kernel FmaKernel(int64_t group) {
  if (group == 1) return FmaKernel<kDim, 1>();
  return group <= 4 ? FmaKernel<kDim, 4>() : FmaKernel<kDim, 8>();
}

// For a head_dim of keys or values up to 256; kernels pad both to a size they
// are made for, in shared memory alone.
template <class T>
Kernel ChooseKernel(int64_t dim, int64_t group) {
  if constexpr (sizeof(T) == 4) {
    if (dim <= 64) return FmaKernel<64>(group);
    if (dim <= 128) return FmaKernel<128>(group);
    return FmaKernel<256>(group);
  } else {
    if (dim <= 64) return MmaKernel<T, 64>(group);
    if (dim <= 80) return MmaKernel<T, 80>(group);
    if (dim <= 96) return MmaKernel<T, 96>(group);
    if (dim <= 128) return MmaKernel<T, 128>(group);
    return MmaKernel<T, 256>(group);
  }
}

// How many pieces the keys are cut into, of `units` independent parts and
// `slots` blocks that run at once: the number that needs the fewest rounds of
// one tile a warp. A wave of blocks starts and ends in some two rounds, and a
// piece more is a little more to combine.
int ChooseSplits(int64_t units, int64_t slots, int64_t tiles, int warps) {
  constexpr int64_t kMost = 512;
  int best = 1;
  double least = HUGE_VAL;
  for (int64_t splits = 1; splits <= std::min(kMost, tiles); ++splits) {
    const int64_t waves = (units * splits + slots - 1) / slots;
    const int64_t rounds = (tiles + splits * warps - 1) / (splits * warps);
    const double time = static_cast<double>(waves * (rounds + 2)) +
                        0.01 * static_cast<double>(splits);
    if (time < least) {
      least = time;
      best = static_cast<int>(splits);
    }
    if (rounds == 1) break;  // more pieces would leave warps idle
  }
  return best;
}

absl::Status CheckAligned(const AttentionDecode::Problem& p,
                          const AttentionDecode::Args& a) {
  const int64_t pack = 16 / static_cast<int64_t>(SizeOf(p.dtype));
  for (const Tensor* t : {&a.k, &a.v})
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0 ||
        t->strides[0] % pack != 0 || t->strides[1] % pack != 0 ||
        t->dims[3] % pack != 0)
      return absl::UnimplementedError(
          "rows of k and v must start on multiples of 16 bytes");
  if (p.head_dim > 256 || p.value_dim() > 256)
    return absl::UnimplementedError("head_dim must be at most 256");
  return absl::OkStatus();
}

template <class T>
absl::StatusOr<Launch> PlanTyped(const AttentionDecode::Problem& p,
                                 const AttentionDecode::Args& a,
                                 Device& device) {
  const Kernel kernel =
      ChooseKernel<T>(std::max(p.head_dim, p.value_dim()), p.group());
  int id = 0, processors = 0, most_shared = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&id));
  SEQMARK_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, id));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, id));
  const int warps = std::min(
      kMaxWarps,
      static_cast<int>((most_shared - kernel.block_bytes) / kernel.warp_bytes));
  if (warps == 0)
    return absl::UnimplementedError("too little shared memory a block");
  const size_t shared = warps * kernel.warp_bytes + kernel.block_bytes;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel.run, cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(shared)));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel.run, cudaFuncAttributePreferredSharedMemoryCarveout,
      cudaSharedmemCarveoutMaxShared));
  int blocks = 0;  // a multiprocessor
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, kernel.run, warps * 32, shared));

  Call call = {.q = a.q.data,
               .k = a.k.data,
               .v = a.v.data,
               .o = a.o.data,
               .q_batch = a.q.strides[0],
               .k_batch = a.k.strides[0],
               .k_row = a.k.strides[1],
               .v_batch = a.v.strides[0],
               .v_row = a.v.strides[1],
               .o_batch = a.o.strides[0],
               .kv_heads = static_cast<int>(p.kv_heads),
               .group = static_cast<int>(p.group()),
               .head_dim = static_cast<int>(p.head_dim),
               .value_dim = static_cast<int>(p.value_dim()),
               .sinks = static_cast<int>(p.sinks()),
               .first_key = p.first_key(),
               .keys = static_cast<int>(p.seqlen - p.first_key()),
               .scale = static_cast<float>(M_LOG2E / std::sqrt(p.head_dim))};
  call.head_tiles = (call.group + kernel.heads - 1) / kernel.heads;
  const auto tiles_of = [](int keys) {
    return (keys + decode::kTileKeys - 1) / decode::kTileKeys;
  };
  call.sink_tiles = tiles_of(call.sinks);
  call.tiles = call.sink_tiles + tiles_of(call.keys);
  const int64_t units = p.batch * p.kv_heads * call.head_tiles;
  call.splits = ChooseSplits(
      units, static_cast<int64_t>(processors) * std::max(blocks, 1), call.tiles,
      warps);
  const auto grid = static_cast<unsigned>(units * call.splits);
  const auto rows = static_cast<unsigned>(p.batch * p.heads);
  const auto run = [=](Stream stream, const Call& with) {
    return LaunchDependent(kernel.run, grid, warps * 32, shared,
                           AsCudaStream(stream), "attention_decode", with);
  };
  if (call.splits == 1) return [=](Stream stream) { return run(stream, call); };

  const size_t pieces = size_t{rows} * call.splits;
  const size_t output_bytes = pieces * p.value_dim() * sizeof(float);
  auto scratch = device.Allocate(output_bytes + pieces * sizeof(float2),
                                 MemoryClass::kWorkspace);
  if (!scratch.ok()) return scratch.status();
  call.outputs = static_cast<float*>(scratch->data());
  call.sums = reinterpret_cast<float2*>(
      static_cast<std::byte*>(scratch->data()) + output_bytes);
  return [=, scratch = std::make_shared<Buffer>(*std::move(scratch))](
             Stream stream) -> absl::Status {
    if (absl::Status s = run(stream, call); !s.ok()) return s;
    return LaunchDependent(decode::DecodeCombine<T>, rows,
                           decode::kCombineThreads, 0, AsCudaStream(stream),
                           "attention_decode's combination", call);
  };
}

absl::StatusOr<Launch> Plan(const AttentionDecode::Problem& p,
                            const AttentionDecode::Args& a, Device& device) {
  if (absl::Status s = CheckAligned(p, a); !s.ok()) return s;
  absl::StatusOr<Launch> launch = absl::UnknownError("no plan");
  absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    launch = PlanTyped<decltype(tag)>(p, a, device);
    return launch.status();
  });
  if (!status.ok()) return status;
  return launch;
}

const bool registered = AddProvider<AttentionDecode>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
