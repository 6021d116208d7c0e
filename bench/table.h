// SPDX-License-Identifier: Apache-2.0
//
// The readable table on stdout: one line a row, units for people.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace seqmark {

std::string TableHeader();
// One line of the table, with its newline. `colour`: for a terminal.
std::string TableLine(const nlohmann::ordered_json& row, bool colour);

// 1234567 -> "1.23M"; three significant digits with an SI prefix.
std::string Si(double value);

}  // namespace seqmark
