// SPDX-License-Identifier: Apache-2.0
//
// What rows cannot show of mamba2_inner: slices of one projection and a
// sequence cut in two.
#include "ops/mamba2_inner/mamba2_inner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

using Call = OpCall<Mamba2Inner>;

Mamba2Inner::Problem MakeProblem(int64_t batch, int64_t seqlen, int64_t heads,
                                 int64_t head_dim, int64_t groups,
                                 int64_t d_state) {
  Mamba2Inner::Problem p;
  p.batch = batch;
  p.seqlen = seqlen;
  p.heads = heads;
  p.head_dim = head_dim;
  p.groups = groups;
  p.d_state = d_state;
  p.has_initial_states = true;
  return p;
}

template <class Body>
void ForEachProviderOf(const Mamba2Inner::Problem& p, Body&& body) {
  ForEachProvider<Mamba2Inner>([&](const auto& provider, Device& device) {
    if (provider.supports(p)) body(provider, device);
  });
}

// Outputs of two calls that may round differently: either is as far from the
// definition as its tolerance allows.
void ExpectCloseOutputs(Call& call, Call& expected) {
  const Mamba2Inner::Problem& p = expected.problem;
  Tolerance tolerance = Mamba2Inner::GetTolerance(p);
  tolerance.max_error *= 2;
  tolerance.l2_error *= 2;
  std::vector<Tensor> tensors;
  Mamba2Inner::Visit(p, expected.args, [&](const TensorSpec&, Tensor& tensor) {
    tensors.push_back(tensor);
  });
  size_t i = 0;
  Mamba2Inner::Visit(p, call.args, [&](const TensorSpec& spec, Tensor& tensor) {
    const Tensor& other = tensors[i++];
    if (!IsOutput(spec.role)) return;
    const std::string raw = expected.Read(other);
    std::vector<double> reference(other.size());
    for (int64_t k = 0; k < other.size(); ++k)
      reference[k] = LoadElement(spec.dtype, raw.data(), k);
    const OutputError error = Compare(
        spec.name, spec.dtype, call.Read(tensor).data(), reference, tolerance);
    EXPECT_TRUE(error.ok) << error.message;
  });
}

TEST(Mamba2Inner, ReadsStrides) {
  for (const auto& p :
       {MakeProblem(2, 70, 3, 64, 1, 128), MakeProblem(2, 37, 4, 16, 2, 16)})
    ForEachProviderOf(p, [&](const auto& provider, Device& device) {
      Call plain(p, device);
      const absl::Status taken = plain.TryRun(provider);
      if (absl::IsUnimplemented(taken)) return;
      ASSERT_TRUE(taken.ok()) << taken;
      // Slices whose rows keep 16-byte and only element alignment.
      for (const auto& [extra, offset] : {std::pair{32, 16}, {7, 3}}) {
        SCOPED_TRACE(absl::StrCat(extra, " wider, from ", offset));
        Call views(p, device);
        for (Tensor* t : {&views.args.xbc, &views.args.dt, &views.args.z,
                          &views.args.y, &views.args.squares})
          views.Widen(*t, 2, t->dims[2] + extra, offset);
        const absl::Status status = views.TryRun(provider);
        if (absl::IsUnimplemented(status)) continue;
        ASSERT_TRUE(status.ok()) << status;
        // CUDA has other kernels for rows that only elements are aligned to.
        if (provider.device == DeviceKind::kCuda)
          ExpectCloseOutputs(views, plain);
        else
          ExpectSameOutputs(views, plain);
      }
    });
}

// Part of axis 1 of a contiguous tensor of one sequence.
Tensor Cut(Tensor t, int64_t first, int64_t count) {
  t.data = t.as<std::byte>() + first * t.strides[1] * SizeOf(t.dtype);
  t.dims[1] = count;
  return t;
}

TEST(Mamba2Inner, TheStatesCarryASequenceOn) {
  constexpr int64_t kLength = 200;
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    auto p = MakeProblem(1, kLength, 4, 64, 2, 32);
    p.dtype = dtype;
    ForEachProviderOf(p, [&](const auto& provider, Device& device) {
      if (std::count(provider.dtypes.begin(), provider.dtypes.end(), dtype) ==
          0)
        return;
      Call whole(p, device);
      whole.Run(provider);
      for (int64_t cut : {1, 2, 63, 64, 66, 199}) {
        SCOPED_TRACE(cut);
        auto p_first = p, p_second = p;
        p_first.seqlen = cut;
        p_second.seqlen = kLength - cut;
        Call first(p_first, device), second(p_second, device);
        Call all(p, device);  // the parts' outputs side by side
        for (auto& [call, begin, count] :
             {std::tuple<Call&, int64_t, int64_t>{first, 0, cut},
              {second, cut, kLength - cut}}) {
          const Mamba2Inner::Args own = call.args;
          call.args = all.args;
          for (Tensor Mamba2Inner::Args::*t :
               {&Mamba2Inner::Args::xbc, &Mamba2Inner::Args::dt,
                &Mamba2Inner::Args::z, &Mamba2Inner::Args::y,
                &Mamba2Inner::Args::squares})
            call.args.*t = Cut(all.args.*t, begin, count);
          if (begin == 0) continue;
          call.args.conv_state = first.args.conv_state_out;
          call.args.state = first.args.state_out;
          call.args.conv_state_out = own.conv_state_out;
          call.args.state_out = own.state_out;
        }
        const absl::Status status = first.TryRun(provider);
        if (absl::IsUnimplemented(status)) continue;
        ASSERT_TRUE(status.ok()) << status;
        second.Run(provider);
        all.args.conv_state_out = second.args.conv_state_out;
        all.args.state_out = second.args.state_out;
        ExpectCloseOutputs(all, whole);
      }
    });
  }
}

}  // namespace
}  // namespace seqmark
