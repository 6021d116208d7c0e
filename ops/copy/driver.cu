// SPDX-License-Identifier: Apache-2.0
//
// The driver's own copy, whose kernel or engine is the driver's to choose.
#include "fixtures/op_fixture.h"
#include "fixtures/stream_tiles_cuda.h"
#include "ops/copy/copy.h"

namespace seqmark {
namespace {

const bool registered = AddProvider<Copy>(
    {.name = "driver",
     .device = DeviceKind::kCuda,
     .dtypes = {DType::kBF16, DType::kF16, DType::kF32},
     .plan = [](const Copy::Problem& p, const Copy::Args& a,
                Device&) -> absl::StatusOr<Launch> {
       return [from = a.x.data, to = a.y.data,
               bytes = static_cast<size_t>(p.bytes())](Stream stream) {
         return LaunchDriverCopy(from, to, bytes, AsCudaStream(stream));
       };
     }});

}  // namespace
}  // namespace seqmark
