// SPDX-License-Identifier: Apache-2.0
//
// The kernels of causal_conv1d/native on a GPU, at any size: rows large enough
// for some of them would have references that take minutes.
#ifdef SEQMARK_HAVE_CUDA
#include <gtest/gtest.h>

#include "ops/causal_conv1d/native_cuda.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

Provider<CausalConv1d> Kernel(ConvKernel kernel) {
  return {.name = "native",
          .device = DeviceKind::kCuda,
          .plan = [kernel](const CausalConv1d::Problem& p,
                           const CausalConv1d::Args& a,
                           Device&) { return PlanConv(p, a, kernel); }};
}

// body(problem, device) of every test problem in every dtype.
template <class Body>
void ForEachProblem(Body&& body) {
  auto device = MakeCudaDevice();
  if (!device.ok()) GTEST_SKIP() << device.status();
  for (CausalConv1d::Problem p : CausalConv1d::TestProblems())
    for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
      p.dtype = dtype;
      SCOPED_TRACE(testing::Message() << p.shape << " " << p.batch << " x "
                                      << p.seqlen << " " << Name(dtype));
      body(p, **device);
      if (testing::Test::HasFatalFailure()) return;
    }
}

constexpr ConvKernel kOfManyTokens[] = {ConvKernel::kRing, ConvKernel::kTile};

TEST(CausalConv1dKernels, TheyMatchTheReference) {
  int problems = 0;
  ForEachProblem([&](const CausalConv1d::Problem& p, Device& device) {
    for (ConvKernel kernel : kOfManyTokens) {
      const auto provider = Kernel(kernel);
      const auto instance =
          OpInstance<CausalConv1d>::Make(p, provider, device, {.seed = 3});
      if (absl::IsUnimplemented(instance.status())) return;  // narrow packs
      ASSERT_TRUE(instance.ok()) << instance.status();
      const auto errors = (*instance)->Verify();
      ASSERT_TRUE(errors.ok()) << errors.status();
      for (const OutputError& error : *errors)
        EXPECT_TRUE(error.ok) << error.message;
      ++problems;
    }
  });
  if (IsSkipped()) return;
  EXPECT_GT(problems, 100);
}

// Sums are made in one order, so that a problem may grow from one kernel to the
// other; x as models have it, a slice of a wider projection.
TEST(CausalConv1dKernels, TheyMakeTheSameBits) {
  ForEachProblem([](const CausalConv1d::Problem& p, Device& device) {
    OpCall<CausalConv1d> walk(p, device);
    walk.Run(Kernel(ConvKernel::kWalk));
    for (ConvKernel kernel : kOfManyTokens) {
      OpCall<CausalConv1d> other(p, device), strided(p, device);
      const absl::Status status = other.TryRun(Kernel(kernel));
      if (absl::IsUnimplemented(status)) return;
      ASSERT_TRUE(status.ok()) << status;
      strided.Widen(strided.args.x, 2, 3 * p.channels + 16, p.channels + 8);
      strided.Run(Kernel(kernel));
      for (auto* call : {&other, &strided}) {
        EXPECT_TRUE(call->Read(call->args.y) == walk.Read(walk.args.y));
        if (!p.final_state) continue;
        EXPECT_TRUE(call->Read(call->args.final_state) ==
                    walk.Read(walk.args.final_state));
      }
    }
  });
}

TEST(CausalConv1dKernels, WhatTheyCannotTakeIsRefused) {
  auto device = MakeCudaDevice();
  if (!device.ok()) GTEST_SKIP() << device.status();
  CausalConv1d::Problem p;
  p.batch = 1;
  for (const auto& [seqlen, channels] : {std::pair{2, 64}, {64, 63}}) {
    p.seqlen = seqlen;
    p.channels = channels;
    OpCall<CausalConv1d> call(p, **device);
    for (ConvKernel kernel : kOfManyTokens)
      EXPECT_TRUE(absl::IsUnimplemented(call.TryRun(Kernel(kernel))));
    EXPECT_TRUE(call.TryRun(Kernel(ConvKernel::kByWork)).ok());
  }
}

}  // namespace
}  // namespace seqmark
#endif  // SEQMARK_HAVE_CUDA
