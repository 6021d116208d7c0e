// SPDX-License-Identifier: Apache-2.0
//
// Which rows a run has: the preset, the sweep flags and the filter. Decided
// from names alone, without touching a device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "fixtures/row.h"

namespace seqmark {

// The row's name as Google Benchmark prints it, and as filters see it.
std::string BenchmarkName(const RowName& name);

// InvalidArgument when nothing is left, saying what there is to choose from.
absl::StatusOr<std::vector<std::unique_ptr<Row>>> SelectRows(
    const Options& options);

}  // namespace seqmark
