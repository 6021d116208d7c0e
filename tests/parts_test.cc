// SPDX-License-Identifier: Apache-2.0
#include "fixtures/parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace seqmark {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

TEST(Parts, BeginInsideTheWhole) {
  for (int64_t all : {1, 7, 64, 131072})
    for (int64_t part : {int64_t{1}, int64_t{3}, int64_t{64}, all})
      for (double at : PartPositions(1, 9)) {
        if (part > all) continue;
        const int64_t begin = PartBegin(all, part, at);
        EXPECT_GE(begin, 0);
        EXPECT_LE(begin + part, all);
      }
  EXPECT_EQ(PartBegin(10, 3, 0), 0);
  EXPECT_EQ(PartBegin(10, 3, PartPositions(1, 4).back()), 7);
}

// A part of one head reads the group of keys that the whole's head reads.
TEST(Parts, HeadsFindTheirGroup) {
  for (int64_t groups : {1, 2, 8})
    for (int64_t heads_per_group : {1, 3, 7})
      for (int64_t i = 0; i < 1000; ++i) {
        const int64_t heads = groups * heads_per_group;
        const double at = static_cast<double>(i) / 1000;
        EXPECT_EQ(PartBegin(groups, 1, at),
                  PartBegin(heads, 1, at) / heads_per_group);
      }
}

TEST(Parts, PositionsAreTheEndsAndOthersBySeed) {
  EXPECT_NE(PartPositions(1, 4), PartPositions(2, 4));
  EXPECT_EQ(PartPositions(1, 4), PartPositions(1, 4));
  const std::vector<double> positions = PartPositions(3, 32);
  EXPECT_EQ(positions.size(), 32u);
  EXPECT_EQ(positions.front(), 0);
  for (size_t i = 1; i + 1 < positions.size(); ++i) {
    EXPECT_GE(positions[i], (i - 1.0) / 30);
    EXPECT_LT(positions[i], 1);
  }
}

// As where a tensor packs several things along an axis.
TEST(Parts, RangesOfAnAxisFollowEachOther) {
  const auto device = MakeCpuDevice({.threads = 1});
  std::vector<float> x(2 * 5 * 3);
  std::iota(x.begin(), x.end(), 0);
  const Tensor tensor(x.data(), DType::kF32, {2, 5, 3});
  const auto read = [&](const Dims& part, const Slices& slices) {
    const PartTensor boxes = PartTensorAt(tensor.dims, part, 0, slices);
    return Join(boxes, *ReadBoxes(tensor, boxes.boxes, **device));
  };
  EXPECT_THAT(read({2, 3, 3}, {1, {{4, 1}, {0, 2}}}),
              ElementsAre(12, 13, 14, 0, 1, 2, 3, 4, 5,  //
                          27, 28, 29, 15, 16, 17, 18, 19, 20));
  EXPECT_THAT(read({2, 5, 2}, {2, {{0, 1}, {2, 1}}}),
              ElementsAre(0, 2, 3, 5, 6, 8, 9, 11, 12, 14,  //
                          15, 17, 18, 20, 21, 23, 24, 26, 27, 29));
  EXPECT_THAT(read({1, 5, 3}, {0, {{1, 1}}}),
              ElementsAreArray(x.begin() + 15, x.end()));
  EXPECT_TRUE(read({2, 5, 3}, {}).empty());
  const PartTensor whole =
      PartTensorAt(tensor.dims, {1, 5, 3}, 0.5, std::nullopt);
  EXPECT_THAT(whole.boxes.front().begin, ElementsAre(1, 0, 0));
}

TEST(ReadBoxes, GivesTheElementsOfEachBox) {
  const auto device = MakeCpuDevice({.threads = 1});
  std::vector<float> x(2 * 3 * 4);
  std::iota(x.begin(), x.end(), 0);
  const Tensor tensor(x.data(), DType::kF32, {2, 3, 4});
  const auto values = ReadBoxes(
      tensor,
      {{{0, 0, 0}, {2, 3, 4}}, {{1, 1, 2}, {1, 2, 2}}, {{0, 2, 3}, {2, 1, 1}}},
      **device);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ((*values)[0], std::vector<double>(x.begin(), x.end()));
  EXPECT_THAT((*values)[1], ElementsAre(18, 19, 22, 23));
  EXPECT_THAT((*values)[2], ElementsAre(11, 23));
}

// Boxes that lie in several of the blocks that the tensor is copied in.
TEST(ReadBoxes, CrossesBlocks) {
  const auto device = MakeCpuDevice({.threads = 1});
  constexpr int64_t kRows = 5, kColumns = 3000001;
  std::vector<float> x(kRows * kColumns);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 1000003);
  const Tensor tensor(x.data(), DType::kF32, {kRows, kColumns});
  const Box box{{1, 17}, {3, kColumns - 20}};
  const auto values = ReadBoxes(tensor, {box}, **device);
  ASSERT_TRUE(values.ok()) << values.status();
  size_t at = 0;
  for (int64_t r = 1; r < 4; ++r)
    for (int64_t c = 17; c < kColumns - 3; ++c)
      ASSERT_EQ((*values)[0][at++], x[r * kColumns + c]) << r << " " << c;
  EXPECT_EQ(at, (*values)[0].size());
}

// An error that is right on average fails in a part of one element, if its
// tolerance is taken at its word.
TEST(CompareParts, TakesFewElementsTogether) {
  std::vector<PartOutput> parts;
  parts.reserve(300);
  for (int i = 0; i < 300; ++i)
    parts.push_back({{{i}, {1}},
                     {i % 10 == 0 ? 1.03 : 1.0},
                     {1.0},
                     {.max_error = 0.1, .l2_error = 0.01}});
  EXPECT_TRUE(CompareParts("y", parts).front().ok);
  parts[7].actual = {1.5};
  const std::vector<OutputError> errors = CompareParts("y", parts);
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_FALSE(errors[0].ok);
  EXPECT_THAT(errors[0].message, testing::HasSubstr("y in 300 parts"));
}

TEST(CompareParts, ComparesLargePartsApart) {
  const std::vector<double> small(1000, 1e-3), large(1000, 1.0);
  std::vector<double> wrong = small;
  wrong[3] = 2e-3;  // seen beside its own part, not beside the other
  const Tolerance tolerance = {.max_error = 0.1, .l2_error = 0.1};
  const auto errors =
      CompareParts("y", {{{{0}, {1000}}, large, large, tolerance},
                         {{{5}, {1000}}, wrong, small, tolerance}});
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_TRUE(errors[0].ok);
  EXPECT_FALSE(errors[1].ok);
  EXPECT_THAT(errors[1].message, testing::HasSubstr("y from (5)"));
}

}  // namespace
}  // namespace seqmark
