// SPDX-License-Identifier: Apache-2.0
//
// RAPL and INA3221 on made-up folders, and which of a device's counters is
// taken.
#include "fixtures/energy_sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "fixtures/ina.h"
#include "fixtures/rapl.h"
#include "tests/energy_world.h"
#include "tests/fake_root.h"

namespace seqmark {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

class RaplTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/seqmark_rapl_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text << "\n";
  }
  void AddZone(const std::string& folder, const std::string& name,
               uint64_t energy, uint64_t range = 1000000000) {
    Write(folder + "/name", name);
    Write(folder + "/max_energy_range_uj", absl::StrCat(range));
    Write(folder + "/energy_uj", absl::StrCat(energy));
  }
  std::string Why() const {
    const auto counter = OpenRapl(root_.string());
    EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
    return std::string(counter.status().message());
  }
  fs::path root_;
};

TEST_F(RaplTest, SumsPackagesAndMemory) {
  AddZone("intel-rapl:0", "package-0", 5000000);
  AddZone("intel-rapl:0:0", "core", 1);
  AddZone("intel-rapl:0:1", "dram", 100);
  AddZone("intel-rapl:1", "package-1", 999999990);
  AddZone("intel-rapl:2", "psys", 1);
  AddZone("intel-rapl-mmio:0", "package-0", 1);
  const auto counter = OpenRapl(root_.string());
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_EQ((*counter)->name(), "RAPL of package-0, dram, package-1");
  EXPECT_EQ(*(*counter)->Joules(), 0);
  Write("intel-rapl:0/energy_uj", "7000000");
  Write("intel-rapl:0:0/energy_uj", "800000000");
  Write("intel-rapl:2/energy_uj", "800000000");
  Write("intel-rapl-mmio:0/energy_uj", "800000000");
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 2);
  Write("intel-rapl:0:1/energy_uj", "500100");
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 2.5);
  Write("intel-rapl:1/energy_uj", "249990");  // starts again from 0
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 2.75);
  Write("intel-rapl:1/energy_uj", "499990");
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 3);
  Write("intel-rapl:1/energy_uj", "much");
  EXPECT_FALSE((*counter)->Joules().ok());
}

TEST_F(RaplTest, SaysWhyThereIsNone) {
  EXPECT_THAT(Why(), HasSubstr("no RAPL counter"));
  AddZone("intel-rapl:0:0", "core", 1);
  EXPECT_THAT(Why(), HasSubstr("no RAPL counter"));
  AddZone("intel-rapl:0", "package-0", 1);
  fs::remove(root_ / "intel-rapl:0/energy_uj");
  EXPECT_THAT(Why(), HasSubstr("energy_uj: No such file"));
  Write("intel-rapl:0/energy_uj", "");
  EXPECT_THAT(Why(), HasSubstr("not microjoules"));
  fs::remove(root_ / "intel-rapl:0/max_energy_range_uj");
  EXPECT_THAT(Why(), HasSubstr("max_energy_range_uj"));
  fs::remove_all(root_);
  EXPECT_THAT(Why(), HasSubstr("No such file"));
}

