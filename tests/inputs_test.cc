// SPDX-License-Identifier: Apache-2.0
//
// Inputs: the same for the same seed, different otherwise, and distributed as
// their role says.
#include "fixtures/inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace seqmark {
namespace {

constexpr int64_t kRows = 512, kColumns = 256;
constexpr double kCount = kRows * kColumns;
constexpr int64_t kBlock = 1048573;  // what large tensors repeat

constexpr Role kInputRoles[] = {
    Role::kActivation, Role::kWeight,   Role::kScale, Role::kBias,
    Role::kStep,       Role::kStepBias, Role::kDecay, Role::kHeadDecay,
    Role::kState,      Role::kFrequency};

std::vector<double> Values(Role role, DType dtype, uint64_t seed = 1,
                           absl::string_view name = "x",
                           Dims dims = {kRows, kColumns}) {
  const auto device = MakeCpuDevice({});
  const TensorSpec spec{name, role, dtype, dims};
  const Buffer buffer = *(*device)->Allocate(Bytes(spec));
  const Tensor tensor(buffer.data(), dtype, dims);
  EXPECT_TRUE(Fill(spec, tensor, seed, **device).ok());
  std::vector<double> values(tensor.size());
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = LoadElement(dtype, tensor.data, i);
  return values;
}

struct Moments {
  explicit Moments(const std::vector<double>& v) {
    for (double x : v) mean += x / v.size();
    for (double x : v) deviation += (x - mean) * (x - mean) / v.size();
    deviation = std::sqrt(deviation);
    for (double x : v) kurtosis += std::pow((x - mean) / deviation, 4);
    kurtosis /= v.size();
    for (size_t i = 1; i < v.size(); ++i)
      correlation += (v[i] - mean) * (v[i - 1] - mean);
    correlation /= deviation * deviation * v.size();
    least = *std::min_element(v.begin(), v.end());
    most = *std::max_element(v.begin(), v.end());
  }
  double mean = 0, deviation = 0, kurtosis = 0, correlation = 0;
  double least = 0, most = 0;
};

// Six standard errors: wrong once in a billion seeds, and the seed is fixed.
const double kSlack = 6 / std::sqrt(kCount);

void ExpectNormal(Role role, double deviation) {
  const Moments m(Values(role, DType::kF32));
  EXPECT_NEAR(m.mean, 0, kSlack * deviation);
  EXPECT_NEAR(m.deviation, deviation, kSlack * deviation);
  EXPECT_NEAR(m.kurtosis, 3, kSlack * std::sqrt(24.0));
  EXPECT_NEAR(m.correlation, 0, kSlack);
  EXPECT_GT(m.most, 3.5 * deviation);
  EXPECT_LT(m.least, -3.5 * deviation);
}

void ExpectUniform(const std::vector<double>& values, double low, double high) {
  const Moments m(values);
  const double width = high - low;
  EXPECT_GE(m.least, low);
  EXPECT_LE(m.most, high);
  EXPECT_LT(m.least, low + 0.01 * width);
  EXPECT_GT(m.most, high - 0.01 * width);
  EXPECT_NEAR(m.mean, (low + high) / 2, kSlack * width);
  EXPECT_NEAR(m.deviation, width / std::sqrt(12.0), kSlack * width);
  EXPECT_NEAR(m.correlation, 0, kSlack);
}

TEST(Inputs, NormalRoles) {
  ExpectNormal(Role::kActivation, 1);
  ExpectNormal(Role::kWeight, 1 / std::sqrt(double{kColumns}));
  ExpectNormal(Role::kBias, 0.1);
  ExpectNormal(Role::kStep, 0.5);
  ExpectNormal(Role::kState, 0.5);
}

TEST(Inputs, UniformRoles) {
  ExpectUniform(Values(Role::kScale, DType::kF32), 0.5, 1.5);
  ExpectUniform(Values(Role::kHeadDecay, DType::kF32), -16, -1);
}

TEST(Inputs, StepsAreLogUniformAfterSoftplus) {
  std::vector<double> logs = Values(Role::kStepBias, DType::kF32);
  for (double& v : logs) v = std::log10(std::log1p(std::exp(v)));
  const double rounding = 1e-5;
  for (double& v : logs) {
    EXPECT_GT(v, -3 - rounding);
    EXPECT_LT(v, -1 + rounding);
    v = std::clamp(v, -3.0, -1.0);
  }
  ExpectUniform(logs, -3, -1);
}

TEST(Inputs, DecaysAreTheJitteredIndexOfTheState) {
  const std::vector<double> values = Values(Role::kDecay, DType::kF32);
  std::set<double> ratios;
  for (size_t i = 0; i < values.size(); ++i) {
    const double ratio = -values[i] / (1.0 + i % kColumns);
    EXPECT_GT(ratio, 0.8999);
    EXPECT_LT(ratio, 1.1001);
    ratios.insert(ratio);
  }
  EXPECT_GT(ratios.size(), kCount / 2) << "rows should not repeat";
}

TEST(Inputs, FrequenciesFallGeometrically) {
  const std::vector<double> values = Values(Role::kFrequency, DType::kF32);
  const double ratio = std::pow(5e5, -1.0 / kColumns);
  for (size_t i = 0; i < values.size(); ++i) {
    const double most = std::pow(ratio, i % kColumns);
    EXPECT_LE(values[i], most * (1 + 1e-6));
    EXPECT_GE(values[i], most * ratio * (1 - 1e-6));
  }
}

TEST(Inputs, IndicesAreUniformBelowTheLimit) {
  const auto device = MakeCpuDevice({});
  constexpr int64_t kLimit = 10;
  for (DType dtype : {DType::kI32, DType::kF64}) {
    const TensorSpec spec{"x", Role::kIndex, dtype, {kRows, kColumns}, kLimit};
    const Buffer buffer = *(*device)->Allocate(Bytes(spec));
    const Tensor tensor(buffer.data(), dtype, spec.dims);
    ASSERT_TRUE(Fill(spec, tensor, 1, **device).ok());
    std::vector<double> counts(kLimit);
    for (int64_t i = 0; i < tensor.size(); ++i) {
      const double value = LoadElement(dtype, tensor.data, i);
      ASSERT_GE(value, 0);
      ASSERT_LT(value, kLimit);
      ASSERT_EQ(value, std::floor(value));
      ++counts[static_cast<size_t>(value)];
    }
    for (double count : counts)
      EXPECT_NEAR(count / kCount, 1.0 / kLimit, kSlack / std::sqrt(kLimit));
  }
}

TEST(Inputs, OutputsArePoisoned) {
  for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
    for (double v : Values(Role::kOutput, dtype))
      ASSERT_TRUE(std::isnan(v)) << Name(dtype);
}

TEST(Inputs, NothingIsZeroNorEndless) {
  for (Role role : kInputRoles)
    for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
      for (double v : Values(role, dtype)) {
        ASSERT_NE(v, 0) << Name(dtype) << " " << static_cast<int>(role);
        ASSERT_TRUE(std::isfinite(v));
      }
}

TEST(Inputs, TheSameSeedGivesTheSame) {
  for (Role role : kInputRoles)
    EXPECT_EQ(Values(role, DType::kBF16, 7), Values(role, DType::kBF16, 7));
}

// As many elements agree as chance has it, and no more.
double Agreement(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double same = 0;
  for (size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
  return same / a.size();
}

TEST(Inputs, SeedsAndNamesGiveDifferentValues) {
  for (Role role : kInputRoles) {
    const auto base = Values(role, DType::kF32);
    EXPECT_LT(Agreement(base, Values(role, DType::kF32, 2)), 0.001);
    EXPECT_LT(Agreement(base, Values(role, DType::kF32, 1, "y")), 0.001);
    EXPECT_LT(Agreement(base, Values(role, DType::kF32, 1, "xx")), 0.001);
    EXPECT_LT(Agreement(base, Values(role, DType::kF32, 1, "")), 0.001);
  }
  // Names of the same letters in another order.
  EXPECT_LT(Agreement(Values(Role::kActivation, DType::kF32, 1, "ab"),
                      Values(Role::kActivation, DType::kF32, 1, "ba")),
            0.001);
}

TEST(Inputs, TypesDifferByTheirRoundingOnly) {
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    const auto exact = Values(Role::kActivation, DType::kF32);
    const auto rounded = Values(Role::kActivation, dtype);
    for (size_t i = 0; i < exact.size(); ++i) {
      uint16_t bits;
      StoreElement(dtype, &bits, 0, exact[i]);
      ASSERT_EQ(rounded[i], LoadElement(dtype, &bits, 0)) << i;
    }
  }
}

TEST(Inputs, LargeTensorsRepeatAPrimeBlock) {
  const auto values = Values(Role::kActivation, DType::kBF16, 1, "x",
                             {3, int64_t{1} << 20});  // not of whole blocks
  for (size_t i = kBlock; i < values.size(); ++i)
    ASSERT_EQ(values[i], values[i - kBlock]) << i;
  // Rows of a power of two are different nonetheless.
  const std::vector<double> first(values.begin(), values.begin() + (1 << 20));
  const std::vector<double> second(values.begin() + (1 << 20),
                                   values.begin() + (2 << 20));
  EXPECT_LT(Agreement(first, second), 0.02);
}

}  // namespace
}  // namespace seqmark
