// SPDX-License-Identifier: Apache-2.0
//
// The comparison that all row tests rest on: it must fail where it should.
#include "fixtures/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace seqmark {
namespace {

using testing::HasSubstr;

constexpr int kCount = 10000;

// One rounding to dtype, as an operator without a reduction declares it.
Tolerance OneRounding(DType dtype) {
  return {.max_error = 0.51 * Epsilon(dtype), .l2_error = 0.5 * Epsilon(dtype)};
}

class CompareTest : public testing::TestWithParam<DType> {
 protected:
  CompareTest() : expected_(kCount), actual_(kCount * SizeOf(GetParam())) {
    for (int i = 0; i < kCount; ++i) {
      expected_[i] = 3 * std::sin(0.37 * i * i);
      Set(i, expected_[i]);
    }
  }
  void Set(int i, double value) {
    StoreElement(GetParam(), actual_.data(), i, value);
  }
  OutputError Run() {
    return Compare("y", GetParam(), actual_.data(), expected_,
                   OneRounding(GetParam()));
  }
  std::vector<double> expected_;
  std::vector<std::byte> actual_;
};

TEST_P(CompareTest, RoundingPasses) {
  const OutputError error = Run();
  EXPECT_TRUE(error.ok) << error.message;
  EXPECT_EQ(error.message, "");
  EXPECT_EQ(error.tensor, "y");
  EXPECT_GT(error.max_error, 0);
  EXPECT_GT(error.l2_error, 0);
  EXPECT_LE(error.max_error, 0.5 * Epsilon(GetParam()));
}

TEST_P(CompareTest, OneElementThatIsNotFiniteFails) {
  for (double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL})
    for (int at : {0, 4321, kCount - 1}) {
      Set(at, bad);
      const OutputError error = Run();
      EXPECT_FALSE(error.ok);
      EXPECT_THAT(error.message, HasSubstr(absl::StrCat("y[", at, "]")));
      EXPECT_THAT(error.message, HasSubstr("never written?"));
      Set(at, expected_[at]);
    }
}

TEST_P(CompareTest, OneWrongElementFails) {
  // Too small to matter to the norm: the largest error must find it.
  for (int at : {0, 4321, kCount - 1}) {
    Set(at, expected_[at] + 10 * Epsilon(GetParam()));
    const OutputError error = Run();
    EXPECT_FALSE(error.ok);
    EXPECT_THAT(error.message, HasSubstr(absl::StrCat("worst at [", at, "]")));
    EXPECT_THAT(error.message, HasSubstr("allowed"));
    Set(at, expected_[at]);
  }
}

TEST_P(CompareTest, AZeroInPlaceOfASmallElementFails) {
  int at = 0;
  while (std::fabs(expected_[at]) < 0.1 || std::fabs(expected_[at]) > 0.2) ++at;
  Set(at, 0);
  EXPECT_FALSE(Run().ok) << expected_[at];
}

TEST_P(CompareTest, TwoSwappedElementsFail) {
  Set(10, expected_[11]);
  Set(11, expected_[10]);
  EXPECT_FALSE(Run().ok);
}

TEST_P(CompareTest, ABiasEverywhereFailsByItsNorm) {
  // Each element is within max_error, all together are not rounding.
  const double bias = 0.9 * Epsilon(GetParam());
  for (int i = 0; i < kCount; ++i)
    Set(i, expected_[i] * (1 + std::copysign(bias, i % 2 - 0.5)));
  OutputError error = Compare("y", GetParam(), actual_.data(), expected_,
                              {.max_error = 4 * Epsilon(GetParam()),
                               .l2_error = 0.5 * Epsilon(GetParam())});
  EXPECT_FALSE(error.ok);
  EXPECT_LE(error.max_error, 4 * Epsilon(GetParam()));
}

TEST_P(CompareTest, AReferenceThatIsNotFiniteFails) {
  for (double bad : {std::nan(""), HUGE_VAL}) {
    const double kept = std::exchange(expected_[77], bad);
    const OutputError error = Run();
    EXPECT_FALSE(error.ok);
    EXPECT_NE(error.message, "");
    expected_[77] = kept;
  }
}

TEST_P(CompareTest, ZerosMustBeZero) {
  std::fill(expected_.begin(), expected_.end(), 0.0);
  std::fill(actual_.begin(), actual_.end(), std::byte{0});
  EXPECT_TRUE(Run().ok);
  Set(5, 1.0);
  EXPECT_FALSE(Run().ok);
}

INSTANTIATE_TEST_SUITE_P(DTypes, CompareTest,
                         testing::Values(DType::kBF16, DType::kF16,
                                         DType::kF32),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

}  // namespace
}  // namespace seqmark
