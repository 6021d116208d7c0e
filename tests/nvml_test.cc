// SPDX-License-Identifier: Apache-2.0
#include "fixtures/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace seqmark {
namespace {

// With or without a driver: a GPU that cannot be is a reason, never a crash.
TEST(Nvml, NoSuchGpuIsUnavailableWithAReason) {
  const auto nvml = Nvml::Open("FFFF:FF:1F.7");
  ASSERT_FALSE(nvml.ok());
  EXPECT_TRUE(absl::IsUnavailable(nvml.status())) << nvml.status();
  EXPECT_THAT(std::string(nvml.status().message()),
              testing::Not(testing::IsEmpty()));
}

TEST(Nvml, NoSuchGpuHasNoEnergyCounter) {
  const auto counter = OpenNvmlEnergyCounter("FFFF:FF:1F.7");
  EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
}

}  // namespace
}  // namespace seqmark
