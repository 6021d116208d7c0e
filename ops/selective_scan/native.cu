// SPDX-License-Identifier: Apache-2.0
//
// Selective scan on NVIDIA GPUs from sm_80. What limits it: 16 exponentials a
// (token, channel) for the decays and 4 for softplus and SiLU, at 16 lanes a
// clock and multiprocessor (1.25 clocks), and instruction issue at 128 lanes a
// clock. The design keeps everything else below that:
//  - No scan inside a block: a thread owns a channel, its 16 states are
//    registers, time is sequential. A state and step is 5 instructions, all
//    but the multiply-add of h independent of the step before.
//  - Two channels a thread share each load of B and C from shared memory: 16
//    words a (token, channel), 0.25 to 0.5 clocks.
//  - One of the 16 exponentials (two without output) goes to the FMA pipe.
//  - Where channels do not fill the chip, time is split (time_split.h). That
//    doubles most exponentials, but fills 132 multiprocessors at every width.
//
// A (token, channel) with output is 19 special functions / 16 = 1.19 clocks and
// 135 instructions of bf16 code for sm_90 / 128 = 1.05 clocks; without, 16 / 16
// = 1.0 and 111 / 128 = 0.87. On an H200 (132 x 1.98 GHz), with the special
// function unit 90 % busy: 5.1 ps unsplit, where batch x channels fill the
// chip; split, up to 5.1 + 4.3 = 9.4 ps at any width. (Memory: 8 bytes in full
// and 4 for end states, 2 and 1 ps.)
#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan/selective_scan_kernel.cuh"
#include "ops/selective_scan/time_split.h"

