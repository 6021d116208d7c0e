// SPDX-License-Identifier: Apache-2.0
//
// Tensors placed one after the other in a memory whose size is learnt by
// placing them: first from an address with nothing behind it, then for good.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "fixtures/tensor.h"

namespace seqmark {

class Layout {
 public:
  // Any address that is not null and as aligned as a Device's.
  Layout() : base_(reinterpret_cast<std::byte*>(kAlignment)) {}
  explicit Layout(void* base) : base_(static_cast<std::byte*>(base)) {}

  Tensor Place(DType dtype, Dims dims) {
    const size_t bytes = NumElements(dims) * SizeOf(dtype);
    Tensor tensor(base_ + used_, dtype, std::move(dims));
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    most_ = std::max(most_, used_);
    return tensor;
  }
  // What was placed since a mark may be placed over.
  size_t mark() const { return used_; }
  void Release(size_t mark) { used_ = mark; }
  size_t bytes() const { return most_; }

 private:
  static constexpr size_t kAlignment = 256;
  std::byte* base_;
  size_t used_ = 0;
  size_t most_ = 0;
};

// Elements begin .. begin + width of a tensor's last axis; if the axis is
// `width` long already, the tensor itself.
inline Tensor Slice(const Tensor& t, int64_t begin, int64_t width) {
  Tensor slice = t;
  slice.data =
      t.as<std::byte>() + begin * static_cast<int64_t>(SizeOf(t.dtype));
  slice.dims.back() = width;
  return slice;
}

// Entries begin .. begin + count of axis 1.
inline Tensor Tokens(const Tensor& t, int64_t begin, int64_t count) {
  Tensor tokens = t;
  tokens.data = t.as<std::byte>() +
                begin * t.strides[1] * static_cast<int64_t>(SizeOf(t.dtype));
  tokens.dims[1] = count;
  return tokens;
}

// The last axis as (heads, dim).
inline Tensor Heads(const Tensor& t, int64_t heads, int64_t dim) {
  Tensor split = t;
  split.dims.back() = heads;
  split.dims.push_back(dim);
  split.strides.back() = dim;
  split.strides.push_back(1);
  return split;
}

// The reverse.
inline Tensor WithoutHeads(const Tensor& t) {
  Tensor joined = t;
  joined.dims.pop_back();
  joined.strides.pop_back();
  joined.dims.back() = t.dims[2] * t.dims[3];
  joined.strides.back() = 1;
  return joined;
}

// (batch, 1, ...) as (batch, ...).
inline Tensor WithoutTokens(const Tensor& t) {
  Tensor entry = t;
  entry.dims.erase(entry.dims.begin() + 1);
  entry.strides.erase(entry.strides.begin() + 1);
  return entry;
}

}  // namespace seqmark
