// SPDX-License-Identifier: Apache-2.0
#include "bench/setup.h"

#include <vector>

namespace seqmark {
namespace {

std::vector<Setup>& Setups() {
  static auto* const setups = new std::vector<Setup>();
  return *setups;
}

}  // namespace

bool AddSetup(Setup setup) {
  Setups().push_back(setup);
  return true;
}

absl::Status RunSetups(const Options& options) {
  for (Setup setup : Setups())
    if (absl::Status s = setup(options); !s.ok()) return s;
  return absl::OkStatus();
}

}  // namespace seqmark
