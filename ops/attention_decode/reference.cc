// SPDX-License-Identifier: Apache-2.0
//
// A step is the attention of a prompt's last token: written once, there.
#include "ops/attention_decode/attention_decode.h"

namespace seqmark {
namespace {

Attention::Args LastTokenArgs(const AttentionDecode::Args& a) {
  return {.q = OneToken(a.q), .k = a.k, .v = a.v, .o = OneToken(a.o)};
}

}  // namespace

void AttentionDecode::Reference(const Problem& p, const Args& a) {
  Attention::Reference(LastToken(p), LastTokenArgs(a));
}

void AttentionDecode::CountedReference(const Problem& p, const Args& a) {
  Attention::CountedReference(LastToken(p), LastTokenArgs(a));
}

}  // namespace seqmark