class InaTest : public testing::Test {
 protected:
  // As L4T 35 and later have it: from 1 on, in mV and mA.
  void PutHwmon(const std::string& chip, int n, const std::string& label,
                int millivolts, int milliamperes) const {
    const std::string folder =
        absl::StrCat("/sys/bus/i2c/drivers/ina3221/", chip, "/hwmon/hwmon3/");
    root_.Put(absl::StrCat(folder, "in", n, "_label"), label);
    root_.Put(absl::StrCat(folder, "in", n, "_input"),
              absl::StrCat(millivolts));
    root_.Put(absl::StrCat(folder, "curr", n, "_input"),
              absl::StrCat(milliamperes));
  }
  // As L4T 32 has it: from 0 on, in mW.
  void PutIio(const std::string& chip, int n, const std::string& name,
              int milliwatts) const {
    const std::string folder =
        absl::StrCat("/sys/bus/i2c/drivers/ina3221x/", chip, "/iio:device0/");
    root_.Put(absl::StrCat(folder, "rail_name_", n), name);
    root_.Put(absl::StrCat(folder, "in_power", n, "_input"),
              absl::StrCat(milliwatts));
    root_.Put(absl::StrCat(folder, "in_current", n, "_input"), "1");
    root_.Put(absl::StrCat(folder, "in_voltage", n, "_input"), "1");
  }
  void PutOrinNx() const {
    PutHwmon("1-0040", 1, "VDD_IN", 5000, 2000);
    PutHwmon("1-0040", 2, "VDD_CPU_GPU_CV", 5000, 700);
    PutHwmon("1-0040", 3, "VDD_SOC", 5000, 400);
    root_.Put("/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in7_label",
              "sum of shunt voltages");
    root_.Put("/sys/bus/i2c/drivers/ina3221/bind", "");
  }
  // The mean watts over two seconds.
  double Watts() {
    auto counter = OpenIna(root_.path(), [this] { return now_; });
    EXPECT_TRUE(counter.ok()) << counter.status();
    if (!counter.ok()) return 0;
    name_ = (*counter)->name();
    const double start = *(*counter)->Joules();
    now_ += 2;
    return (*(*counter)->Joules() - start) / 2;
  }
  std::string Why() const {
    const auto counter = OpenIna(root_.path());
    EXPECT_TRUE(absl::IsUnavailable(counter.status())) << counter.status();
    return std::string(counter.status().message());
  }
  FakeRoot root_;
  double now_ = 1000;
  std::string name_;
};

TEST_F(InaTest, TheModulesOwnRailIsTaken) {
  PutOrinNx();
  EXPECT_DOUBLE_EQ(Watts(), 10);
  EXPECT_EQ(name_,
            "INA3221 of VDD_IN, the whole module; power summed up over time");
}

TEST_F(InaTest, ElseItsSuppliesTogether) {
  PutHwmon("1-0040", 1, "VDD_GPU_SOC", 19000, 1000);
  PutHwmon("1-0040", 2, "VDD_CPU_CV", 19000, 500);
  PutHwmon("1-0040", 3, "VIN_SYS_5V0", 5000, 900);
  PutHwmon("1-0041", 1, "NC", 0, 0);
  PutHwmon("1-0041", 2, "VDDQ_VDD2_1V8AO", 5000, 300);
  PutHwmon("1-0041", 3, "NC", 0, 0);
  EXPECT_DOUBLE_EQ(Watts(), 19 + 9.5 + 4.5);
  EXPECT_THAT(name_, HasSubstr("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0,"));
}

TEST_F(InaTest, TheOlderDriversFilesToo) {
  PutIio("7-0040", 0, "VDD_IN", 6500);
  PutIio("7-0040", 1, "VDD_CPU_GPU_CV", 2000);
  EXPECT_DOUBLE_EQ(Watts(), 6.5);
}

TEST_F(InaTest, OfAgxXavierAllRails) {
  const char* const first[] = {"GPU", "CPU", "SOC"};
  const char* const second[] = {"CV", "VDDRQ", "SYS5V"};
  for (int i = 0; i < 3; ++i) {
    PutIio("1-0040", i, first[i], 1000);
    PutIio("1-0041", i, second[i], 500);
  }
  EXPECT_DOUBLE_EQ(Watts(), 4.5);
}

TEST_F(InaTest, SumsPowerOverTime) {
  PutOrinNx();
  const auto counter = OpenIna(root_.path(), [this] { return now_; });
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_EQ(*(*counter)->Joules(), 0);
  PutHwmon("1-0040", 1, "VDD_IN", 5000, 4000);
  now_ += 0.5;
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 0.5 * 15);  // from 10 to 20 W
  now_ += 1;
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 7.5 + 20);
  PutHwmon("1-0040", 1, "VDD_IN", 5000, -8);  // an offset: no power
  now_ += 1;
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 27.5 + 10);
  now_ -= 5;  // a clock that steps back
  EXPECT_DOUBLE_EQ(*(*counter)->Joules(), 37.5);
  PutHwmon("1-0040", 1, "VDD_IN", 5000, 1000);
  root_.Put("/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input",
            "much");
  EXPECT_THAT((*counter)->Joules().status().message(),
              HasSubstr("curr1_input holds 'much\n', not milliamperes"));
}

