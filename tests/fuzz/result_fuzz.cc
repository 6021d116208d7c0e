// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as what the program reads back of its own results: the cache of
// measured ceilings, and a worker's rows on their way to the table and the
// file. A ceilings file is an error or rates that a least time can be had of;
// a row, whatever it holds, is a line, and the file stays JSON.
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "absl/strings/match.h"
#include "bench/result_file.h"
#include "bench/table.h"
#include "fixtures/roofline.h"

namespace {

void Expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seqmark;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto ceilings = CeilingsFromJson(text);
  if (ceilings.ok()) {
    const Cost cost = {
        .matrix_flops = 1e9, .vector_flops = 1e6, .special_ops = 1e6};
    for (CacheState cache : {CacheState::kHot, CacheState::kCold}) {
      const LeastTime least =
          LeastSeconds(cost, DType::kBF16, 1 << 20, 1 << 20, cache, *ceilings);
      Expect(least.seconds >= 0 && std::isfinite(least.seconds));
    }
    const auto again = CeilingsFromJson(ToJson(*ceilings));
    Expect(again.ok() && ToJson(*again) == ToJson(*ceilings));
  } else {
    Expect(absl::IsInvalidArgument(ceilings.status()) &&
           !ceilings.status().message().empty());
  }
  const Json row = Json::parse(text.begin(), text.end(), nullptr, false);
  if (row.is_discarded()) return 0;
  Expect(absl::EndsWith(TableLine(row, size % 2 == 0), "\n"));
  ResultFile file{BenchmarkFlags()};
  file.SetContext(row.is_object() ? row : Json::object());
  file.AddRows(row.is_array() ? row : Json::array({row}));
  Expect(Json::accept(file.ToText()));
  return 0;
}
