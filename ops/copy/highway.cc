// SPDX-License-Identifier: Apache-2.0
//
// A copy on the CPU: threads over parts, by the loops that measure the ceilings
// (fixtures/ceilings_cpu_simd.cc). What the last-level cache does not hold is
// written around it. Memory limits it, or a cache.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fixtures/ceilings_cpu.h"
#include "fixtures/op_fixture.h"
#include "ops/copy/copy.h"

namespace seqmark {
namespace {

constexpr int64_t kPage = 4096;        // SweepMemory's
constexpr int64_t kPart = 16 * kPage;  // of a thread; fewer bytes wake no other

void CopyBytes(CpuStream stream, const std::byte* from, std::byte* to,
               int64_t bytes) {
  const bool on_page = reinterpret_cast<uintptr_t>(from) % kPage == 0 &&
                       reinterpret_cast<uintptr_t>(to) % kPage == 0;
#pragma omp parallel for schedule(static) if (bytes > kPart)
  for (int64_t begin = 0; begin < bytes; begin += kPart) {
    const int64_t size = std::min(kPart, bytes - begin);
    const int64_t pages = on_page ? size / kPage * kPage : 0;
    if (pages > 0)
      SweepMemory(stream, reinterpret_cast<const float*>(from + begin),
                  reinterpret_cast<float*>(to + begin),
                  pages / static_cast<int64_t>(sizeof(float)));
    std::memcpy(to + begin + pages, from + begin + pages, size - pages);
  }
}

const bool registered = AddProvider<Copy>(
    {.name = "highway",
     .device = DeviceKind::kCpu,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const Copy::Problem& p, const Copy::Args& a,
                Device& device) -> absl::StatusOr<Launch> {
       const bool fits = 2 * p.bytes() <=
                         static_cast<int64_t>(device.last_level_cache_bytes());
       return [p, a, stream = fits ? CpuStream::kCopy : CpuStream::kCopyAround](
                  Stream) {
         CopyBytes(stream, a.x.as<std::byte>(), a.y.as<std::byte>(), p.bytes());
         return absl::OkStatus();
       };
     }});

}  // namespace
}  // namespace seqmark
