// SPDX-License-Identifier: Apache-2.0
//
// Conversions between f32 and the 16-bit types, over every pattern.
#include "fixtures/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace seqmark {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A 16-bit format as IEEE 754 describes it.
struct Format {
  const char* name;
  int mantissa_bits;
  int exponent_bits;
  float (*to_f32)(uint16_t);
  uint16_t (*from_f32)(float);

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  uint16_t infinity() const {
    return static_cast<uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  }
  // The magnitude of a finite pattern, from the definition.
  double Magnitude(uint16_t bits) const {
    const int mantissa = bits & ((1 << mantissa_bits) - 1);
    const int exponent = (bits & 0x7fff) >> mantissa_bits;
    return exponent == 0 ? std::ldexp(mantissa, 1 - bias() - mantissa_bits)
                         : std::ldexp(mantissa + (1 << mantissa_bits),
                                      exponent - bias() - mantissa_bits);
  }
};

// Read through the bits: other tests may have left denormals off.
bool SameFloat(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

// The f32 of a double that f32 holds exactly, subnormal or not, by integer
// arithmetic alone.
float ExactF32(double v) {
  const bool negative = std::signbit(v);
  v = std::fabs(v);
  uint32_t bits = 0;
  if (v != 0) {
    const int exponent = std::max(std::ilogb(v), -126);
    const auto scaled =
        static_cast<uint32_t>(std::ldexp(v, 23 - exponent));  // < 2^24
    bits = scaled < (1u << 23) ? scaled
                               : static_cast<uint32_t>(exponent + 127) << 23 |
                                     (scaled & 0x7fffffu);
  }
  return std::bit_cast<float>(bits | (negative ? 0x80000000u : 0u));
}

class SixteenBit : public testing::TestWithParam<Format> {};

TEST_P(SixteenBit, EveryPatternHasItsValue) {
  const Format& f = GetParam();
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const uint16_t magnitude = bits & 0x7fff;
    const float value = f.to_f32(bits);
    EXPECT_EQ(std::signbit(value), bits >= 0x8000) << i;
    if (magnitude > f.infinity()) {
      EXPECT_TRUE(std::isnan(value)) << i;
    } else if (magnitude == f.infinity()) {
      EXPECT_EQ(std::fabs(value), kInfinity) << i;
    } else {
      const float expected = ExactF32(f.Magnitude(magnitude));
      EXPECT_TRUE(SameFloat(std::fabs(value), expected))
          << i << ": " << value << ", should be " << expected;
    }
  }
}

TEST_P(SixteenBit, EveryPatternSurvivesARoundTrip) {
  const Format& f = GetParam();
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const uint16_t back = f.from_f32(f.to_f32(bits));
    if ((bits & 0x7fff) > f.infinity()) {  // payloads may change
      EXPECT_GT(back & 0x7fff, f.infinity()) << i;
      EXPECT_EQ(back & 0x8000, bits & 0x8000) << i;
    } else {
      EXPECT_EQ(back, bits) << i;
    }
  }
}

// Between every two neighbours: just under half way goes down, half way to the
// even one, just over half way up. The last pair is the largest finite number
// and infinity.
TEST_P(SixteenBit, RoundsToNearestEven) {
  const Format& f = GetParam();
  for (uint16_t low = 0; low < f.infinity(); ++low) {
    const uint16_t high = low + 1;
    const double below = f.Magnitude(low), above = f.Magnitude(high);
    const float half = ExactF32(below + (above - below) / 2);
    const auto bits = std::bit_cast<uint32_t>(half);
    const float less = std::bit_cast<float>(bits - 1);
    const float more = std::bit_cast<float>(bits + 1);
    const uint16_t even = low % 2 == 0 ? low : high;
    EXPECT_EQ(f.from_f32(less), low) << low;
    EXPECT_EQ(f.from_f32(half), even) << low;
    EXPECT_EQ(f.from_f32(more), high) << low;
    const auto negated = [](float v) {
      return std::bit_cast<float>(std::bit_cast<uint32_t>(v) | 0x80000000u);
    };
    EXPECT_EQ(f.from_f32(negated(less)), low | 0x8000) << low;
    EXPECT_EQ(f.from_f32(negated(half)), even | 0x8000) << low;
    EXPECT_EQ(f.from_f32(negated(more)), high | 0x8000) << low;
  }
}

