// SPDX-License-Identifier: Apache-2.0
//
// A block of CUDA threads on the CPU, for kernels whose hand-overs a GPU shows
// in one order only: each thread is a fiber, and whoever runs next is drawn at
// random whenever one waits. A wait that nothing ends is a deadlock, and a copy
// that was not waited for has not come.
//
// A kernel's header is compiled by the host's compiler; shim/ stands in for the
// headers that hold instructions. Plain memory accesses do not switch fibers: a
// missing __syncwarp shows as a lane that has not run, a race within a pair of
// waits does not show at all.
#pragma once

#include <cuda_bf16.h>
#include <ucontext.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#undef __device__
#undef __forceinline__
#undef __noinline__
#undef __global__
#undef __launch_bounds__
#undef __grid_constant__
#undef __shared__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static
#define threadIdx (::simt::Block::now()->thread_index())
#define blockIdx (::simt::Block::now()->block_index())

namespace simt {

inline constexpr int kLanes = 32;

struct Index {
  unsigned x = 0;
};

// One block at a time.
class Block {
 public:
  static Block*& now() {
    static Block* block = nullptr;
    return block;
  }
  // Runs `thread` in `threads` fibers, whole warps. False: a deadlock.
  static bool Run(int index, int threads, uint64_t seed,
                  std::function<void()> thread) {
    Block block(index, threads, seed, std::move(thread));
    now() = &block;
    const bool ended = block.RunAll();
    now() = nullptr;
    return ended;
  }

  Index thread_index() const { return {static_cast<unsigned>(running_)}; }
  Index block_index() const { return {static_cast<unsigned>(index_)}; }
  int lane() const { return running_ % kLanes; }

  // Until `over` says so.
  template <class Over>
  void Wait(Over over) {
    while (!over()) Switch();
    Progress();
  }
  void Switch() { swapcontext(&fibers_[running_]->context, &scheduler_); }
  void Progress() { ++progress_; }

  void SyncWarp() { Arrive(warps_[running_ / kLanes].barrier, kLanes); }
  void SyncBlock() { Arrive(block_, static_cast<int>(fibers_.size())); }
  // What lane `from` of this warp gives.
  template <class V>
  V Exchange(V value, int from) {
    Warp& warp = warps_[running_ / kLanes];
    std::memcpy(warp.slots[lane()], &value, sizeof(V));
    SyncWarp();
    V theirs;
    std::memcpy(&theirs, warp.slots[from], sizeof(V));
    SyncWarp();
    return theirs;
  }

  // A copy under way: what is there until it is waited for is not a number.
  void StartCopy(void* to, const void* from, size_t bytes, bool valid) {
    std::memset(to, 0xff, bytes);
    fibers_[running_]->copies.push_back({to, valid ? from : nullptr, bytes});
  }
  void FinishCopies() {
    for (const Copy& copy : fibers_[running_]->copies) {
      if (copy.from == nullptr)
        std::memset(copy.to, 0, copy.bytes);
      else
        std::memcpy(copy.to, copy.from, copy.bytes);
    }
    fibers_[running_]->copies.clear();
    Switch();
  }

 private:
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };
  struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    std::vector<Copy> copies;
    bool ended = false;
  };
  struct Barrier {
    int arrived = 0;
    uint64_t phase = 0;
  };
  struct Warp {
    Barrier barrier;
    char slots[kLanes][8];
  };

  Block(int index, int threads, uint64_t seed, std::function<void()> thread)
      : index_(index),
        random_(seed),
        thread_(std::move(thread)),
        warps_(threads / kLanes) {
    for (int i = 0; i < threads; ++i) {
      fibers_.push_back(std::make_unique<Fiber>());
      ucontext_t& context = fibers_.back()->context;
      getcontext(&context);
      context.uc_stack.ss_sp = fibers_.back()->stack.data();
      context.uc_stack.ss_size = fibers_.back()->stack.size();
      context.uc_link = &scheduler_;
      makecontext(&context, &Block::Start, 0);
    }
  }
  static void Start() {
    now()->thread_();
    now()->fibers_[now()->running_]->ended = true;
    now()->Progress();
  }

  void Arrive(Barrier& barrier, int all) {
    const uint64_t phase = barrier.phase;
    if (++barrier.arrived == all) {
      barrier = {0, phase + 1};
      Progress();
      return;
    }
    Wait([&] { return barrier.phase != phase; });
  }

  bool RunAll() {
    constexpr int kIdle = 20000;  // bursts without progress: a deadlock
    const auto warps = static_cast<unsigned>(warps_.size());
    size_t left = fibers_.size();
    uint64_t seen = progress_;
    for (int idle = 0; left > 0 && idle < kIdle; ++idle) {
      const unsigned warp = random_() % warps;
      for (auto burst = random_() % 40; burst > 0; --burst) {
        // Lanes from a random one on and in a random stride: all, or some, so
        // that another warp sees what is half done.
        const auto first = random_(), stride = 2 * random_() + 1;
        const auto some = random_() % 4 == 0 ? random_() % kLanes : kLanes;
        for (unsigned i = 0; i < some; ++i) {
          running_ =
              static_cast<int>(warp * kLanes + (first + i * stride) % kLanes);
          Fiber& fiber = *fibers_[running_];
          if (fiber.ended) continue;
          swapcontext(&scheduler_, &fiber.context);
          if (fiber.ended) --left;
        }
      }
      if (progress_ != seen) idle = 0;
      seen = progress_;
    }
    return left == 0;
  }

  const int index_;
  std::mt19937 random_;
  const std::function<void()> thread_;
  std::vector<Warp> warps_;
  Barrier block_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  ucontext_t scheduler_;
  int running_ = 0;
  uint64_t progress_ = 0;
};

}  // namespace simt

inline void __syncwarp() { simt::Block::now()->SyncWarp(); }
inline void __syncthreads() { simt::Block::now()->SyncBlock(); }
template <class V>
V __shfl_xor_sync(unsigned, V value, int mask) {
  simt::Block* const block = simt::Block::now();
  return block->Exchange(value, block->lane() ^ mask);
}
inline bool __any_sync(unsigned, bool mine) {
  bool any = false;
  for (int lane = 0; lane < simt::kLanes; ++lane)
    any |= simt::Block::now()->Exchange(mine, lane);
  return any;
}
inline float __int_as_float(int bits) {
  float v;
  std::memcpy(&v, &bits, sizeof(v));
  return v;
}
inline int __float_as_int(float v) {
  int bits;
  std::memcpy(&bits, &v, sizeof(v));
  return bits;
}
inline float __log2f(float v) { return std::log2(v); }
