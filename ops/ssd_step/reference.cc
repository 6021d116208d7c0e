// SPDX-License-Identifier: Apache-2.0
//
// A step is the scan of one token: the recurrence is written once, there.
#include "ops/ssd_step/ssd_step.h"

namespace seqmark {
namespace {

SsdScan::Args ScanArgs(const SsdStep::Args& a) {
  return {.x = OneToken(a.x),
          .dt = OneToken(a.dt),
          .A = a.A,
          .B = OneToken(a.B),
          .C = OneToken(a.C),
          .D = a.D,
          .dt_bias = a.dt_bias,
          .z = OneToken(a.z),
          .initial_state = a.state,
          .y = OneToken(a.y),
          .final_state = a.state_out};
}

}  // namespace

void SsdStep::Reference(const Problem& p, const Args& a) {
  SsdScan::Reference(Scan(p), ScanArgs(a));
}

void SsdStep::CountedReference(const Problem& p, const Args& a) {
  SsdScan::CountedReference(Scan(p), ScanArgs(a));
}

}  // namespace seqmark
