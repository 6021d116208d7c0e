// SPDX-License-Identifier: Apache-2.0
//
// Runs rows in worker processes and keeps their results, so that a row that
// aborts, is killed, runs out of memory or hangs loses only itself.
#pragma once

#include <memory>
#include <vector>

#include "bench/options.h"
#include "fixtures/row.h"

namespace seqmark {

// The process's exit status: 0 when every row was measured or skipped.
int Supervise(const Options& options, std::vector<std::unique_ptr<Row>> rows);

}  // namespace seqmark
