// SPDX-License-Identifier: Apache-2.0
//
// Token embedding on a GPU: a copy whose rows are looked up, at the speed of
// memory. A thread takes two 16-byte packs, and asks for their tokens at once,
// then for the packs, by plain loads. Blocks are small and end, so that a
// multiprocessor has 64 KB in flight, of which some wait for their tokens. A
// call that is too small for that gives each thread one pack, so that a few
// rows are spread over the chip; widths that are not whole packs take an
// element at a time. README.md has the figures.
#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/embedding/embedding.h"

namespace seqmark {
namespace {

// Of a thread; single elements, of tensors that are not whole packs, are more.
template <int kPack>
inline constexpr int kMostPacks = kPack > 1 ? 2 : 4;

struct EmbeddingArgs {
  const int32_t* tokens;
  const void* table;
  const void* positions;  // of the first token; null without
  void* y;
  unsigned packs;  // of y in all
  Divisor row_packs;
  Divisor seqlen;
  float scale;
};

// Threads take packs of y in turn, so that a warp's accesses are contiguous.
template <class T, int kPack, int kPacks>
__global__ void __launch_bounds__(kFewPacksThreads)
    EmbeddingKernel(const EmbeddingArgs a) {
  LetNextStart();
  WaitForPrevious();
  using W = Words<T, kPack>;
  const unsigned first = blockIdx.x * blockDim.x * kPacks + threadIdx.x;
  const auto pack_of = [&](int i) { return first + i * blockDim.x; };
  unsigned row[kPacks] = {};
  int64_t token[kPacks] = {};
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= a.packs) continue;
    row[i] = a.row_packs.Quotient(pack_of(i));
    token[i] = a.tokens[row[i]];
  }
  W looked_up[kPacks] = {}, learned[kPacks] = {};
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= a.packs) continue;
    const unsigned row_packs = a.row_packs.divisor();
    const unsigned column = pack_of(i) - row[i] * row_packs;
    looked_up[i] =
        static_cast<const W*>(a.table)[token[i] * row_packs + column];
    if (a.positions != nullptr) {
      const int64_t position =
          row[i] - a.seqlen.Quotient(row[i]) * a.seqlen.divisor();
      learned[i] =
          static_cast<const W*>(a.positions)[position * row_packs + column];
    }
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    if (pack_of(i) >= a.packs) continue;
    float v[kPack], p[kPack];
    Unpack<T, kPack>(looked_up[i], v);
    Unpack<T, kPack>(learned[i], p);  // zeros without
#pragma unroll
    for (int j = 0; j < kPack; ++j) v[j] = fmaf(v[j], a.scale, p[j]);
    static_cast<W*>(a.y)[pack_of(i)] = RoundPack<T, kPack>(v);
  }
}

template <class T, int kPack>
absl::StatusOr<Launch> PlanPack(const Embedding::Problem& p,
                                const Embedding::Args& a) {
  const int64_t packs = p.rows() * p.width / kPack;
  const auto grid = ChoosePackGrid(packs, kMostPacks<kPack>);
  if (!grid.ok()) return grid.status();
  const EmbeddingArgs args = {
      .tokens = a.tokens.as<int32_t>(),
      .table = a.table.data,
      .positions =
          a.positions ? a.positions.as<T>() + p.position * p.width : nullptr,
      .y = a.y.data,
      .packs = static_cast<unsigned>(packs),
      .row_packs = Divisor(static_cast<uint32_t>(p.width / kPack)),
      .seqlen = Divisor(static_cast<uint32_t>(p.seqlen)),
      .scale = p.scale};
  auto* const kernel = grid->few ? EmbeddingKernel<T, kPack, 1>
                                 : EmbeddingKernel<T, kPack, kMostPacks<kPack>>;
  return [args, kernel, grid = *grid](Stream stream) {
    return LaunchDependent(kernel, grid.blocks, grid.threads, 0,
                           AsCudaStream(stream), "EmbeddingKernel", args);
  };
}

absl::StatusOr<Launch> Plan(const Embedding::Problem& p,
                            const Embedding::Args& a, Device&) {
  if (absl::Status s = Embedding::Check(p); !s.ok()) return s;
  Launch launch;
  const absl::Status status = DispatchCudaDType(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    bool whole = p.width % kPackSize<T> == 0;
    for (const void* data : {a.table.data, a.positions.data, a.y.data})
      whole &= reinterpret_cast<uintptr_t>(data) % 16 == 0;
    auto planned =
        whole ? PlanPack<T, kPackSize<T>>(p, a) : PlanPack<T, 1>(p, a);
    if (planned.ok()) launch = *std::move(planned);
    return planned.status();
  });
  if (!status.ok()) return status;
  return launch;
}

const bool registered =
    AddProvider<Embedding>({.name = "native",
                            .device = DeviceKind::kCuda,
                            .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                            .plan = Plan});

}  // namespace
}  // namespace seqmark
