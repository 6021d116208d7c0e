// SPDX-License-Identifier: Apache-2.0
//
// Puts operators' calls together into one: a model's forward pass is a list of
// them. The same code that lists them is run three times over: to count their
// cost (no device), to measure the memory their plans ask for (nothing
// allocated), and to plan them for good.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "fixtures/scratch_device.h"
#include "ops/plan_part.h"

namespace seqmark {

// What a call's device time is booked under: share_<name> of a model's row.
enum class OpClass : uint8_t {
  kGemm,
  kAttention,
  kSsmScan,
  kConv,
  kNorm,
  kElementwise,
  kEmbedding,
  kLmHead,
  kOther,
};
inline constexpr int kOpClasses = 9;
absl::string_view Name(OpClass op_class);
// Of an operator that is a part of a call of class `whole`.
OpClass ClassOfPart(absl::string_view op, OpClass whole);

// Provider by operator's name; an operator that is not there takes the fastest.
using ProviderChoice = std::map<std::string, std::string>;

// One call of the list.
struct ModelPart {
  OpClass op_class;
  std::string name;  // "<op>/<provider>"
  Launch launch;
  Cost cost;
  double bytes = 0;  // each input once, each output once
};

// The launches of parts one after the other.
Launch InOrder(const std::vector<ModelPart>& parts);

// Seconds of a launch whose inputs are cold, as they are in a model.
absl::StatusOr<double> MedianSeconds(const Launch& launch, bool as_graph,
                                     Device& device);

class Composer {
 public:
  // Counts only: parts have costs and no launch.
  Composer() = default;
  // Plans on `device`, which measures or has the scratch that was measured.
  Composer(ScratchDevice& device, const ProviderChoice& choice)
      : device_(&device), choice_(choice) {}

  bool counts_only() const { return device_ == nullptr; }
  DeviceKind kind() const { return device_->kind(); }

  // Planned, it is as many parts as its provider makes calls, each of its own
  // class: `op_class` is that of all else.
  template <Operator Op>
  absl::Status Add(OpClass op_class, const typename Op::Problem& problem,
                   typename Op::Args args);

  // A call that does at once what those that `apart` adds do one by one, if the
  // choice names a provider of it that this device has and that takes the
  // problem; what `apart` adds otherwise. Sets `fused`. Which is faster depends
  // on the calls around it, so that a model's maker tries both.
  template <Operator Op>
  absl::Status AddFused(OpClass op_class, const typename Op::Problem& problem,
                        const typename Op::Args& args,
                        const std::function<absl::Status()>& apart,
                        bool& fused);

  const std::vector<ModelPart>& parts() const { return parts_; }
  std::vector<ModelPart> TakeParts() { return std::move(parts_); }

 private:
  template <Operator Op>
  absl::StatusOr<const Provider<Op>*> Choose(
      const typename Op::Problem& problem, const typename Op::Args& args,
      const std::string& key);

