// SPDX-License-Identifier: Apache-2.0
//
// main of all tests: row tests are registered from the registry, which is
// complete only once main runs.
#include <gtest/gtest.h>

namespace seqmark {
void RegisterRowTests();
}

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  seqmark::RegisterRowTests();
  return RUN_ALL_TESTS();
}
