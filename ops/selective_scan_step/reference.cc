// SPDX-License-Identifier: Apache-2.0
//
// A step is the scan of one token: the recurrence is written once, there.
#include "ops/selective_scan_step/selective_scan_step.h"

namespace seqmark {

void SelectiveScanStep::Reference(const Problem& p, const Args& a) {
  SelectiveScan::Reference(Scan(p), OneTokenScan<SelectiveScan::Args>(a));
}

void SelectiveScanStep::CountedReference(const Problem& p, const Args& a) {
  SelectiveScan::CountedReference(Scan(p),
                                  OneTokenScan<SelectiveScan::Args>(a));
}

}  // namespace seqmark
