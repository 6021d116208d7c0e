// SPDX-License-Identifier: Apache-2.0
#include "bench/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/bench_program.h"
#include "tests/fake_root.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class DoctorTest : public BenchTest {
 protected:
  Outcome Doctor(const std::string& library = "none.so") const {
    return Run(absl::StrCat("FAKE_NVML='", answers_, "' ", SEQMARK_FAULT_BENCH),
               absl::StrCat("--doctor --machine_root=", root_.path(),
                            " --nvml_library=", library));
  }
  const FakeRoot root_;
  std::string answers_;
};

TEST_F(DoctorTest, FindsNothingOnAQuietMachine) {
  PutQuietHost(root_);
  const Outcome outcome = Doctor();
  EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("nothing here hurts"),
                    HasSubstr("no GPU is looked at"), Not(HasSubstr("HURTS"))));
}

TEST_F(DoctorTest, EachTroubleHasItsMend) {
  struct Trouble {
    const char* file;
    const char* text;
    const char* what;
    const char* mend;
  };
  const Trouble troubles[] = {
      {"/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave",
       "1 CPUs is powersave", "cpupower frequency-set -g performance"},
      {"/proc/loadavg", "1.50 0 0 1/1 1", "load of 1.50 on 2 CPUs", "stop"},
      {"/sys/fs/cgroup/a/cpu.max", "150000 100000", "quota of 1.50 CPUs",
       "--threads=1"},
      {"/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]",
       "huge pages are off", "echo madvise"},
      {"/proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 10 kB",
       "10 % of memory", "ps -eo"},
      {"/sys/devices/system/clocksource/clocksource0/current_clocksource",
       "hpet", "hpet", "clocksource=tsc"},
      {"/sys/devices/system/clocksource/clocksource0/current_clocksource",
       "acpi_pm", "acpi_pm", "clocksource=tsc"},
      {"/sys/devices/system/clocksource/clocksource0/current_clocksource",
       "jiffies", "jiffies", "clocksource=tsc"},
  };
  for (const Trouble& trouble : troubles) {
    PutQuietHost(root_);
    root_.Put(trouble.file, trouble.text);
    const Outcome outcome = Doctor();
    EXPECT_EQ(outcome.status, 1) << trouble.file;
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("HURTS"), HasSubstr(trouble.what),
                      HasSubstr(trouble.mend), HasSubstr("1 things here hurt")))
        << trouble.file;
    std::filesystem::remove(root_.path() + trouble.file);
  }
}

TEST_F(DoctorTest, GpusToo) {
  PutQuietHost(root_);
  answers_ =
      "DeviceGetPersistenceMode=1 DeviceGetMigMode=0 Processes=0 "
      "DeviceGetEnforcedPowerLimit=700000 DeviceGetTemperature=30 "
      "DeviceGetPowerManagementDefaultLimit=700000 DeviceGetPowerUsage=75000 "
      "DeviceGetCurrentClocksThrottleReasons=1 DeviceGetComputeMode=0";
  Outcome outcome = Doctor(SEQMARK_FAKE_NVML);
  EXPECT_EQ(outcome.status, 0) << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr("gpu 0 (Fake GPU)"));
  const struct {
    const char* answer;
    const char* what;
  } troubles[] = {
      {"DeviceGetPersistenceMode=0", "nvidia-smi -pm 1"},
      {"DeviceGetMigMode=1", "MIG is on"},
      {"Processes=2", "2 other processes use the GPU: 100 101"},
      {"DeviceGetEnforcedPowerLimit=400000", "nvidia-smi -pl 700"},
      {"DeviceGetTemperature=85", "85 C"},
      {"DeviceGetPowerUsage=500000", "takes 500 W"},
      {"DeviceGetCurrentClocksThrottleReasons=0x8", "hardware slowdown"},
      {"DeviceGetComputeMode=2", "prohibited"},
      {"DeviceGetApplicationsClock=1200 DeviceGetDefaultApplicationsClock=1500",
       "set to 1200 MHz, below their default of 1500 MHz"},
  };
  const std::string quiet = answers_;
  for (const auto& trouble : troubles) {
    answers_ = absl::StrCat(trouble.answer, " ", quiet);  // the first counts
    outcome = Doctor(SEQMARK_FAKE_NVML);
    EXPECT_EQ(outcome.status, 1) << trouble.answer;
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("HURTS"), HasSubstr(trouble.what)));
  }
}

// What one should know, and what is not wrong.
TEST_F(DoctorTest, NotesHurtNothing) {
  const struct {
    const char* file;
    const char* text;
    const char* what;
    const char* mend;
  } notes[] = {
      {"/sys/devices/system/cpu/cpufreq/boost", "1", "turbo is on", "no_turbo"},
      {"/sys/devices/system/cpu/intel_pstate/no_turbo", "0", "turbo is on",
       "no_turbo"},
      {"/sys/devices/system/node/node1/cpulist", "1", "2 NUMA nodes",
       "numactl --cpunodebind=0"},
      {"/sys/devices/system/cpu/smt/active", "1", "SMT is on", "smt/control"},
      {"/proc/1/cgroup", "0::/docker/1", "inside a container (docker)", ""},
      {"/proc/cpuinfo", "flags : fpu hypervisor", "a virtual machine", ""},
  };
  for (const auto& note : notes) {
    SCOPED_TRACE(note.file);
    std::filesystem::remove_all(root_.path());
    PutQuietHost(root_);
    root_.Put(note.file, note.text);
    const Outcome outcome = Doctor();
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr(absl::StrCat("note   host: ", note.what)),
                      HasSubstr(note.mend), Not(HasSubstr("HURTS"))));
  }
  const struct {
    const char* answers;
    const char* what;
  } gpu_notes[] = {
      {"DeviceGetEccMode=0", "ECC is off"},
      {"DeviceGetCurrPcieLinkWidth=8 DeviceGetMaxPcieLinkWidth=16",
       "8 of 16 lanes"},
      {"", "whether clocks are locked is not to be seen"},
  };
  for (const auto& note : gpu_notes) {
    answers_ = note.answers;
    const Outcome outcome = Doctor(SEQMARK_FAKE_NVML);
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("note   gpu 0 (Fake GPU): "),
                      HasSubstr(note.what), Not(HasSubstr("HURTS"))));
  }
  answers_ =
      "DeviceGetEccMode=1 DeviceGetCurrPcieLinkWidth=16 "
      "DeviceGetMaxPcieLinkWidth=16";
  EXPECT_THAT(Doctor(SEQMARK_FAKE_NVML).out,
              AllOf(Not(HasSubstr("ECC")), Not(HasSubstr("lanes"))));
}

TEST_F(DoctorTest, ADriverThatDoesNotAnswerIsSaid) {
  PutQuietHost(root_);
  answers_ = "Init=18";
  const Outcome outcome = Doctor(SEQMARK_FAKE_NVML);
  EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("no GPU is looked at: nvmlInit_v2 failed: "
                                     "Driver/library version mismatch"));
}

TEST_F(DoctorTest, ThisMachineGetsAVerdict) {
  const Outcome outcome = Run(SEQMARK_FAULT_BENCH, "--doctor");
  EXPECT_THAT(outcome.status, testing::AnyOf(0, 1));
  EXPECT_THAT(outcome.out, HasSubstr("a measurement"));
}

}  // namespace
}  // namespace seqmark
