// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a safetensors file and as an index: an error or a header whose
// promises hold. Run by libFuzzer, and over seeded mutations by
// tests/safetensors_test.cc.
#include <cstdlib>
#include <cstring>
#include <memory>

#include "models/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of just this size, so that a sanitizer sees a read past its end.
  const std::unique_ptr<std::byte[]> copy(new std::byte[size]);
  if (size > 0) std::memcpy(copy.get(), data, size);
  const auto header = seqmark::ParseSafetensorsHeader({copy.get(), size});
  if (header.ok()) {
    size_t covered = header->empty() ? size : header->front().begin;
    for (const seqmark::HeaderTensor& t : *header) {
      if (t.begin != covered || t.end < t.begin || t.end > size) std::abort();
      covered = t.end;
      if (!t.dtype) continue;
      const size_t element = seqmark::SizeOf(*t.dtype);
      if (t.begin % element != 0) std::abort();
      const auto elements = static_cast<size_t>(seqmark::NumElements(t.dims));
      if (elements * element != t.end - t.begin) std::abort();
    }
    if (covered != size) std::abort();
  }
  const auto index = seqmark::ParseSafetensorsIndex(
      {reinterpret_cast<const char*>(copy.get()), size});
  if (index.ok())
    for (const auto& [name, file] : *index)
      if (file.empty() || file.find('/') != file.npos) std::abort();
  return 0;
}
