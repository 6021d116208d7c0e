// SPDX-License-Identifier: Apache-2.0
//
// A step is the scan of one token: the recurrence is written once, there.
#include "ops/ssd_step/ssd_step.h"

namespace seqmark {

void SsdStep::Reference(const Problem& p, const Args& a) {
  SsdScan::Reference(Scan(p), OneTokenScan<SsdScan::Args>(a));
}

void SsdStep::CountedReference(const Problem& p, const Args& a) {
  SsdScan::CountedReference(Scan(p), OneTokenScan<SsdScan::Args>(a));
}

}  // namespace seqmark