namespace seqmark {
namespace {

namespace ss = selective_scan;

// What a launch needs besides the kernel's parameters.
struct Geometry {
  int channels_per_thread = 1;
  bool grouped = false;
  int threads = ss::kThreads;
  int channel_blocks = 1;
  TimeSplit split;
};

bool Divides(const Tensor& t, int64_t bytes) {
  const auto size = static_cast<int64_t>(SizeOf(t.dtype));
  return reinterpret_cast<uintptr_t>(t.data) % bytes == 0 &&
         t.strides[0] * size % bytes == 0 && t.strides[1] * size % bytes == 0;
}

// Whether two neighbouring channels can be read and written as one.
bool CanPair(const SelectiveScan::Problem& p, const SelectiveScan::Args& a) {
  const int64_t bytes = 2 * SizeOf(p.dtype);
  return p.d_inner % 2 == 0 && Divides(a.x, bytes) && Divides(a.dt, bytes) &&
         Divides(a.y, bytes) && (!p.has_z || Divides(a.z, bytes));
}

Geometry ChooseGeometry(const SelectiveScan::Problem& p,
                        const SelectiveScan::Args& a, int multiprocessors) {
  // In steps of one channel a thread, about 75 ns on an H200: two launches
  // more cost 5 us, a link of the chain 60 ns; one warp a scheduler does not
  // hide its latencies, with two channels it nearly does.
  const auto choose = [&](int channels, int per_thread, int64_t workers,
                          double least_rounds) {
    const int64_t blocks = (p.d_inner + channels - 1) / channels;
    TimeSplit split = ChooseTimeSplit(p.seqlen, p.batch * blocks, workers, 8,
                                      {.state_step = 0.83,
                                       .per_split = 70.0 / per_thread,
                                       .per_segment = 0.8 / per_thread,
                                       .least_rounds = least_rounds});
    split.cost *= per_thread;
    return split;
  };
  Geometry g;
  const int groups =
      static_cast<int>((p.d_state + ss::kStates - 1) / ss::kStates);
  if (groups > 1) {
    g.grouped = true;
    g.threads = 32 * groups;
    const int64_t workers = std::max(1, multiprocessors * 4 / groups);
    g.split = choose(32, 1, workers, 1.5);
  } else {
    g.split = choose(ss::kThreads, 1, multiprocessors, 1.5);
    if (CanPair(p, a)) {
      const TimeSplit pairs =
          choose(2 * ss::kThreads, 2, multiprocessors, 1.25);
      // Pairs read half as much of B and C, so they win a draw.
      if (pairs.cost <= 1.1 * g.split.cost) {
        g.split = pairs;
        g.channels_per_thread = 2;
      }
    }
  }
  const int channels = g.grouped ? 32 : ss::kThreads * g.channels_per_thread;
  g.channel_blocks = static_cast<int>((p.d_inner + channels - 1) / channels);
  return g;
}

template <class T>
ss::Params<T> MakeParams(const SelectiveScan::Problem& p,
                         const SelectiveScan::Args& a, const Geometry& g) {
  constexpr int64_t kSize = sizeof(T);
  const auto view = [](const Tensor& t) {
    return ss::View<const T>{t.as<const T>(), t.strides[0] * kSize,
                             t.strides[1] * kSize};
  };
  ss::Params<T> params;
  params.x = view(a.x);
  params.dt = view(a.dt);
  if (p.has_z) params.z = view(a.z);
  params.B = view(a.B);
  params.C = view(a.C);
  params.y = {a.y.as<T>(), a.y.strides[0] * kSize, a.y.strides[1] * kSize};
  params.A = a.A.as<float>();
  if (p.has_d) params.D = a.D.as<float>();
  if (p.has_dt_bias) params.dt_bias = a.dt_bias.as<float>();
  if (p.has_initial_state) params.initial_state = a.initial_state.as<float>();
  params.final_state = a.final_state.as<float>();
  params.batch = static_cast<int>(p.batch);
  params.d_inner = static_cast<int>(p.d_inner);
  params.d_state = static_cast<int>(p.d_state);
  params.columns =
      (params.d_state + ss::kStates - 1) / ss::kStates * ss::kStates;
  params.channel_blocks = g.channel_blocks;
  params.vector_bc =
      params.columns == params.d_state && Divides(a.B, 16) && Divides(a.C, 16);
  params.split = g.split;
  return params;
}

template <class T, int kPer, bool kGrouped>
absl::Status Enqueue(const ss::Params<T>& params, int threads,
                     cudaStream_t stream) {
  const auto segments = static_cast<int>(params.split.segments);
  constexpr int kSteps = ss::kTile<kGrouped>;
  // At most 48 KiB, with 256 states.
  const size_t shared = sizeof(float) * (2 * kSteps * 2 * params.columns +
                                         (kGrouped ? kSteps * threads : 0));
  const auto scan = [&](int first, int count) {
    ss::ScanKernel<T, kPer, kGrouped>
        <<<count * params.batch * params.channel_blocks, threads, shared,
           stream>>>(params, first);
    return LaunchStatus("selective_scan ScanKernel");
  };
  if (segments == 1) return scan(0, 1);
  if (absl::Status s = scan(0, segments - 1); !s.ok()) return s;
  const int64_t chains =
      int64_t{params.batch} * params.columns * params.d_inner;
  ss::ChainKernel<T>
      <<<static_cast<int>((chains + ss::kThreads - 1) / ss::kThreads),
         ss::kThreads, 0, stream>>>(params);
  if (absl::Status s = LaunchStatus("selective_scan ChainKernel"); !s.ok())
    return s;
  return scan(1, segments - 1);
}

absl::StatusOr<Launch> Plan(const SelectiveScan::Problem& p,
                            const SelectiveScan::Args& a, Device& device) {
  if (p.d_state > 256)
    return absl::UnimplementedError(absl::StrCat(
        "d_state ", p.d_state, " is more than a block's 256 states"));
  int multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  const Geometry g = ChooseGeometry(p, a, multiprocessors);
  const int64_t columns =
      (p.d_state + ss::kStates - 1) / ss::kStates * ss::kStates;
  const int64_t slots = g.split.segments - 1;
  const int64_t sums = slots * p.batch * p.d_inner;
  std::shared_ptr<Buffer> work;
  if (slots > 0) {
    auto buffer = device.Allocate(sums * (columns + 1) * sizeof(float),
                                  MemoryClass::kWorkspace);
    if (!buffer.ok()) return buffer.status();
    work = std::make_shared<Buffer>(*std::move(buffer));
  }
  return [=](Stream stream) {
    return DispatchCudaDType(p.dtype, [&](auto tag) {
      using T = decltype(tag);
      ss::Params<T> params = MakeParams<T>(p, a, g);
      if (work != nullptr) {
        params.sums = static_cast<float*>(work->data());
        params.ends = params.sums + sums;
      }
      const cudaStream_t s = AsCudaStream(stream);
      if (g.grouped) return Enqueue<T, 1, true>(params, g.threads, s);
      if (g.channels_per_thread == 2)
        return Enqueue<T, 2, false>(params, g.threads, s);
      return Enqueue<T, 1, false>(params, g.threads, s);
    });
  };
}

const bool registered = AddProvider<SelectiveScan>(
    {.name = "native",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = Plan});

}  // namespace
}  // namespace seqmark
