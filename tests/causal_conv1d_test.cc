// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of causal_conv1d: x as a view into a wider projection,
// and a sequence cut in two.
#include "ops/causal_conv1d/causal_conv1d.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/op_call.h"

namespace seqmark {
namespace {

using Problem = CausalConv1d::Problem;

using Call = OpCall<CausalConv1d>;

Problem MakeProblem(int64_t batch, int64_t seqlen, int64_t channels) {
  Problem p;
  p.batch = batch;
  p.seqlen = seqlen;
  p.channels = channels;
  p.initial_state = true;
  return p;
}

TEST(CausalConv1d, ReadsTheStridesOfX) {
  ForEachProvider<CausalConv1d>([](const auto& provider, Device& device) {
    // Views whose rows keep 16-byte, 4-byte and only element alignment.
    for (const auto& [channels, row, offset] :
         {std::tuple{64, 96, 16}, {64, 98, 2}, {64, 97, 1}, {7, 20, 3}}) {
      SCOPED_TRACE(absl::StrCat(channels, " of ", row, " from ", offset));
      const Problem p = MakeProblem(2, 37, channels);
      Call contiguous(p, device);
      contiguous.Run(provider);

      Call view(p, device);
      const size_t element = SizeOf(p.dtype);
      const std::string x = view.Read(view.args.x);
      std::string wide(p.batch * p.seqlen * row * element, '\x7f');
      for (int64_t token = 0; token < p.batch * p.seqlen; ++token)
        std::memcpy(&wide[(token * row + offset) * element],
                    &x[token * channels * element], channels * element);
      const Buffer projection = *device.Allocate(wide.size());
      ASSERT_TRUE(
          device.CopyToDevice(projection.data(), wide.data(), wide.size())
              .ok());
      view.args.x.data =
          static_cast<std::byte*>(projection.data()) + offset * element;
      view.args.x.strides = {p.seqlen * row, row, 1};
      view.Run(provider);
      EXPECT_EQ(view.Read(view.args.y), contiguous.Read(contiguous.args.y));
      EXPECT_EQ(view.Read(view.args.final_state),
                contiguous.Read(contiguous.args.final_state));
    }
  });
}

TEST(CausalConv1d, TheStateCarriesASequenceOn) {
  ForEachProvider<CausalConv1d>([](const auto& provider, Device& device) {
    constexpr int64_t kLength = 101, kChannels = 40;
    const Problem p = MakeProblem(1, kLength, kChannels);
    Call whole(p, device);
    whole.Run(provider);
    const std::string y = whole.Read(whole.args.y);
    for (int64_t cut : {1, 2, 3, 50, 99, 100}) {
      SCOPED_TRACE(cut);
      Call first(MakeProblem(1, cut, kChannels), device);
      Call second(MakeProblem(1, kLength - cut, kChannels), device);
      for (Call* call : {&first, &second}) {
        call->args.weight = whole.args.weight;
        call->args.bias = whole.args.bias;
      }
      const size_t row = kChannels * SizeOf(p.dtype);
      first.args.x.data = whole.args.x.data;
      first.args.initial_state = whole.args.initial_state;
      second.args.x.data = whole.args.x.as<std::byte>() + cut * row;
      second.args.initial_state = first.args.final_state;
      first.Run(provider);
      second.Run(provider);
      EXPECT_EQ(first.Read(first.args.y) + second.Read(second.args.y), y);
      EXPECT_EQ(second.Read(second.args.final_state),
                whole.Read(whole.args.final_state));
    }
  });
}

}  // namespace
}  // namespace seqmark
