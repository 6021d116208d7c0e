// SPDX-License-Identifier: Apache-2.0
#include "fixtures/energy_fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace seqmark {
namespace {

constexpr double kWatts = 400;
constexpr double kPeriod = 0.1;
constexpr double kBase = 3e7;  // joules since the driver was loaded
constexpr double kUptime = 5e5;

// `n` updates whose times are known to +-`within`.
std::vector<EnergyUpdate> Updates(int n, double within, std::mt19937& random) {
  std::uniform_real_distribution<double> error(-within, within);
  std::vector<EnergyUpdate> updates;
  for (int i = 0; i < n; ++i)
    updates.push_back({kUptime + i * kPeriod + error(random), within,
                       kBase + kWatts * i * kPeriod});
  return updates;
}

TEST(EnergyFit, ALineIsFoundExactly) {
  std::mt19937 random(1);
  for (const int n : {3, 5, 11, 200}) {
    const PowerFit fit = FitPower(Updates(n, 0, random));
    EXPECT_NEAR(fit.watts, kWatts, 1e-6 * kWatts) << n;
    EXPECT_LT(fit.noise, 1e-6) << n;
  }
}

TEST(EnergyFit, ADelayOfAllUpdatesIsNoError) {
  std::mt19937 random(1);
  auto updates = Updates(5, 0, random);
  for (EnergyUpdate& update : updates) update.seconds += 0.037;
  EXPECT_NEAR(FitPower(updates).watts, kWatts, 1e-6 * kWatts);
}

TEST(EnergyFit, OfARampItIsTheMean) {
  std::vector<EnergyUpdate> updates;
  for (int i = 0; i < 11; ++i) {  // 300 to 500 W
    const double t = i * kPeriod;
    updates.push_back({t, 0, 300 * t + 100 * t * t});
  }
  EXPECT_NEAR(FitPower(updates).watts, 400, 1e-6);
  EXPECT_NEAR(PowerOver(updates, 1).watts, 400, 1e-6);
}

// The variance of the line's slope over that of the ends' is, for n updates
// with independent errors, 6 (n - 1) / (n (n + 1)); and the interval that it
// states holds the truth as often as it says.
TEST(EnergyFit, TheLineIsBetterThanItsEndsAndKnowsHowGoodItIs) {
  constexpr int kTrials = 20000;
  for (const double within : {1e-3, 6e-3})
    for (const int n : {5, 11, 21}) {
      std::mt19937 random(7 * n);
      const double window = (n - 1) * kPeriod;
      double of_line = 0, of_ends = 0, worst = 0;
      int held = 0;
      for (int i = 0; i < kTrials; ++i) {
        const auto updates = Updates(n, within, random);
        const PowerFit line = FitPower(updates);
        const PowerFit ends = PowerOver(
            updates, updates.back().seconds - updates.front().seconds);
        const double error = line.watts / kWatts - 1;
        of_line += error * error / kTrials;
        of_ends += std::pow(ends.watts / kWatts - 1, 2) / kTrials;
        worst = std::max(worst, std::fabs(error));
        held += std::fabs(error) <= line.noise;
        EXPECT_NEAR(ends.noise, 2 * within / window, 0.1 * within / window);
        EXPECT_LE(std::fabs(ends.watts / kWatts - 1),
                  1.15 * 2 * within / window);
      }
      const double m = n;
      EXPECT_NEAR(of_line / of_ends, 6 * (m - 1) / (m * (m + 1)), 0.03) << n;
      const double theory =
          within / std::sqrt(3.0) /
          (kPeriod * std::sqrt(m * (m * m - 1) / 12));  // of uniform errors
      EXPECT_NEAR(std::sqrt(of_line), theory, 0.05 * theory) << n;
      // All errors as bad as can be: 1.2 times that of the ends of 5 updates,
      // 1.5 times of many.
      double absolute = 0;
      for (int i = 0; i < n; ++i) absolute += std::fabs(i - 0.5 * (m - 1));
      EXPECT_LE(worst,
                1.01 * within / kPeriod * absolute / (m * (m * m - 1) / 12));
      EXPECT_NEAR(held / double{kTrials}, 0.95, 0.03) << n << " " << within;
    }
}

TEST(EnergyFit, OverATimeThatEndsBetweenUpdates) {
  const std::vector<EnergyUpdate> updates = {
      {0, 0, 0}, {1, 0, 100}, {2, 0.5, 400}, {3, 0.1, 500}};
  EXPECT_DOUBLE_EQ(PowerOver(updates, 1.5).watts, 250 / 1.5);
  EXPECT_DOUBLE_EQ(PowerOver(updates, 3).watts, 500. / 3);
  EXPECT_DOUBLE_EQ(PowerOver(updates, 3.01).watts, 501 / 3.01);
  EXPECT_DOUBLE_EQ(PowerOver(updates, 1.5).noise, 0.5 / 1.5);
}

}  // namespace
}  // namespace seqmark
