// SPDX-License-Identifier: Apache-2.0
#include "fixtures/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>

namespace seqmark {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

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

// After an update of the driver, until the machine is started again.
TEST(Nvml, ADriverOfAnotherVersionIsTheReason) {
  setenv("FAKE_NVML", "Init=18", 1);
  const auto nvml = Nvml::Open("0000:01:00.0", SEQMARK_FAKE_NVML);
  const auto all = Nvml::OpenAll(SEQMARK_FAKE_NVML);
  unsetenv("FAKE_NVML");
  for (const absl::Status& status : {nvml.status(), all.status()}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("Driver/library version mismatch"));
  }
}

std::map<std::string, std::string> FactsOf(const char* answers) {
  setenv("FAKE_NVML", answers, 1);
  const auto nvml = Nvml::Open("0000:01:00.0", SEQMARK_FAKE_NVML);
  EXPECT_TRUE(nvml.ok()) << nvml.status();
  std::map<std::string, std::string> facts;
  for (const auto& [name, value] : Facts((*nvml)->State(), 101))
    facts[name] = value;
  unsetenv("FAKE_NVML");
  return facts;
}

TEST(Nvml, StateAsFacts) {
  auto facts = FactsOf(
      "DeviceGetEnforcedPowerLimit=600000 DeviceGetPowerUsage=75500 "
      "DeviceGetPowerManagementDefaultLimit=700000 DeviceGetClockInfo=345 "
      "DeviceGetMaxClockInfo=1980 DeviceGetTemperature=31 DeviceGetEccMode=1 "
      "DeviceGetMigMode=0 DeviceGetPersistenceMode=1 DeviceGetComputeMode=3 "
      "DeviceGetCurrentClocksThrottleReasons=0x24 Processes=3");
  EXPECT_EQ(facts["gpu_driver_version"], "999.1");
  EXPECT_EQ(facts["gpu_power_limit_watts"], "600");
  EXPECT_EQ(facts["gpu_default_power_limit_watts"], "700");
  EXPECT_EQ(facts["gpu_power_watts"], "75.5");
  EXPECT_EQ(facts["gpu_clock_hz"], "3.45e+08");
  EXPECT_EQ(facts["gpu_temperature"], "31");
  EXPECT_EQ(facts["gpu_ecc_mode"], "on");
  EXPECT_EQ(facts["gpu_mig"], "off");
  EXPECT_EQ(facts["gpu_persistence"], "on");
  EXPECT_EQ(facts["gpu_compute_mode"], "exclusive process");
  EXPECT_EQ(facts["gpu_clocks_event_reasons"],
            "power cap, thermal slowdown (software)");
  EXPECT_THAT(facts["gpu_other_processes"], HasSubstr("100 102"));
  // Asked of a GPU that cannot say.
  EXPECT_EQ(facts["gpu_application_clock_hz"],
            "not known: not supported on this GPU");
  EXPECT_EQ(facts["gpu_clocks_locked"], "not known: NVML does not say");
  // Not in the fake library at all, as in an old driver.
  EXPECT_EQ(facts["gpu_pcie_generation"],
            "not known: this driver's NVML has no such function");
}

TEST(Nvml, AGpuThatSaysNothingHasReasons) {
  auto facts = FactsOf("");
  facts.erase("gpu_driver_version");
  for (const auto& [name, value] : facts)
    EXPECT_THAT(value, StartsWith("not known: ")) << name;
}

TEST(Nvml, NamesUnknownReasonsByTheirBits) {
  EXPECT_EQ(ClocksEventReasonNames(0), "none");
  EXPECT_EQ(ClocksEventReasonNames(0x1 | 0x1000), "idle, 0x1000");
}

}  // namespace
}  // namespace seqmark
