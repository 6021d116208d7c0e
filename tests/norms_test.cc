// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of the norms: views into wider tensors, and a residual
// that is updated in place.
#include "ops/layernorm/layernorm.h"
#include "ops/rmsnorm/rmsnorm.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

// Runs `problem` with contiguous tensors, with views whose rows keep 16-byte
// and only element alignment, and with residual_out over residual.
template <class Op>
void ExpectViewsAndAliasesChangeNothing(const typename Op::Problem& problem) {
  ForEachProvider<Op>([&](const auto& provider, Device& device) {
    if (!provider.supports(problem)) return;
    OpCall<Op> plain(problem, device);
    plain.Run(provider);
    const auto expect_same = [&](OpCall<Op>& call) {
      const absl::Status status = call.TryRun(provider);
      if (absl::IsUnimplemented(status)) return;
      ASSERT_TRUE(status.ok()) << status;
      ExpectSameOutputs(call, plain);
    };
    struct View {
      int extra, offset;
    };
    for (const View view : {View{32, 16}, View{7, 3}}) {
      SCOPED_TRACE(absl::StrCat(view.extra, " wider, from ", view.offset));
      OpCall<Op> views(problem, device);
      Op::Visit(problem, views.args, [&](const TensorSpec& spec, Tensor& t) {
        if (spec.dims.size() == 3)
          views.Widen(t, 2, problem.width + view.extra, view.offset);
      });
      expect_same(views);
    }
    if (!problem.residual) return;
    OpCall<Op> alias(problem, device);
    alias.args.residual_out = alias.args.residual;
    expect_same(alias);
  });
}

template <class Op>
typename Op::Problem MakeProblem(int64_t batch, int64_t seqlen, int64_t width,
                                 bool residual, bool residual_f32) {
  typename Op::Problem p;
  p.batch = batch;
  p.seqlen = seqlen;
  p.width = width;
  p.residual = residual;
  p.residual_f32 = residual_f32;
  return p;
}

// Rows of a warp, of a block, of many passes; of no whole pack.
constexpr std::tuple<int64_t, int64_t, int64_t> kExtents[] = {
    {1, 1, 1536}, {3, 1, 2048}, {2, 37, 96}, {2, 3, 77}, {1, 2, 32768}};
constexpr std::pair<bool, bool> kResiduals[] = {
    {false, false}, {true, false}, {true, true}};

TEST(RmsNorm, ReadsStridesAndUpdatesInPlace) {
  for (const auto& [batch, seqlen, width] : kExtents)
    for (const auto& [residual, f32] : kResiduals)
      for (NormGate gate :
           {NormGate::kNone, NormGate::kBefore, NormGate::kAfter}) {
        auto p = MakeProblem<RmsNorm>(batch, seqlen, width, residual, f32);
        p.gate = gate;
        p.groups = batch;
        if (width % p.groups != 0) p.groups = 1;
        SCOPED_TRACE(absl::StrCat(batch, " ", seqlen, " ", width, " gate ",
                                  static_cast<int>(gate), " residual ",
                                  residual + f32));
        ExpectViewsAndAliasesChangeNothing<RmsNorm>(p);
      }
}

TEST(LayerNorm, ReadsStridesAndUpdatesInPlace) {
  for (const auto& [batch, seqlen, width] : kExtents)
    for (const auto& [residual, f32] : kResiduals) {
      SCOPED_TRACE(absl::StrCat(batch, " ", seqlen, " ", width, " residual ",
                                residual + f32));
      ExpectViewsAndAliasesChangeNothing<LayerNorm>(
          MakeProblem<LayerNorm>(batch, seqlen, width, residual, f32));
    }
}

}  // namespace
}  // namespace seqmark
