// SPDX-License-Identifier: Apache-2.0
//
// What a program does with its flags before rows are made. Files that are only
// in some programs register themselves, so that main.cc is the same in all.
#pragma once

#include "absl/status/status.h"
#include "bench/options.h"

namespace seqmark {

using Setup = absl::Status (*)(const Options& options);
bool AddSetup(Setup setup);
absl::Status RunSetups(const Options& options);

}  // namespace seqmark
