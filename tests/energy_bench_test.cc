// SPDX-License-Identifier: Apache-2.0
//
// The program on a machine with an energy counter: made-up files under /sys, in
// a mount namespace of the test's own.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench_program.h"
#include "tests/fake_root.h"

namespace seqmark {
namespace {

using testing::HasSubstr;

constexpr double kWatts = 30;

class EnergyBenchTest : public BenchTest {
 protected:
  void SetUp() override {
    BenchTest::SetUp();
    root_.Put("/class/powercap/uevent", "");
    root_.Put("/bus/i2c/uevent", "");
  }
  // With /sys/class and /sys/bus as they are in `root_`.
  Json Rows() {
    const std::string namespaced = absl::StrCat(
        "unshare -m ", geteuid() == 0 ? "" : "-r ", "sh -c 'mount --bind ",
        root_.path(), "/class /sys/class && mount --bind ", root_.path(),
        "/bus /sys/bus || exit 77; exec ");
    const Outcome outcome =
        Run(absl::StrCat(namespaced, SEQMARK_FAULT_BENCH),
            absl::StrCat("--max_time=0.2 --benchmark_filter=fine ",
                         "--benchmark_out=", Path("x.json"), "'"));
    if (outcome.status == 77) return {};
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return ReadJson("x.json");
  }
  static double Number(const Json& context, const char* name) {
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(context.value(name, ""), &value)) << name;
    return value;
  }
  static void Check(const Json& document, const std::string& counter) {
    const Json& context = document["context"];
    EXPECT_THAT(context.value("cpu_energy", ""), HasSubstr(counter));
    EXPECT_GE(Number(context, "cpu_energy_window_seconds"), 0.2);
    EXPECT_LE(Number(context, "cpu_energy_window_seconds"), 1.25);
    EXPECT_GE(Number(context, "cpu_energy_lead_in_seconds"), 0.1);
    EXPECT_GT(Number(context, "cpu_energy_window_error"), 0);
    EXPECT_GT(Number(context, "cpu_energy_update_seconds"), 0);
    EXPECT_NEAR(Number(context, "cpu_idle_power_watts"), kWatts, 3);
    EXPECT_EQ(document["benchmarks"].size(), 2u);
    for (const Json& row : document["benchmarks"]) {
      if (row.value("label", "").find("energy not measured") !=
          std::string::npos)
        continue;  // a machine too busy for a load back to back
      EXPECT_NEAR(row.value("power", 0.0), kWatts, 3) << row;
      EXPECT_GT(row.value("energy", 0.0), 0) << row;
      EXPECT_GE(row.value("energy_noise", -1.0), 0) << row;
      EXPECT_LT(row.value("energy_noise", 1.0), 0.2) << row;
    }
  }
  FakeRoot root_;
};

TEST_F(EnergyBenchTest, RaplIsReadBesideTheLoad) {
  const std::string zone = "/class/powercap/intel-rapl:0";
  root_.Put(zone + "/name", "package-0");
  root_.Put(zone + "/max_energy_range_uj", "262143328850");
  root_.Put(zone + "/energy_uj", absl::StrFormat("%015d", 0));
  std::atomic<bool> over = false;
  std::thread device([&] {
    const int file =
        open((root_.path() + zone + "/energy_uj").c_str(), O_WRONLY);
    const auto start = std::chrono::steady_clock::now();
    while (!over) {
      const std::chrono::duration<double> now =
          std::chrono::steady_clock::now() - start;
      // In place: a file that is cut short first would be empty for a moment.
      const std::string text = absl::StrFormat(
          "%015d", static_cast<int64_t>(kWatts * now.count() * 1e6));
      EXPECT_GT(pwrite(file, text.data(), text.size(), 0), 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    close(file);
  });
  // Also where Rows ends the test: a thread that still runs would end it all.
  absl::Cleanup stop = [&] {
    over = true;
    device.join();
  };
  const Json document = Rows();
  std::move(stop).Invoke();
  if (document.is_null()) GTEST_SKIP() << ReadFile(Path("err"));
  Check(document, "RAPL of package-0");
}

TEST_F(EnergyBenchTest, AJetsonsSensorsWhereThereIsNoRapl) {
  const std::string sensor = "/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon2/";
  root_.Put(sensor + "in1_label", "VDD_IN");
  root_.Put(sensor + "in1_input", "5000");
  root_.Put(sensor + "curr1_input", absl::StrCat(kWatts / 5 * 1000));
  const Json document = Rows();
  if (document.is_null()) GTEST_SKIP() << ReadFile(Path("err"));
  Check(document, "INA3221 of VDD_IN, the whole module");
}

TEST_F(EnergyBenchTest, WithoutEitherBothReasonsAreSaid) {
  const Json document = Rows();
  if (document.is_null()) GTEST_SKIP() << ReadFile(Path("err"));
  const std::string why = document["context"].value("cpu_energy", "");
  EXPECT_THAT(why, HasSubstr("no RAPL counter"));
  EXPECT_THAT(why, HasSubstr("no INA3221 sensor"));
  for (const Json& row : document["benchmarks"])
    for (const char* counter : {"energy", "energy_noise", "power"})
      EXPECT_FALSE(row.contains(counter)) << row;
}

}  // namespace
}  // namespace seqmark
