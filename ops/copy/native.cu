// SPDX-License-Identifier: Apache-2.0
//
// A copy made as our kernels that memory limits are (activation, norms): 16
// bytes an access by plain loads, two a thread before either is stored, small
// blocks that end. Not StreamTiles, the ceilings' copy: its tiles of 32 KB keep
// past L1, and a block's 256 threads wait for eight accesses each, which is not
// the fastest form of a copy (ops/norm/README.md has the forms' figures).
#include <algorithm>

#include "fixtures/cuda.h"
#include "fixtures/dependent_launch_cuda.h"
#include "fixtures/op_fixture.h"
#include "fixtures/pack_cuda.h"
#include "ops/copy/copy.h"

namespace seqmark {
namespace {

constexpr int kMostWords = 2;  // of a thread

// `words` of W, taken in turn by threads so that a warp's accesses are
// contiguous, and `rest` bytes behind them, fewer than a word.
template <class W, int kWords>
__global__ void __launch_bounds__(kFewPacksThreads)
    CopyKernel(const W* x, W* y, unsigned words, unsigned rest) {
  LetNextStart();
  WaitForPrevious();
  const unsigned first = blockIdx.x * blockDim.x * kWords + threadIdx.x;
  W v[kWords] = {};
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const unsigned word = first + i * blockDim.x;
    if (word < words) v[i] = x[word];
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const unsigned word = first + i * blockDim.x;
    if (word < words) y[word] = v[i];
  }
  if (blockIdx.x == 0 && threadIdx.x < rest)
    reinterpret_cast<char*>(y + words)[threadIdx.x] =
        reinterpret_cast<const char*>(x + words)[threadIdx.x];
}

template <class W>
absl::StatusOr<Launch> PlanWords(const Copy::Problem& p, const Copy::Args& a) {
  const int64_t words = p.bytes() / static_cast<int64_t>(sizeof(W));
  auto grid = ChoosePackGrid(words, kMostWords);
  if (!grid.ok()) return grid.status();
  grid->blocks = std::max(1u, grid->blocks);  // there may be a rest only
  auto* const kernel = grid->few ? CopyKernel<W, 1> : CopyKernel<W, kMostWords>;
  return [kernel, grid = *grid, x = a.x.as<const W>(), y = a.y.as<W>(),
          words = static_cast<unsigned>(words),
          rest = static_cast<unsigned>(p.bytes() % sizeof(W))](Stream stream) {
    return LaunchDependent(kernel, grid.blocks, grid.threads, 0,
                           AsCudaStream(stream), "CopyKernel", x, y, words,
                           rest);
  };
}

absl::StatusOr<Launch> Plan(const Copy::Problem& p, const Copy::Args& a,
                            Device&) {
  const auto on_word = [](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.data) % sizeof(uint4) == 0;
  };
  if (on_word(a.x) && on_word(a.y)) return PlanWords<uint4>(p, a);
  // Tensors inside others: an element at a time.
  return SizeOf(p.dtype) == 2 ? PlanWords<uint16_t>(p, a)
                              : PlanWords<uint32_t>(p, a);
}

const bool registered =
    AddProvider<Copy>({.name = "native",
                       .device = DeviceKind::kCuda,
                       .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
                       .plan = Plan});

}  // namespace
}  // namespace seqmark
