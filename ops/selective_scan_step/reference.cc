// SPDX-License-Identifier: Apache-2.0
//
// A step is the scan of one token: the recurrence is written once, there.
#include "ops/selective_scan_step/selective_scan_step.h"

namespace seqmark {
namespace {

SelectiveScan::Args ScanArgs(const SelectiveScanStep::Args& a) {
  return {.x = OneToken(a.x),
          .dt = OneToken(a.dt),
          .A = a.A,
          .B = OneToken(a.B),
          .C = OneToken(a.C),
          .D = a.D,
          .z = OneToken(a.z),
          .dt_bias = a.dt_bias,
          .initial_state = a.state,
          .y = OneToken(a.y),
          .final_state = a.state_out};
}

}  // namespace

void SelectiveScanStep::Reference(const Problem& p, const Args& a) {
  SelectiveScan::Reference(Scan(p), ScanArgs(a));
}

void SelectiveScanStep::CountedReference(const Problem& p, const Args& a) {
  SelectiveScan::CountedReference(Scan(p), ScanArgs(a));
}

}  // namespace seqmark
