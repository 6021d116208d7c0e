// SPDX-License-Identifier: Apache-2.0
//
// What a result file says of the program that made it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/options.h"

namespace seqmark {

inline constexpr int kSchemaVersion = 1;

std::vector<std::pair<std::string, std::string>> ProgramFacts(
    const Options& options);

}  // namespace seqmark
