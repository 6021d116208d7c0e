// SPDX-License-Identifier: Apache-2.0
#include "bench/verify.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace seqmark {

absl::StatusOr<Verified> Verify(RowInstance& instance, uint64_t seed) {
  const absl::StatusOr<Verification> verification =
      instance.VerifySample({.seed = seed});
  if (absl::IsUnimplemented(verification.status()))
    return Verified{
        0, absl::StrCat("not verified: ", verification.status().message())};
  if (!verification.ok()) return verification.status();
  for (const OutputError& error : verification->errors)
    if (!error.ok)
      return absl::InternalError(absl::StrCat(
          "wrong output (--verify, ", verification->how, "): ", error.message));
  std::string label = absl::StrCat("verified: ", verification->how);
  if (verification->fraction > 0 && verification->fraction < 1)
    absl::StrAppendFormat(&label, ", %.2g %% of the outputs",
                          verification->fraction * 100);
  return Verified{verification->fraction, std::move(label)};
}

}  // namespace seqmark
