// SPDX-License-Identifier: Apache-2.0
//
// Files that are whole at any moment: written beside themselves, then renamed.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace seqmark {

// Proves, before any work, that the file which `flag` names can be written.
absl::Status CheckWritable(absl::string_view flag, const std::string& path);

absl::Status WriteAtomically(absl::string_view flag, const std::string& path,
                             const std::string& text);

}  // namespace seqmark
