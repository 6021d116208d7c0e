// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fixtures/row.h"

namespace seqmark {
namespace {

TEST(Costs, AreWhatTheReferenceDoes) {
  ASSERT_FALSE(Operators().empty());
  for (const auto& op : Operators())
    EXPECT_THAT(op->CheckCosts(), testing::IsEmpty()) << op->name();
}

// What --verify compares a long row with is a part of the definition's outputs.
TEST(Parts, AreWhatTheWholeReferenceHasThere) {
  for (const auto& op : Operators())
    EXPECT_THAT(op->CheckParts(), testing::IsEmpty()) << op->name();
}

}  // namespace
}  // namespace seqmark
