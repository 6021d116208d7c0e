// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of attention and attention_decode: keys and values
// that lie in a cache with room for more, and plans that share what is built
// once.
#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include "ops/attention_decode/attention_decode.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

// Of one thing computed twice, perhaps by two kernels.
template <class Op>
void ExpectSame(const OpCall<Op>& call, const std::string& o,
                const std::string& expected) {
  const DType dtype = call.problem.dtype;
  std::vector<double> values(expected.size() / SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = LoadElement(dtype, expected.data(), i);
  Tolerance tolerance = Op::GetTolerance(call.problem);
  tolerance.max_error *= 2;
  tolerance.l2_error *= 2;
  const OutputError error = Compare("o", dtype, o.data(), values, tolerance);
  EXPECT_TRUE(error.ok) << error.message;
}

Attention::Problem MakeProblem(DType dtype, int64_t past, int64_t window,
                               int64_t sink = 0) {
  Attention::Problem p;
  p.dtype = dtype;
  p.batch = 2;
  p.seqlen = 37;
  p.heads = 6;
  p.kv_heads = 2;
  p.head_dim = 64;
  p.past = past;
  p.window = window;
  p.sink = sink;
  return p;
}

TEST(Attention, ReadsAndWritesViews) {
  ForEachProvider<Attention>([](const auto& provider, Device& device) {
    for (DType dtype : provider.dtypes)
      for (const auto& [past, window, sink] :
           {std::tuple{0, 0, 0}, {53, 0, 0}, {53, 20, 0}, {200, 20, 70}}) {
        SCOPED_TRACE(absl::StrCat(Name(dtype), " past ", past));
        const Attention::Problem p = MakeProblem(dtype, past, window, sink);
        if (!provider.supports(p)) continue;
        OpCall<Attention> contiguous(p, device), view(p, device);
        contiguous.Run(provider);
        const SpacedView q(view.args.q, 8, 800, device),
            k(view.args.k, 16, 144, device), v(view.args.v, 0, 128, device),
            o(view.args.o, 64, 400, device);
        view.Run(provider);
        ExpectSame(view, o.Read(), contiguous.Read(contiguous.args.o));
      }
  });
}

TEST(Attention, PlansOfTheSameShapeKeepTheirOwnTensors) {
  ForEachProvider<Attention>([](const auto& provider, Device& device) {
    Attention::Problem p = MakeProblem(DType::kBF16, 100, 30);
    if (!provider.supports(p)) p.sink = 50;
    OpCall<Attention> first(p, device), second(p, device);
    second.args.q = first.args.o;  // other values than first's queries
    first.Run(provider);
    const std::string o = first.Read(first.args.o);
    second.Run(provider);
    const auto one = provider.plan(p, first.args, device),
               other = provider.plan(p, second.args, device);
    ASSERT_TRUE(one.ok() && other.ok());
    const std::string second_o = second.Read(second.args.o);
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE((*other)(device.stream()).ok());
      ASSERT_TRUE((*one)(device.stream()).ok());
      ASSERT_TRUE(device.Synchronize().ok());
      EXPECT_EQ(first.Read(first.args.o), o);
      EXPECT_EQ(second.Read(second.args.o), second_o);
    }
  });
}

TEST(AttentionDecode, WhatDoesNotCountMayBeAnything) {
  AttentionDecode::Problem p;
  p.seqlen = 500;
  p.heads = 4;
  p.kv_heads = 2;
  p.head_dim = 64;
  p.value_head_dim = 128;
  p.window = 40;
  p.sink = 9;
  ForEachProvider<AttentionDecode>([&](const auto& provider, Device& device) {
    for (DType dtype : provider.dtypes) {
      SCOPED_TRACE(Name(dtype));
      p.dtype = dtype;
      OpCall<AttentionDecode> call(p, device), other(p, device);
      call.Run(provider);
      for (const Tensor& t : {other.args.k, other.args.v}) {
        std::string bytes = other.Read(t);
        const size_t row = t.strides[1] * SizeOf(dtype);
        std::fill(bytes.begin() + p.sinks() * row,
                  bytes.begin() + p.first_key() * row, '\xff');  // NaN
        ASSERT_TRUE(
            device.CopyToDevice(t.data, bytes.data(), bytes.size()).ok());
      }
      other.Run(provider);
      EXPECT_EQ(other.Read(other.args.o), call.Read(call.args.o));
    }
  });
}

TEST(AttentionDecode, ReadsAndWritesViews) {
  ForEachProvider<AttentionDecode>([](const auto& provider, Device& device) {
    for (DType dtype : provider.dtypes)
      for (const auto& [seqlen, window, sink] :
           {std::tuple{1, 0, 0}, {700, 0, 0}, {700, 333, 0}, {700, 333, 70}}) {
        SCOPED_TRACE(absl::StrCat(Name(dtype), " of ", seqlen));
        AttentionDecode::Problem p;
        p.dtype = dtype;
        p.batch = 3;
        p.seqlen = seqlen;
        p.heads = 10;
        p.kv_heads = 2;
        p.head_dim = 80;
        p.window = window;
        p.sink = sink;
        OpCall<AttentionDecode> contiguous(p, device), view(p, device);
        contiguous.Run(provider);
        const SpacedView k(view.args.k, 16, 176, device),
            v(view.args.v, 8, 160, device);
        // The heads of a token as one row: only sequences are spaced out.
        Tensor q(view.args.q.data, dtype, {p.batch, 1, 800}),
            o(view.args.o.data, dtype, {p.batch, 1, 800});
        const SpacedView q_rows(q, 3, 807, device), o_rows(o, 5, 1000, device);
        view.args.q.data = q.data;
        view.args.q.strides[0] = q.strides[0];
        view.args.o.data = o.data;
        view.args.o.strides[0] = o.strides[0];
        view.Run(provider);
        ExpectSame(view, o_rows.Read(), contiguous.Read(contiguous.args.o));
      }
  });
}

}  // namespace
}  // namespace seqmark
