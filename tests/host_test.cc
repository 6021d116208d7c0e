// SPDX-License-Identifier: Apache-2.0
#include "fixtures/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/fake_root.h"

namespace seqmark {
namespace {

using testing::StartsWith;

std::string FactOf(const HostState& state, const std::string& name) {
  for (const auto& [key, value] : Facts(state))
    if (key == name) return value;
  return "no such fact";
}

TEST(Host, ReadsAQuietMachine) {
  const FakeRoot root;
  PutQuietHost(root);
  const HostState state = ReadHostState(root.path());
  const std::pair<const char*, const char*> facts[] = {
      {"host_cpus", "2"},           {"host_cpus_allowed", "2"},
      {"host_cpu_quota", "none"},   {"host_governor", "performance on 2"},
      {"host_turbo", "off"},        {"host_smt", "off"},
      {"host_numa_nodes", "1"},     {"host_huge_pages", "madvise"},
      {"host_load", "0.05"},        {"host_memory_available", "0.9"},
      {"host_container", "none"},   {"host_virtual_machine", "none"},
      {"host_clock_source", "tsc"},
  };
  for (const auto& [name, value] : facts)
    EXPECT_EQ(FactOf(state, name), value) << name;
  EXPECT_EQ(Facts(state).size(), std::size(facts));
}

TEST(Host, WhatIsNotThereHasAReason) {
  const FakeRoot root;
  const HostState state = ReadHostState(root.path());
  for (const auto& [name, value] : Facts(state))
    EXPECT_THAT(value, StartsWith("not known: ")) << name;
  const CpuSlowdowns slowdowns = ReadCpuSlowdowns(root.path());
  EXPECT_FALSE(slowdowns.quota_seconds.ok());
  EXPECT_FALSE(slowdowns.stolen_seconds.ok());
  EXPECT_FALSE(slowdowns.thermal_events.ok());
}

TEST(Host, TheTightestQuotaAboveCounts) {
  const FakeRoot root;
  PutQuietHost(root);
  root.Put("/sys/fs/cgroup/a/cpu.max", "150000 100000");
  root.Put("/sys/fs/cgroup/a/b/cpu.max", "max 100000");
  EXPECT_EQ(*ReadHostState(root.path()).cpu_quota, 1.5);
  root.Put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000");
  EXPECT_EQ(*ReadHostState(root.path()).cpu_quota, 0.5);
}

TEST(Host, FilesThatSayNonsenseAreNotBelieved) {
  const FakeRoot root;
  PutQuietHost(root);
  root.Put("/proc/loadavg", "x y z");
  root.Put("/proc/self/status", "Cpus_allowed_list:\t0-x");
  root.Put("/proc/meminfo", "MemTotal: 0 kB\nMemAvailable: 0 kB");
  root.Put("/sys/kernel/mm/transparent_hugepage/enabled", "]always[");
  root.Put("/sys/devices/system/cpu/smt/active", "");
  const HostState state = ReadHostState(root.path());
  EXPECT_FALSE(state.load.ok());
  EXPECT_FALSE(state.cpus_allowed.ok());
  EXPECT_FALSE(state.memory_available.ok());
  EXPECT_FALSE(state.huge_pages.ok());
  EXPECT_FALSE(state.smt.ok());
}

TEST(Host, KnowsContainersAndVirtualMachines) {
  const FakeRoot root;
  PutQuietHost(root);
  root.Put("/proc/1/cgroup", "0::/kubepods/pod1");
  root.Put("/proc/cpuinfo", "flags : fpu hypervisor avx2");
  root.Put("/sys/class/dmi/id/sys_vendor", "QEMU");
  root.Put("/sys/class/dmi/id/product_name", "Standard PC");
  const HostState state = ReadHostState(root.path());
  EXPECT_EQ(*state.container, "kubepods");
  EXPECT_EQ(*state.virtual_machine, "QEMU Standard PC");
}

TEST(Host, CountsWhatSlowedItDown) {
  const FakeRoot root;
  PutQuietHost(root);
  const CpuSlowdowns slowdowns = ReadCpuSlowdowns(root.path());
  EXPECT_DOUBLE_EQ(*slowdowns.quota_seconds, 1.5);
  EXPECT_DOUBLE_EQ(*slowdowns.stolen_seconds,
                   200.0 / static_cast<double>(sysconf(_SC_CLK_TCK)));
  EXPECT_EQ(*slowdowns.thermal_events, 6);
}

TEST(Host, ReadsThisMachine) {
  const HostState state = ReadHostState();
  EXPECT_TRUE(state.cpus.ok()) << state.cpus.status();
  EXPECT_TRUE(state.cpus_allowed.ok()) << state.cpus_allowed.status();
  EXPECT_TRUE(state.load.ok()) << state.load.status();
}

}  // namespace
}  // namespace seqmark
