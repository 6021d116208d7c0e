// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a flag's list, a size and a row's name: an error that says what
// would be right, or values that keep their promises.
#include <cstdint>
#include <cstdlib>

#include "absl/strings/str_join.h"
#include "bench/options.h"
#include "fixtures/row.h"

namespace {

void Expect(bool condition) {
  if (!condition) std::abort();
}
void ExpectError(const absl::Status& status) {
  Expect(absl::IsInvalidArgument(status) && !status.message().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seqmark;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto values = ParseIntegerList("seqlens", text); values.ok()) {
    for (int64_t value : *values) Expect(value >= 1);
    // A list of what was read reads the same.
    const auto again = ParseIntegerList("seqlens", absl::StrJoin(*values, ","));
    Expect(again.ok() && *again == *values);
  } else {
    ExpectError(values.status());
  }
  if (const auto bytes = ParseBytes("memory_limit", text); bytes.ok())
    Expect(*bytes <= size_t{1} << 60);
  else
    ExpectError(bytes.status());
  if (const auto name = RowName::Parse(text); name.ok()) {
    Expect(name->batch >= 1 && name->seqlen >= 1 && !name->op.empty());
    const auto again = RowName::Parse(name->ToString());
    Expect(again.ok() && again->ToString() == name->ToString());
    Expect(name->model().size() <= name->shape.size());
  } else {
    ExpectError(name.status());
  }
  return 0;
}