  ScratchDevice* device_ = nullptr;
  ProviderChoice choice_;
  std::vector<ModelPart> parts_;
  // Of calls whose candidates have been measured: one of their Provider<Op>s.
  std::map<std::string, const void*> measured_;
};

template <Operator Op>
absl::StatusOr<const Provider<Op>*> Composer::Choose(
    const typename Op::Problem& problem, const typename Op::Args& args,
    const std::string& key) {
  const auto wanted = choice_.find(std::string(Op::kName));
  std::vector<const Provider<Op>*> candidates;
  for (const Provider<Op>& provider : ProvidersOf<Op>())
    if (provider.device == device_->kind() &&
        std::count(provider.dtypes.begin(), provider.dtypes.end(),
                   problem.dtype) > 0 &&
        provider.supports(problem) &&
        (wanted == choice_.end() || wanted->second == provider.name))
      candidates.push_back(&provider);
  if (candidates.empty())
    return absl::UnimplementedError(absl::StrCat(
        "no provider of ", Op::kName,
        wanted == choice_.end() ? "" : absl::StrCat(" (", wanted->second, ")"),
        " for ", Name(problem.dtype), " on ", Name(device_->kind())));
  if (candidates.size() == 1) return candidates.front();
  static auto* const chosen =
      new std::map<std::string, const Provider<Op>*>();  // of the process
  const bool measures = device_->measures_only();
  if (measures) {
    if (const auto it = measured_.find(key); it != measured_.end())
      return static_cast<const Provider<Op>*>(it->second);
  } else if (const auto it = chosen->find(key); it != chosen->end()) {
    return it->second;
  }

  const Provider<Op>* best = nullptr;
  double best_seconds = 0;
  absl::Status refused;
  for (const Provider<Op>* provider : candidates) {
    // Measuring, the hungriest counts: any of them may be chosen.
    device_->StartPlan();
    auto launch = provider->plan(problem, args, *device_);
    if (absl::IsUnimplemented(launch.status())) {
      refused = launch.status();
      continue;
    }
    if (!launch.ok()) return launch.status();
    if (measures) {
      best = provider;
      continue;
    }
    const auto seconds = MedianSeconds(*launch, false, *device_);
    if (!seconds.ok()) return seconds.status();
    // What a launch costs between two others, seen on an H200.
    constexpr double kOverlap = 1.5e-6;
    const double cost = *seconds - (provider->overlaps ? kOverlap : 0);
    if (best == nullptr || cost < best_seconds) {
      best = provider;
      best_seconds = cost;
    }
  }
  if (best == nullptr) return refused;
  if (measures)
    measured_.emplace(key, best);
  else
    chosen->emplace(key, best);
  return best;
}

template <Operator Op>
absl::Status Composer::Add(OpClass op_class,
                           const typename Op::Problem& problem,
                           typename Op::Args args) {
  ModelPart part = {.op_class = op_class, .name = std::string(Op::kName)};
  absl::Status status;
  std::string key, alignments;
  if (!counts_only()) key = absl::StrCat(Op::kName, device_->fingerprint());
  Op::Visit(problem, args, [&](const TensorSpec& spec, Tensor& tensor) {
    if (!tensor || tensor.dims != spec.dims || tensor.dtype != spec.dtype)
      status.Update(absl::InternalError(
          absl::StrCat(Op::kName, ": ", spec.name, " is ", tensor.DebugString(),
                       ", expected ", Name(spec.dtype), "(",
                       absl::StrJoin(spec.dims, ", "), ")")));
    if (!counts_only()) {
      absl::StrAppend(&key, " ", tensor.DebugString(), "/",
                      absl::StrJoin(tensor.strides, ","));
      absl::StrAppend(&alignments, " ",
                      reinterpret_cast<uintptr_t>(tensor.data) % 256);
    }
    part.bytes += static_cast<double>(BytesTouched(spec));
  });
  if (!status.ok()) return status;
  part.cost = Op::GetCost(problem);
  if (!counts_only()) {
    // What a plan may ask for depends on more than the shapes: on the work
    // (windows, positions), and on what providers take at such addresses.
    if (device_->measures_only())
      absl::StrAppend(&key, " ", part.cost.flops(), " ", part.cost.special_ops,
                      alignments);
    const auto provider = Choose<Op>(problem, args, key);
    if (!provider.ok()) return provider.status();
    device_->StartPlan();
    auto launch = (*provider)->plan(problem, args, *device_);
    if (!launch.ok())
      return absl::Status(launch.status().code(),
                          absl::StrCat(Op::kName, "/", (*provider)->name, ": ",
                                       launch.status().message()));
    part.launch = *std::move(launch);
    if (const auto* sequence = part.launch.target<LaunchSequence>()) {
      for (const LaunchPart& one : sequence->parts())
        parts_.push_back({ClassOfPart(one.op, op_class), one.name, one.launch,
                          one.cost, one.bytes});
      return absl::OkStatus();
    }
    absl::StrAppend(&part.name, "/", (*provider)->name);
  }
  parts_.push_back(std::move(part));
  return absl::OkStatus();
}

template <Operator Op>
absl::Status Composer::AddFused(OpClass op_class,
                                const typename Op::Problem& problem,
                                const typename Op::Args& args,
                                const std::function<absl::Status()>& apart,
                                bool& fused) {
  fused = false;
  if (counts_only() || !choice_.contains(std::string(Op::kName)))
    return apart();
  absl::Status status = Add<Op>(op_class, problem, args);
  if (absl::IsUnimplemented(status)) return apart();
  fused = status.ok();
  return status;
}

}  // namespace seqmark