TEST_F(InaTest, SaysWhyThereIsNone) {
  EXPECT_THAT(Why(), HasSubstr("no INA3221 sensor in"));
  PutHwmon("1-0040", 1, "VDD_CAM", 5000, 1000);
  PutHwmon("1-0040", 2, "VDD_FAN", 5000, 1000);
  EXPECT_THAT(Why(), AllOf(HasSubstr("VDD_CAM, VDD_FAN"),
                           HasSubstr("not known which add up")));
  PutOrinNx();
  fs::remove(root_.path() +
             "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input");
  EXPECT_THAT(Why(), HasSubstr("curr1_input: No such file"));
}

// Sampled power, met by the meter as any counter: each read takes 3 ms of the
// bus, and the power rises at first.
TEST_F(InaTest, AMeterTakesItsEnergy) {
  PutOrinNx();
  World world;
  auto ina = OpenIna(root_.path(), [&] { return world.Now(); });
  ASSERT_TRUE(ina.ok()) << ina.status();
  const auto put = [this](double watts) {
    PutHwmon("1-0040", 1, "VDD_IN", 5000, static_cast<int>(watts / 5 * 1000));
  };
  class Slow final : public EnergyCounter {
   public:
    Slow(World& world, std::unique_ptr<EnergyCounter> ina,
         std::function<void(double)> put)
        : world_(world), ina_(std::move(ina)), put_(std::move(put)) {}
    std::string name() const override { return ina_->name(); }
    absl::StatusOr<double> Joules() override {
      world_.Advance(1.5e-3);
      put_(world_.watts(world_.Now()));
      auto joules = ina_->Joules();
      world_.Advance(1.5e-3);
      return joules;
    }

   private:
    World& world_;
    std::unique_ptr<EnergyCounter> ina_;
    std::function<void(double)> put_;
  };
  const auto meter = EnergyMeter::Make(
      std::make_unique<Slow>(world, *std::move(ina), put), world.Options());
  ASSERT_TRUE(meter.ok()) << meter.status();
  EXPECT_NEAR((*meter)->idle_watts(), kIdleWatts, 0.5);
  EXPECT_NEAR((*meter)->read_seconds(), 3e-3, 1e-4);
  FakeSource source(world, 1e-3, true);
  source.watts = [](double) { return 40.0; };
  source.ramp = [](double now) { return 1 - 0.4 * std::exp(-now / 0.02); };
  const auto reading = (*meter)->Measure(source, 1e-3);
  ASSERT_TRUE(reading.ok()) << reading.status();
  EXPECT_NEAR(reading->watts, 40, 0.4);
  EXPECT_NEAR(reading->joules, 0.04, 4e-4);
}

class SourcesTest : public InaTest {
 protected:
  std::string Gpu(const char* answers) const {
    setenv("FAKE_NVML", answers, 1);
    const auto counter =
        OpenGpuEnergyCounter("0000:01:00.0", root_.path(), SEQMARK_FAKE_NVML);
    unsetenv("FAKE_NVML");
    return counter.ok() ? (*counter)->name()
                        : std::string(counter.status().message());
  }
};

TEST_F(SourcesTest, AGpusEnergyIsNvmlsAndElseTheModules) {
  EXPECT_THAT(Gpu(""), AllOf(HasSubstr("NVML total energy counter: this GPU "
                                       "has none; no INA3221 sensor in")));
  PutOrinNx();
  EXPECT_THAT(Gpu(""), HasSubstr("INA3221 of VDD_IN"));
  EXPECT_EQ(Gpu("DeviceGetTotalEnergyConsumption=5000"),
            "NVML total energy counter");
}

TEST_F(SourcesTest, ACpusIsRaplsAndElseTheModules) {
  auto counter = OpenCpuEnergyCounter(root_.path());
  EXPECT_THAT(std::string(counter.status().message()),
              AllOf(HasSubstr("no RAPL counter"), HasSubstr("no INA3221")));
  PutOrinNx();
  counter = OpenCpuEnergyCounter(root_.path());
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_THAT((*counter)->name(), HasSubstr("INA3221 of VDD_IN"));
  const std::string zone = "/sys/class/powercap/intel-rapl:0";
  root_.Put(zone + "/name", "package-0");
  root_.Put(zone + "/max_energy_range_uj", "1000000");
  root_.Put(zone + "/energy_uj", "5");
  counter = OpenCpuEnergyCounter(root_.path());
  ASSERT_TRUE(counter.ok()) << counter.status();
  EXPECT_EQ((*counter)->name(), "RAPL of package-0");
}

}  // namespace
}  // namespace seqmark
