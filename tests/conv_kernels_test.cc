// SPDX-License-Identifier: Apache-2.0
//
// causal_conv1d/native on a GPU in packs of every size: rows large enough for
// wide ones would have references that take minutes.
#ifdef SEQMARK_HAVE_CUDA
#include <gtest/gtest.h>

#include "ops/causal_conv1d/native_cuda.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

Provider<CausalConv1d> InPacks(int64_t bytes) {
  return {.name = "native",
          .device = DeviceKind::kCuda,
          .plan = [bytes](const CausalConv1d::Problem& p,
                          const CausalConv1d::Args& a,
                          Device&) { return PlanConv(p, a, bytes); }};
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

constexpr int64_t kWidePacks[] = {8, 4};  // bytes

TEST(CausalConv1dKernels, PacksMatchTheReference) {
  int problems = 0;
  ForEachProblem([&](const CausalConv1d::Problem& p, Device& device) {
    for (int64_t bytes : kWidePacks) {
      const auto provider = InPacks(bytes);
      const auto instance =
          OpInstance<CausalConv1d>::Make(p, provider, device, {.seed = 3});
      if (absl::IsUnimplemented(instance.status())) continue;  // narrower rows
      ASSERT_TRUE(instance.ok()) << instance.status();
      const auto errors = (*instance)->Verify();
      ASSERT_TRUE(errors.ok()) << errors.status();
      for (const OutputError& error : *errors)
        EXPECT_TRUE(error.ok) << error.message;
      ++problems;
    }
  });
  if (IsSkipped()) return;
  EXPECT_GT(problems, 300);
}

// Sums are made in one order, so that a problem may grow from one kernel to the
// other; x as models have it, a slice of a wider projection.
TEST(CausalConv1dKernels, PacksMakeTheSameBits) {
  ForEachProblem([](const CausalConv1d::Problem& p, Device& device) {
    OpCall<CausalConv1d> elements(p, device);
    elements.Run(InPacks(SizeOf(p.dtype)));
    for (int64_t bytes : kWidePacks) {
      OpCall<CausalConv1d> other(p, device), strided(p, device);
      const absl::Status status = other.TryRun(InPacks(bytes));
      if (absl::IsUnimplemented(status)) continue;
      ASSERT_TRUE(status.ok()) << status;
      strided.Widen(strided.args.x, 2, 3 * p.channels + 16, p.channels + 8);
      strided.Run(InPacks(bytes));
      for (auto* call : {&other, &strided}) {
        EXPECT_TRUE(call->Read(call->args.y) == elements.Read(elements.args.y));
        if (!p.final_state) continue;
        EXPECT_TRUE(call->Read(call->args.final_state) ==
                    elements.Read(elements.args.final_state));
      }
    }
  });
}

TEST(CausalConv1dKernels, RowsNotAtWholePacksAreRefused) {
  auto device = MakeCudaDevice();
  if (!device.ok()) GTEST_SKIP() << device.status();
  CausalConv1d::Problem p;
  p.batch = 1;
  p.seqlen = 64;
  for (const auto& [channels, wide] : {std::pair{63, 2}, {62, 4}, {60, 8}}) {
    p.channels = channels;
    OpCall<CausalConv1d> call(p, **device);
    for (int64_t bytes : {2, 4, 8}) {
      const absl::Status status = call.TryRun(InPacks(bytes));
      EXPECT_EQ(absl::IsUnimplemented(status), bytes > wide) << status;
    }
    // A slice that begins at an element.
    call.Widen(call.args.x, 2, channels + 9, 1);
    EXPECT_TRUE(call.TryRun(InPacks(2)).ok());
    EXPECT_TRUE(absl::IsUnimplemented(call.TryRun(InPacks(4))));
  }
}

}  // namespace
}  // namespace seqmark
#endif  // SEQMARK_HAVE_CUDA
