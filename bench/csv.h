// SPDX-License-Identifier: Apache-2.0
//
// Rows as Google Benchmark's CSV. Its own reporter takes the columns from the
// first row, and aborts at a row that has another counter: whole models have
// some that operators have not, and a skipped row has none.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace seqmark {

// A header that has every counter of any row, and a line for each row.
std::string ToCsv(const nlohmann::ordered_json& rows);

}  // namespace seqmark
