// SPDX-License-Identifier: Apache-2.0
#include "tests/trials/trial_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace seqmark {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(TrialRows, AreFoundByTheNamesThatTheProgramLists) {
  const auto all = MakeRows(RowSet::kSweep, {});
  ASSERT_GE(all.size(), 2u);
  const std::string first = all[0]->name().ToString(),
                    second = all[1]->name().ToString();
  std::istringstream names(
      absl::StrCat(second, "/iterations:1/manual_time\n\n", first, "\n"));
  const auto rows = ReadRows(names);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0]->name().ToString(), second);
  EXPECT_EQ((*rows)[1]->name().ToString(), first);
}

TEST(TrialRows, AnUnknownNameIsNotFound) {
  std::istringstream unknown("rmsnorm/nobody\n");
  const auto rows = ReadRows(unknown);
  EXPECT_TRUE(absl::IsNotFound(rows.status())) << rows.status();
  EXPECT_THAT(std::string(rows.status().message()), HasSubstr("nobody"));
}

TEST(TrialRows, NoRowAtAllIsSaid) {
  std::istringstream nothing("\n");
  const auto rows = ReadRows(nothing);
  EXPECT_TRUE(absl::IsNotFound(rows.status())) << rows.status();
}

TEST(TrialRows, AKnownKernelStandsBeforeEachRow) {
  EXPECT_THAT(WithKnownKernels({"a/b", "c/d"}),
              ElementsAre("known_kernel:1", "a/b", "known_kernel:2", "c/d"));
  EXPECT_TRUE(WithKnownKernels({}).empty());
}

}  // namespace
}  // namespace seqmark
