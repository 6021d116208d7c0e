// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of activation: x as a view into something wider.
#include "ops/activation/activation.h"

#include <gtest/gtest.h>

#include "tests/op_call.h"

namespace seqmark {
namespace {

TEST(Activation, FollowsTheStridesOfX) {
  ForEachProvider<Activation>([](const auto& provider, Device& device) {
    for (const auto& [batch, seqlen] :
         {std::pair{1, 1}, {1, 9}, {3, 1}, {2, 37}})
      for (int64_t width : {64, 7})
        for (bool gated : {false, true})
          for (int64_t skew : {16, 1}) {
            SCOPED_TRACE(absl::StrCat(batch, "x", seqlen, "x", width,
                                      gated ? " gated" : "", " ", skew));
            Activation::Problem p;
            p.batch = batch;
            p.seqlen = seqlen;
            p.width = width;
            p.gated = gated;
            OpCall<Activation> contiguous(p, device), call(p, device);
            contiguous.Run(provider);
            const SpacedView x(call.args.x, skew, p.x_width() + 2 * skew,
                               device);
            call.Run(provider);
            EXPECT_EQ(call.Read(call.args.y),
                      contiguous.Read(contiguous.args.y));
            x.Read();  // nothing of it is overwritten
          }
  });
}

}  // namespace
}  // namespace seqmark
