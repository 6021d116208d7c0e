// SPDX-License-Identifier: Apache-2.0
//
// For operators that are several others at once, and providers of them that do
// these one after the other. Such a provider's launch says what it is made of,
// so that a model can book each call's time under its own class.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"

namespace seqmark {

// One of the calls of a LaunchSequence.
struct LaunchPart {
  absl::string_view op;  // what it does: an operator's kName
  std::string name;      // "<op>/<provider>" of what makes the call
  Launch launch;
  Cost cost;
  double bytes = 0;  // each input once, each output once
};

// The calls one after the other. A Launch that was made of it has it as its
// target, and any call's launch may also be kept without the others.
class LaunchSequence {
 public:
  // `scratch` lives as long as any of the launches.
  LaunchSequence(std::vector<LaunchPart> parts,
                 const std::shared_ptr<const Buffer>& scratch) {
    for (LaunchPart& part : parts)
      part.launch = [launch = std::move(part.launch), scratch](Stream stream) {
        return launch(stream);
      };
    parts_ = std::make_shared<const std::vector<LaunchPart>>(std::move(parts));
  }
  const std::vector<LaunchPart>& parts() const { return *parts_; }
  absl::Status operator()(Stream stream) const {
    for (const LaunchPart& part : *parts_)
      if (absl::Status s = part.launch(stream); !s.ok()) return s;
    return absl::OkStatus();
  }

 private:
  std::shared_ptr<const std::vector<LaunchPart>> parts_;
};

// A launch that does what Op does.
template <Operator Op>
LaunchPart MakePart(const typename Op::Problem& problem, typename Op::Args args,
                    std::string name, Launch launch) {
  LaunchPart part;
  part.op = Op::kName;
  part.name = std::move(name);
  part.launch = std::move(launch);
  part.cost = Op::GetCost(problem);
  Op::Visit(problem, args, [&](const TensorSpec& spec, Tensor&) {
    part.bytes += static_cast<double>(BytesTouched(spec));
  });
  return part;
}

// By a provider of `device` that does the problem: the first that is linked, so
// meant for parts of which a device has one.
template <Operator Op>
absl::StatusOr<LaunchPart> PlanPart(const typename Op::Problem& problem,
                                    const typename Op::Args& args,
                                    Device& device) {
  for (const Provider<Op>& provider : ProvidersOf<Op>()) {
    const auto& dtypes = provider.dtypes;
    if (provider.device != device.kind() || !provider.supports(problem) ||
        std::find(dtypes.begin(), dtypes.end(), problem.dtype) == dtypes.end())
      continue;
    auto launch = provider.plan(problem, args, device);
    if (!launch.ok()) return launch.status();
    return MakePart<Op>(problem, args,
                        absl::StrCat(Op::kName, "/", provider.name),
                        *std::move(launch));
  }
  return absl::UnimplementedError(
      absl::StrCat("no provider of ", Op::kName, " on ", Name(device.kind())));
}

}  // namespace seqmark
