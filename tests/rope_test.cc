// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of rope: views of a projection, windows of a cache,
// calls in place.
#include "ops/rope/rope.h"

#include <gtest/gtest.h>

#include "tests/op_call.h"

namespace seqmark {
namespace {

using Call = OpCall<Rope>;

Rope::Problem MakeProblem(int64_t head_dim, int64_t rotary_dim, DType dtype) {
  Rope::Problem p;
  p.dtype = dtype;
  p.batch = 2;
  p.seqlen = 19;
  p.heads = 5;
  p.kv_heads = 2;
  p.head_dim = head_dim;
  p.rotary_dim = rotary_dim;
  p.position = 1234;
  p.factor = 1.19f;
  return p;
}

template <class Body>
void ForEachCase(Body&& body) {
  ForEachProvider<Rope>([&](const auto& provider, Device& device) {
    for (DType dtype : {DType::kBF16, DType::kF32})
      for (const auto& [head_dim, rotary_dim] :
           {std::pair{64, 64}, {40, 16}, {24, 0}, {10, 6}}) {
        const Rope::Problem p = MakeProblem(head_dim, rotary_dim, dtype);
        SCOPED_TRACE(
            absl::StrCat(Name(dtype), " ", head_dim, ", ", rotary_dim));
        Call expected(p, device);
        expected.Run(provider);
        body(provider, device, p, expected);
      }
  });
}

TEST(Rope, FollowsTheStridesOfAll) {
  ForEachCase([](const auto& provider, Device& device, const auto& p,
                 const Call& expected) {
    // Rows and first elements that keep 16-byte and only element alignment.
    for (int64_t skew : {16, 1}) {
      SCOPED_TRACE(skew);
      Call call(p, device);
      const int64_t q = p.heads * p.head_dim, kv = p.kv_heads * p.head_dim;
      SpacedView views[] = {{call.args.q, skew, q + 2 * kv + skew, device},
                            {call.args.k, 0, q + 2 * kv, device},
                            {call.args.v, 2 * skew, q + 3 * skew, device},
                            {call.args.q_out, 3 * skew, q + skew, device},
                            {call.args.k_out, skew, kv + 2 * skew, device},
                            {call.args.v_out, 0, kv + skew, device}};
      call.Run(provider);
      EXPECT_EQ(views[3].Read(), expected.Read(expected.args.q_out));
      EXPECT_EQ(views[4].Read(), expected.Read(expected.args.k_out));
      EXPECT_EQ(views[5].Read(), expected.Read(expected.args.v_out));
    }
  });
}

TEST(Rope, WritesOverItsInputs) {
  ForEachCase([](const auto& provider, Device& device, const auto& p,
                 const Call& expected) {
    Call call(p, device);
    call.args.q_out = call.args.q;
    call.args.k_out = call.args.k;
    call.args.v_out = call.args.v;
    call.Run(provider);
    EXPECT_EQ(call.Read(call.args.q), expected.Read(expected.args.q_out));
    EXPECT_EQ(call.Read(call.args.k), expected.Read(expected.args.k_out));
    EXPECT_EQ(call.Read(call.args.v), expected.Read(expected.args.v_out));
  });
}

TEST(Rope, OnlyTheCacheIsWrittenWithoutRotation) {
  ForEachProvider<Rope>([](const auto& provider, Device& device) {
    Call call(MakeProblem(24, 0, DType::kF16), device);
    const std::string q = call.Read(call.args.q);
    call.args.q_out = call.args.q;
    call.Run(provider);
    EXPECT_EQ(call.Read(call.args.q), q);
    EXPECT_EQ(call.Read(call.args.k_out), call.Read(call.args.k));
    EXPECT_EQ(call.Read(call.args.v_out), call.Read(call.args.v));
  });
}

TEST(Rope, RefusesWhatIsNoPart) {
  ForEachProvider<Rope>([](const auto& provider, Device& device) {
    for (int64_t rotary_dim : {3, 26, -2}) {
      const Rope::Problem p = MakeProblem(24, rotary_dim, DType::kF32);
      EXPECT_TRUE(absl::IsInvalidArgument(
          provider.plan(p, Rope::Args(), device).status()))
          << rotary_dim;
    }
  });
}

}  // namespace
}  // namespace seqmark
