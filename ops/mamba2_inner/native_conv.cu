// SPDX-License-Identifier: Apache-2.0
//
// The same as native.cu with x's convolution in the scan's load stage too
// (sm_90a, ops/ssd_scan/hopper_convolve.cuh). B and C, which all heads of a
// group share and each CTA would convolve anew, have a small launch before,
// which also leaves the convolution's last inputs.
#include "fixtures/cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/mamba2_inner/gated_scan.cuh"

namespace seqmark {
namespace {

using T = __nv_bfloat16;
constexpr int kPack = kPackSize<T>;
constexpr int kThreads = 128;
constexpr int kRun = 16;  // tokens of a thread
constexpr int kTaps = ssd::kTaps;
using Raw = Words<T, kPack>;

struct InputsArgs {
  const T* xbc;
  const T* weight;
  const T* bias;   // or null
  const T* state;  // or null
  T* out;          // (batch, seqlen, channels - first): B and C
  T* state_out;
  int64_t batch_stride, token_stride;  // of xbc
  int seqlen, width, channels, first, runs;
  int64_t states;   // threads that leave the last inputs, a pack each
  int64_t threads;  // in all
};

// The input of a token, which may be before the first.
__device__ __forceinline__ Raw InputAt(const InputsArgs& a, int64_t batch,
                                       int token, int channel) {
  if (token >= 0)
    return *reinterpret_cast<const Raw*>(a.xbc + batch * a.batch_stride +
                                         token * a.token_stride + channel);
  const int s = a.width - 1 + token;
  if (a.state == nullptr || s < 0) return {};
  return *reinterpret_cast<const Raw*>(
      a.state + (batch * (a.width - 1) + s) * a.channels + channel);
}

__global__ void __launch_bounds__(kThreads) ConvolveInputs(const InputsArgs a) {
  int64_t id = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (id >= a.threads) return;
  if (id < a.states) {
    const int packs = a.channels / kPack;
    const int channel = static_cast<int>(id % packs) * kPack;
    const int64_t row = id / packs, batch = row / (a.width - 1);
    const int s = static_cast<int>(row % (a.width - 1));
    *reinterpret_cast<Raw*>(a.state_out + row * a.channels + channel) =
        InputAt(a, batch, a.seqlen - (a.width - 1) + s, channel);
    return;
  }
  id -= a.states;
  const int outputs = a.channels - a.first, packs = outputs / kPack;
  const int column = static_cast<int>(id % packs) * kPack;
  const int channel = a.first + column;
  const int64_t rest = id / packs, batch = rest / a.runs;
  const int begin = static_cast<int>(rest % a.runs) * kRun;
  const int end = min(begin + kRun, a.seqlen);
  float tap[kTaps][kPack], bias[kPack], window[kTaps - 1][kPack];
#pragma unroll
  for (int c = 0; c < kPack; ++c) {
    bias[c] = a.bias != nullptr ? ToFloat(a.bias[channel + c]) : 0.0f;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      const int w = k - (kTaps - a.width);
      tap[k][c] =
          w >= 0 ? ToFloat(a.weight[(channel + c) * a.width + w]) : 0.0f;
    }
  }
#pragma unroll
  for (int k = 0; k < kTaps - 1; ++k)
    Unpack<T, kPack>(InputAt(a, batch, begin - (kTaps - 1) + k, channel),
                     window[k]);
  const T* in =
      a.xbc + batch * a.batch_stride + begin * a.token_stride + channel;
  T* out = a.out + (batch * a.seqlen + begin) * outputs + column;
  constexpr int kAhead = 4;  // tokens whose loads are under way together
  for (int first = begin; first < end; first += kAhead) {
    Raw raw[kAhead] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i < end)
        raw[i] = *reinterpret_cast<const Raw*>(in + i * a.token_stride);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      float input[kPack], y[kPack];
      Unpack<T, kPack>(raw[i], input);
#pragma unroll
      for (int c = 0; c < kPack; ++c) {
        float sum = fmaf(tap[0][c], window[0][c], bias[c]);
        sum = fmaf(tap[1][c], window[1][c], sum);
        sum = fmaf(tap[2][c], window[2][c], sum);
        y[c] = SiluFast(fmaf(tap[3][c], input[c], sum));
        window[0][c] = window[1][c];
        window[1][c] = window[2][c];
        window[2][c] = input[c];
      }
      if (first + i < end)
        *reinterpret_cast<Raw*>(out + i * outputs) = RoundPack<T, kPack>(y);
    }
    in += kAhead * a.token_stride;
    out += kAhead * outputs;
  }
}

