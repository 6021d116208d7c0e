// SPDX-License-Identifier: Apache-2.0
//
// Rows too long for their whole reference, verified by parts: a right one
// passes, and one that is wrong where no short run would be is found.
#include "bench/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "fixtures/op_fixture.h"

namespace seqmark {
namespace {

using testing::HasSubstr;

// y = x + 1, and the sum over the tokens of it: with or without a Part.
template <bool kHasPart>
struct Sum {
  static constexpr absl::string_view kName = "sum";
  struct Problem : ProblemAxes {
    int64_t width = 0;
  };
  struct Args {
    Tensor x;    // (batch, seqlen, width)
    Tensor y;    // (batch, seqlen, width)
    Tensor sum;  // (batch, width)
  };
  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims dims = {p.batch, p.seqlen, p.width};
    visit(TensorSpec{"x", Role::kActivation, DType::kF32, dims}, a.x);
    visit(TensorSpec{"y", Role::kOutput, DType::kF32, dims}, a.y);
    visit(TensorSpec{"sum", Role::kOutput, DType::kF32, {p.batch, p.width}},
          a.sum);
  }
  static Problem Part(const Problem& p, double) requires kHasPart {
    Problem part = p;
    part.width = 1;
    return part;
  }
  static Cost GetCost(const Problem& p) {
    Cost cost;
    cost.vector_flops = 2e3 * p.batch * p.seqlen * p.width;
    return cost;
  }
  static Tolerance GetTolerance(const Problem&) { return {1e-3, 1e-3}; }
  static std::vector<Problem> Sweep() { return {}; }
  static std::vector<Problem> TestProblems() { return {}; }
  template <class T>
  static void Compute(const Problem& p, const Args& a) {
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t w = 0; w < p.width; ++w) {
        double sum = 0;
        for (int64_t l = 0; l < p.seqlen; ++l) {
          const int64_t i = (b * p.seqlen + l) * p.width + w;
          sum += a.y.template as<T>()[i] = a.x.template as<T>()[i] + 1;
        }
        a.sum.template as<T>()[b * p.width + w] = static_cast<T>(sum);
      }
  }
  static void Reference(const Problem& p, const Args& a) {
    Compute<double>(p, a);
  }
  static void CountedReference(const Problem&, const Args&) {}
};

// Fails by what `spoil` does to right outputs.
template <class Op>
absl::StatusOr<Verified> VerifySpoiled(
    const typename Op::Problem& problem,
    std::function<void(const typename Op::Args&)> spoil) {
  const auto device = MakeCpuDevice({.threads = 1});
  Provider<Op> provider;
  provider.plan = [spoil](const typename Op::Problem& p,
                          const typename Op::Args& a,
                          Device&) -> absl::StatusOr<Launch> {
    return [=](Stream) {
      Op::template Compute<float>(p, a);
      spoil(a);
      return absl::OkStatus();
    };
  };
  const auto instance = OpInstance<Op>::Make(problem, provider, **device, {});
  if (!instance.ok()) return instance.status();
  return Verify(**instance, 1);
}

typename Sum<true>::Problem Long() {
  Sum<true>::Problem p;
  p.batch = 2;
  p.seqlen = 100000;
  p.width = 8;
  return p;
}

TEST(Verify, ALongRowByParts) {
  const auto right = VerifySpoiled<Sum<true>>(Long(), [](const auto&) {});
  ASSERT_TRUE(right.ok()) << right.status();
  EXPECT_THAT(right->label, HasSubstr("verified: 4 parts, 25 % of the"));
  EXPECT_DOUBLE_EQ(right->fraction, 0.25);
}

// Both ends of every axis are always among the parts.
TEST(Verify, FindsAWrongLastTokenAndState) {
  const auto token = VerifySpoiled<Sum<true>>(Long(), [](const auto& a) {
    a.y.template as<float>()[a.y.size() - 1] += 1000;
  });
  EXPECT_THAT(std::string(token.status().message()), HasSubstr("y from (1, 0"));
  const auto state = VerifySpoiled<Sum<true>>(
      Long(), [](const auto& a) { a.sum.template as<float>()[15] *= 1.1f; });
  EXPECT_THAT(std::string(state.status().message()),
              HasSubstr("sum in 4 parts"));
}

// Without a Part the first tokens are looked at, and no sum over all of them.
TEST(Verify, WithoutAPartByItsFirstTokens) {
  Sum<false>::Problem p;
  p.seqlen = 100000;
  p.width = 8;
  const auto right = VerifySpoiled<Sum<false>>(
      p, [](const auto& a) { a.sum.template as<float>()[0] = 0; });
  ASSERT_TRUE(right.ok()) << right.status();
  EXPECT_EQ(right->label, "verified: first 12500 tokens, 12 % of the outputs");
  const auto wrong = VerifySpoiled<Sum<false>>(
      p, [](const auto& a) { a.y.template as<float>()[7] = 0; });
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("y from"));
}

TEST(Verify, WhatCannotBeVerifiedSaysWhy) {
  Sum<false>::Problem p;
  p.width = 10000000;  // one token is too much, and there is no Part
  p.seqlen = 1;
  const auto verified = VerifySpoiled<Sum<false>>(p, [](const auto&) {});
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->fraction, 0);
  EXPECT_THAT(verified->label, HasSubstr("not verified: its reference takes"));
}

}  // namespace
}  // namespace seqmark
