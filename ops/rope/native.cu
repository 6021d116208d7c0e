// SPDX-License-Identifier: Apache-2.0
//
// Rotary embedding on a GPU, in one launch. Memory limits it: a thread asks for
// all it will write (both halves' packs of up to four heads, 64 bytes) before
// it computes anything, by plain loads, and its sines and cosines, some 25
// instructions each, are shared by those heads. Blocks are small and end: a
// multiprocessor has 64 KB and more in flight, all close together in memory.
// Angles are 64-bit integers in parts of a turn (ops/rope/rope.h): no range
// reduction, and doubles only to scale the frequencies. README.md has the
// figures.
//
// Work is cut into units: a pack of pairs of one head of one token, or two
// packs that are only copied. Neighbouring threads own neighbouring units, then
// neighbouring heads. A few tokens take half a pack and two heads a thread, to
// be spread.
#include <algorithm>

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/rope/rope.h"

namespace seqmark {
namespace {

constexpr int kMostThreads = 128;  // of a block
constexpr int kMostHeads = 4;      // of a thread

// One of q, k and v. Strides are in elements.
struct RopeStream {
  const void* in = nullptr;
  void* out = nullptr;
  int64_t in_batch = 0, in_token = 0;
  int64_t out_batch = 0, out_token = 0;
  int first = 0;  // of its heads among those of all streams
};

struct RopeArgs {
  RopeStream streams[3];
  int heads;     // of all streams, numbered through
  int rotating;  // heads, the first ones
  int head_dim;
  int half;            // of the pairs
  int rotating_units;  // of a head
  int copy_shift;      // elements between the two packs of a unit that copies
  Divisor units;       // of a head
  Divisor groups;      // threads that share the heads
  Divisor seqlen;
  unsigned threads;
  uint64_t position;
  float factor;
  const float* inverse_frequency;  // (half)
};

// cos and sin of kPack pairs from `first` at `position`, times the factor.
template <int kPack>
__device__ __forceinline__ void Angles(const RopeArgs& a, int first,
                                       uint64_t position,
                                       float (&cosine)[kPack],
                                       float (&sine)[kPack]) {
  constexpr int kLoad = kPack % 4 == 0 ? 4 : 1;
  const auto* const from =
      reinterpret_cast<const Pack<float, kLoad>*>(a.inverse_frequency + first);
#pragma unroll
  for (int i = 0; i < kPack; i += kLoad) {
    const Pack<float, kLoad> frequency = from[i / kLoad];
#pragma unroll
    for (int j = 0; j < kLoad; ++j) {
      const int64_t step =
          static_cast<int64_t>(Rope::kPhasesPerRadian * frequency.v[j]);
      const uint64_t phase = position * static_cast<uint64_t>(step);
      const float half_turns =
          static_cast<float>(static_cast<int32_t>(phase >> 32)) * 0x1p-31f;
      sincospif(half_turns, &sine[i + j], &cosine[i + j]);
      sine[i + j] *= a.factor;
      cosine[i + j] *= a.factor;
    }
  }
}

template <class T, int kPack, int kHeads>
__global__ void __launch_bounds__(kMostThreads) RopeKernel(const RopeArgs a) {
  LetNextStart();
  WaitForPrevious();
  using W = Words<T, kPack>;
  const unsigned id = blockIdx.x * blockDim.x + threadIdx.x;
  if (id >= a.threads) return;
  const unsigned of_unit = a.units.Quotient(id);
  const unsigned of_group = a.groups.Quotient(of_unit);
  const int64_t batch = a.seqlen.Quotient(of_group);
  const int unit = static_cast<int>(id - of_unit * a.units.divisor());
  const int groups = static_cast<int>(a.groups.divisor());
  const int group =
      static_cast<int>(of_unit) - static_cast<int>(of_group) * groups;
  const int64_t token = of_group - batch * a.seqlen.divisor();

  const bool pairs = unit < a.rotating_units;
  const int low =
      pairs ? unit * kPack : 2 * a.half + (unit - a.rotating_units) * kPack;
  const int high = low + (pairs ? a.half : a.copy_shift);
  const bool both = high < a.head_dim;
  const auto stream_of = [&](int head) -> const RopeStream& {
    return a
        .streams[(head >= a.streams[1].first) + (head >= a.streams[2].first)];
  };

  W raw[kHeads][2] = {};
#pragma unroll
  for (int j = 0; j < kHeads; ++j) {
    const int head = group + j * groups;
    if (head >= a.heads) continue;
    const RopeStream& s = stream_of(head);
    const T* const from = static_cast<const T*>(s.in) + batch * s.in_batch +
                          token * s.in_token + (head - s.first) * a.head_dim;
    raw[j][0] = *reinterpret_cast<const W*>(from + low);
    if (both) raw[j][1] = *reinterpret_cast<const W*>(from + high);
  }

  float cosine[kPack], sine[kPack];
  if (pairs && group < a.rotating)
    Angles<kPack>(a, low, a.position + token, cosine, sine);

#pragma unroll
  for (int j = 0; j < kHeads; ++j) {
    const int head = group + j * groups;
    if (pairs && head < a.rotating) {
      float x1[kPack], x2[kPack];
      Unpack<T, kPack>(raw[j][0], x1);
      Unpack<T, kPack>(raw[j][1], x2);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const float first = x1[i];
        x1[i] = fmaf(-x2[i], sine[i], first * cosine[i]);
        x2[i] = fmaf(first, sine[i], x2[i] * cosine[i]);
      }
      raw[j][0] = RoundPack<T, kPack>(x1);
      raw[j][1] = RoundPack<T, kPack>(x2);
    }
    if (head >= a.heads) continue;
    const RopeStream& s = stream_of(head);
    T* const to = static_cast<T*>(s.out) + batch * s.out_batch +
                  token * s.out_token + (head - s.first) * a.head_dim;
    *reinterpret_cast<W*>(to + low) = raw[j][0];
    if (both) *reinterpret_cast<W*>(to + high) = raw[j][1];
  }
}

// Whether every access of `pack` elements of T is aligned.
template <class T>
bool Aligned(const Rope::Problem& p, const Rope::Args& a, int pack) {
  bool aligned =
      p.head_dim % pack == 0 && p.rotary_dim / 2 % pack == 0 &&
      reinterpret_cast<uintptr_t>(a.inverse_frequency.data) % 16 == 0;
  for (const Tensor* t : {&a.q, &a.k, &a.v, &a.q_out, &a.k_out, &a.v_out}) {
    if (!*t) continue;
    aligned &= reinterpret_cast<uintptr_t>(t->data) % (pack * sizeof(T)) == 0;
    for (int axis : {0, 1})  // an axis of one has no step
      aligned &= t->dims[axis] == 1 || t->strides[axis] % pack == 0;
  }
  return aligned;
}

template <class T, int kPack, int kHeads>
absl::StatusOr<Launch> PlanPack(const Rope::Problem& p, const Rope::Args& a,
                                int multiprocessors) {
  const auto divide_up = [](int64_t n, int64_t d) { return (n + d - 1) / d; };
  const int64_t copied = (p.head_dim - p.rotary_dim) / kPack;  // packs
  RopeArgs args = {.head_dim = static_cast<int>(p.head_dim),
                   .half = static_cast<int>(p.rotary_dim / 2),
                   .rotating_units = static_cast<int>(p.rotary_dim / 2 / kPack),
                   .copy_shift = static_cast<int>(divide_up(copied, 2) * kPack),
                   .units = Divisor(static_cast<uint32_t>(
                       p.rotary_dim / 2 / kPack + divide_up(copied, 2))),
                   .seqlen = Divisor(static_cast<uint32_t>(p.seqlen)),
                   .position = static_cast<uint64_t>(p.position),
                   .factor = p.factor,
                   .inverse_frequency = a.inverse_frequency.as<float>()};
  int stream = 0;
  const auto add = [&](const Tensor& in, const Tensor& out, bool rotates) {
    RopeStream& s = args.streams[stream++];
    s.first = args.heads;
    if (!in || (!rotates && in.data == out.data)) return;
    s = {in.data,        out.data,       in.strides[0], in.strides[1],
         out.strides[0], out.strides[1], args.heads};
    args.heads += static_cast<int>(in.dims[2]);
    if (rotates) args.rotating = args.heads;
  };
  add(a.q, a.q_out, p.rotary_dim > 0);
  add(a.k, a.k_out, p.rotary_dim > 0);
  add(a.v, a.v_out, false);
  if (args.heads == 0) return [](Stream) { return absl::OkStatus(); };

  args.groups = Divisor(static_cast<uint32_t>(divide_up(args.heads, kHeads)));
  const int64_t threads =
      p.batch * p.seqlen * args.units.divisor() * args.groups.divisor();
  if (threads > INT32_MAX)
    return absl::UnimplementedError(
        absl::StrCat("needs ", threads, " threads, and has up to 2^31 - 1"));
  args.threads = static_cast<unsigned>(threads);
  // The fewer there are, the smaller the blocks: all multiprocessors share.
  const int block = static_cast<int>(std::clamp<int64_t>(
      divide_up(threads, int64_t{multiprocessors} * 32) * 32, 32,
      kMostThreads));
  const auto grid = static_cast<unsigned>(divide_up(threads, block));
  return [args, grid, block](Stream stream) {
    return LaunchDependent(RopeKernel<T, kPack, kHeads>, grid, block, 0,
                           AsCudaStream(stream), "RopeKernel", args);
  };
}

absl::StatusOr<Launch> Plan(const Rope::Problem& p, const Rope::Args& a,
                            Device&) {
  if (absl::Status s = Rope::Check(p); !s.ok()) return s;
  int device = 0, multiprocessors = 0;
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  SEQMARK_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, device));
  // Bytes that are read.
  const int64_t bytes = p.batch * p.seqlen *
                        (p.heads + (p.has_v ? 2 : 1) * p.kv_heads) *
                        p.head_dim * static_cast<int64_t>(SizeOf(p.dtype));
  const bool few = bytes <= int64_t{multiprocessors} * 48 * 1024;
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int kPack = kPackSize<T>;
    const auto plan = few && Aligned<T>(p, a, kPack / 2)
                          ? PlanPack<T, kPack / 2, 2>
                      : Aligned<T>(p, a, kPack) ? PlanPack<T, kPack, kMostHeads>
                                                : PlanPack<T, 1, kMostHeads>;
    auto planned = plan(p, a, multiprocessors);
    if (planned.ok()) launch = *std::move(planned);
    return planned.status();
  });
  if (!status.ok()) return status;
  return launch;
}

const bool registered =
    AddProvider<Rope>({.name = "native",
                       .device = DeviceKind::kCuda,
                       .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                       .plan = Plan});

}  // namespace
}  // namespace seqmark