// As GatedScan, of x as it comes.
struct ConvolvedScan : GatedScan {
  const Tensor& x;  // (batch, seqlen, heads, head_dim), not convolved

  static constexpr bool kAnywhere = false;
  template <class Tile>
  using Of = ssd::GatedAndConvolved<Tile>;
  template <class Tile>
  using StatesOf = Of<Tile>;

  template <class Tile>
  absl::Status SetHopper(ssd::HopperParamsOf<Tile>& params) const {
    if (absl::Status s = GatedScan::SetHopper<Tile>(params); !s.ok()) return s;
    const auto before = ssd::MapHeads<T>(GatedProblem(p), x, ssd::kBeforeRows);
    if (!before.ok()) return before.status();
    params.before = *before;
    params.convolution = {.weight = a.conv_weight.as<T>(),
                          .bias = a.conv_bias.as<T>(),
                          .state = a.conv_state.as<T>(),
                          .width = static_cast<int>(p.conv_width),
                          .channels = static_cast<int>(p.channels())};
    return absl::OkStatus();
  }
};

absl::StatusOr<Launch> PlanInputs(const Mamba2Inner::Problem& p,
                                  const Mamba2Inner::Args& a, T* out) {
  InputsArgs args = {.xbc = a.xbc.as<T>(),
                     .weight = a.conv_weight.as<T>(),
                     .bias = a.conv_bias.as<T>(),
                     .state = a.conv_state.as<T>(),
                     .out = out,
                     .state_out = a.conv_state_out.as<T>(),
                     .batch_stride = a.xbc.strides[0],
                     .token_stride = a.xbc.strides[1],
                     .seqlen = static_cast<int>(p.seqlen),
                     .width = static_cast<int>(p.conv_width),
                     .channels = static_cast<int>(p.channels()),
                     .first = static_cast<int>(p.d_inner())};
  args.runs = (args.seqlen + kRun - 1) / kRun;
  args.states = p.batch * (p.conv_width - 1) * p.channels() / kPack;
  args.threads = args.states +
                 p.batch * args.runs * ((args.channels - args.first) / kPack);
  const int64_t blocks = (args.threads + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX)
    return absl::UnimplementedError("more blocks than a grid has");
  return [args, blocks = static_cast<unsigned>(blocks)](Stream stream) {
    ConvolveInputs<<<blocks, kThreads, 0, AsCudaStream(stream)>>>(args);
    return LaunchStatus("mamba2_inner ConvolveInputs");
  };
}

absl::StatusOr<Launch> Plan(const Mamba2Inner::Problem& p,
                            const Mamba2Inner::Args& a, Device& device) {
  if (p.conv_width < 2 || p.conv_width > kTaps || p.seqlen > INT32_MAX / 2)
    return absl::UnimplementedError("needs a convolution of width 2 to 4");
  for (const Tensor* t : {&a.xbc, &a.conv_state, &a.conv_state_out})
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0)
      return absl::UnimplementedError("needs tensors on 16-byte boundaries");
  const Dims dims = {p.batch, p.seqlen, p.channels() - p.d_inner()};
  auto buffer = device.Allocate(NumElements(dims) * SizeOf(p.dtype),
                                MemoryClass::kWorkspace);
  if (!buffer.ok()) return buffer.status();
  auto scratch = std::make_shared<Buffer>(*std::move(buffer));
  T* const convolved = static_cast<T*>(scratch->data());
  const SsdScan::Problem problem = GatedProblem(p);
  // x where it lies, B and C convolved.
  SsdScan::Args args = GatedArgs(p, a, a.xbc);
  const auto place = [&](Tensor& t, int64_t first) {
    t.data = convolved + first;
    t.strides[0] = dims[1] * dims[2];
    t.strides[1] = dims[2];
  };
  place(args.B, 0);
  place(args.C, p.groups * p.d_state);
  if (absl::Status s = TakesGatedScan(p, a, problem, args); !s.ok()) return s;
  const ConvolvedScan way = {{p, a}, args.x};
  const auto scan = ssd::PlanChunks<T>(problem, args, device, way);
  if (!scan.ok()) return scan.status();
  const auto inputs = PlanInputs(p, a, convolved);
  if (!inputs.ok()) return inputs.status();
  return [inputs = *inputs, scan = *scan, scratch](Stream stream) {
    absl::Status status = inputs(stream);
    if (status.ok()) status = scan(stream);
    return status;
  };
}

const bool registered = AddProvider<Mamba2Inner>({.name = "native_conv",
                                                  .device = DeviceKind::kCuda,
                                                  .dtypes = {DType::kBF16},
                                                  .plan = Plan,
                                                  .supports = IsGated});

}  // namespace
}  // namespace seqmark
