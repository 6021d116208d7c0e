// SPDX-License-Identifier: Apache-2.0
//
// A folder that stands for / in tests of what is read from /proc and /sys.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace seqmark {

class FakeRoot {
 public:
  FakeRoot() {
    char pattern[] = "/tmp/seqmark_root_XXXXXX";
    path_ = mkdtemp(pattern);
  }
  ~FakeRoot() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  void Put(const std::string& file, const std::string& text) const {
    const std::filesystem::path path = path_ + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  }

 private:
  std::string path_;
};

// A machine of two CPUs with nothing to complain of.
inline void PutQuietHost(const FakeRoot& root) {
  for (const char* cpu : {"cpu0", "cpu1"}) {
    const std::string folder = std::string("/sys/devices/system/cpu/") + cpu;
    root.Put(folder + "/cpufreq/scaling_governor", "performance");
    root.Put(folder + "/thermal_throttle/core_throttle_count", "3");
  }
  root.Put("/sys/devices/system/cpu/cpu1/online", "1");
  root.Put("/sys/devices/system/cpu/cpufreq/boost", "0");
  root.Put("/sys/devices/system/cpu/smt/active", "0");
  root.Put("/sys/devices/system/node/node0/cpulist", "0-1");
  root.Put("/sys/devices/system/clocksource/clocksource0/current_clocksource",
           "tsc");
  root.Put("/sys/kernel/mm/transparent_hugepage/enabled",
           "always [madvise] never");
  root.Put("/sys/fs/cgroup/cgroup.controllers", "cpu memory");
  root.Put("/sys/fs/cgroup/a/b/cpu.stat",
           "usage_usec 10\nnr_throttled 0\nthrottled_usec 1500000");
  root.Put("/proc/self/cgroup", "0::/a/b");
  root.Put("/proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1");
  root.Put("/proc/1/cgroup", "0::/init.scope");
  root.Put("/proc/loadavg", "0.05 0.01 0.00 1/100 1234");
  root.Put("/proc/meminfo",
           "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable: 900 kB");
  root.Put("/proc/cpuinfo", "model name : A CPU\nflags : fpu avx2");
  root.Put("/proc/stat", "cpu  10 0 5 1000 1 0 0 200 0 0\ncpu0 1 2 3");
}

}  // namespace seqmark