TEST_P(SixteenBit, TheEnds) {
  const Format& f = GetParam();
  EXPECT_EQ(f.from_f32(0.0f), 0);
  EXPECT_EQ(f.from_f32(-0.0f), 0x8000);
  EXPECT_EQ(f.from_f32(kInfinity), f.infinity());
  EXPECT_EQ(f.from_f32(-kInfinity), f.infinity() | 0x8000);
  EXPECT_EQ(f.from_f32(std::numeric_limits<float>::max()), f.infinity());
  EXPECT_GT(f.from_f32(kNaN) & 0x7fff, f.infinity());
  // A NaN whose payload is all in the bits that are dropped.
  EXPECT_GT(f.from_f32(std::bit_cast<float>(0x7f800001u)) & 0x7fff,
            f.infinity());
  EXPECT_EQ(f.from_f32(std::bit_cast<float>(1u)), 0);  // least subnormal
}

INSTANTIATE_TEST_SUITE_P(
    DType, SixteenBit,
    testing::Values(Format{"bf16", 7, 8, F32FromBF16, BF16FromF32},
                    Format{"f16", 10, 5, F32FromF16, F16FromF32}),
    [](const auto& info) { return info.param.name; });

TEST(DType, ConstantsOfEach) {
  EXPECT_EQ(SizeOf(DType::kBF16), 2u);
  EXPECT_EQ(SizeOf(DType::kF16), 2u);
  EXPECT_EQ(SizeOf(DType::kF32), 4u);
  EXPECT_EQ(SizeOf(DType::kF64), 8u);
  EXPECT_EQ(SizeOf(DType::kI32), 4u);
  const double one_f16 = F32FromF16(F16FromF32(1.0f) + 1);
  const double one_bf16 = F32FromBF16(BF16FromF32(1.0f) + 1);
  EXPECT_EQ(Epsilon(DType::kF16), one_f16 - 1);
  EXPECT_EQ(Epsilon(DType::kBF16), one_bf16 - 1);
  EXPECT_EQ(Epsilon(DType::kF32), std::numeric_limits<float>::epsilon());
  EXPECT_EQ(Epsilon(DType::kF64), std::numeric_limits<double>::epsilon());
}

TEST(DType, NamesParse) {
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    EXPECT_EQ(ParseDType(Name(t)), t);
  for (const char* bad : {"", "f64", "i32", "fp16", "BF16", "bf16 ", "f3"})
    EXPECT_EQ(ParseDType(bad), std::nullopt) << bad;
}

TEST(DType, ElementsAreStoredAndLoaded) {
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32, DType::kF64}) {
    alignas(8) unsigned char data[4 * 8] = {};
    StoreElement(t, data, 1, -2.5);
    StoreElement(t, data, 2, 1.0 + 1e-12);
    EXPECT_EQ(LoadElement(t, data, 0), 0) << Name(t);
    EXPECT_EQ(LoadElement(t, data, 1), -2.5) << Name(t);
    EXPECT_EQ(LoadElement(t, data, 2), t == DType::kF64 ? 1.0 + 1e-12 : 1.0)
        << Name(t);
    EXPECT_EQ(LoadElement(t, data, 3), 0) << Name(t);
  }
}

TEST(DType, IndicesAreStoredAndLoaded) {
  int32_t data[3] = {};
  StoreElement(DType::kI32, data, 1, 255999.0);
  StoreElement(DType::kI32, data, 2, -1.0);
  EXPECT_EQ(LoadElement(DType::kI32, data, 0), 0);
  EXPECT_EQ(LoadElement(DType::kI32, data, 1), 255999);
  EXPECT_EQ(LoadElement(DType::kI32, data, 2), -1);
  EXPECT_EQ(Name(DType::kI32), "i32");
}

}  // namespace
}  // namespace seqmark
