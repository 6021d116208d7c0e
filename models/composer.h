// SPDX-License-Identifier: Apache-2.0
//
// Puts operators' calls together into one: a model's forward pass is a list of
// them. The same code that lists them is run three times over: to count their
// cost (no device), to measure the memory their plans ask for (nothing
// allocated), and to plan them for good.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "fixtures/scratch_device.h"

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

class Composer {
 public:
  // Counts only: parts have costs and no launch.
  Composer() = default;
  // Plans on `device`, which measures or has the scratch that was measured.
  Composer(ScratchDevice& device, const ProviderChoice& choice)
      : device_(&device), choice_(choice) {}

  bool counts_only() const { return device_ == nullptr; }
  DeviceKind kind() const { return device_->kind(); }

  template <Operator Op>
  absl::Status Add(OpClass op_class, const typename Op::Problem& problem,
                   typename Op::Args args);

  // A call that does at once what those that `apart` adds do one by one, if a
  // provider has it and it takes less time; what `apart` adds otherwise. Sets
  // `fused`. Only kernels that overlap with their neighbours are tried, unless
  // the choice names one; one that this device has not got means `apart`.
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
  // What a choice depends on: a call's tensors, by all but their addresses.
  template <Operator Op>
  std::string KeyOf(const typename Op::Problem& problem,
                    typename Op::Args args) const;
  // Seconds of a call as it is found in a model: what it reads is cold. With
  // `overlap` it stands between two others, the call before it twice, whose
  // seconds are included: it may start under the first, the second under it.
  absl::StatusOr<double> Time(const Launch& launch, bool overlap);

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

  const bool overlap = std::any_of(
      candidates.begin(), candidates.end(),
      [](const Provider<Op>* provider) { return provider->overlaps; });
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
    const auto seconds = Time(*launch, overlap);
    if (!seconds.ok()) return seconds.status();
    if (best == nullptr || *seconds < best_seconds) {
      best = provider;
      best_seconds = *seconds;
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
std::string Composer::KeyOf(const typename Op::Problem& problem,
                            typename Op::Args args) const {
  std::string key = absl::StrCat(Op::kName, device_->fingerprint());
  Op::Visit(problem, args, [&](const TensorSpec&, Tensor& tensor) {
    absl::StrAppend(&key, " ", tensor.DebugString(), "/",
                    absl::StrJoin(tensor.strides, ","));
  });
  // While it measures: what a plan may ask for depends on more than the
  // shapes, on the work (windows, positions) and on what providers take at
  // such addresses.
  if (!device_->measures_only()) return key;
  const Cost cost = Op::GetCost(problem);
  absl::StrAppend(&key, " ", cost.flops(), " ", cost.special_ops);
  Op::Visit(problem, args, [&](const TensorSpec&, Tensor& tensor) {
    absl::StrAppend(&key, " ", reinterpret_cast<uintptr_t>(tensor.data) % 256);
  });
  return key;
}

template <Operator Op>
absl::Status Composer::Add(OpClass op_class,
                           const typename Op::Problem& problem,
                           typename Op::Args args) {
  ModelPart part = {.op_class = op_class, .name = std::string(Op::kName)};
  absl::Status status;
  Op::Visit(problem, args, [&](const TensorSpec& spec, Tensor& tensor) {
    if (!tensor || tensor.dims != spec.dims || tensor.dtype != spec.dtype)
      status.Update(absl::InternalError(
          absl::StrCat(Op::kName, ": ", spec.name, " is ", tensor.DebugString(),
                       ", expected ", Name(spec.dtype), "(",
                       absl::StrJoin(spec.dims, ", "), ")")));
    part.bytes += static_cast<double>(BytesTouched(spec));
  });
  if (!status.ok()) return status;
  part.cost = Op::GetCost(problem);
  if (!counts_only()) {
    const auto provider = Choose<Op>(problem, args, KeyOf<Op>(problem, args));
    if (!provider.ok()) return provider.status();
    device_->StartPlan();
    auto launch = (*provider)->plan(problem, args, *device_);
    if (!launch.ok())
      return absl::Status(launch.status().code(),
                          absl::StrCat(Op::kName, "/", (*provider)->name, ": ",
                                       launch.status().message()));
    part.launch = *std::move(launch);
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
  if (counts_only()) return apart();
  const auto wanted = choice_.find(std::string(Op::kName));
  const bool named = wanted != choice_.end();
  bool any = false;
  for (const Provider<Op>& provider : ProvidersOf<Op>())
    any |= provider.device == device_->kind() &&
           std::count(provider.dtypes.begin(), provider.dtypes.end(),
                      problem.dtype) > 0 &&
           provider.supports(problem) &&
           (named ? wanted->second == provider.name : provider.overlaps);
  if (!any) return apart();
  static auto* const chosen = new std::map<std::string, bool>();
  std::string key;
  if (!named && !device_->measures_only()) {
    key = KeyOf<Op>(problem, args);
    if (const auto it = chosen->find(key); it != chosen->end() && !it->second)
      return apart();
  }
  if (absl::Status s = Add<Op>(op_class, problem, args); !s.ok())
    return absl::IsUnimplemented(s) ? apart() : s;
  fused = true;
  if (named || (!key.empty() && chosen->contains(key))) return absl::OkStatus();

  // The same memory holds either: what the call apart asks for counts too.
  ModelPart at_once = std::move(parts_.back());
  parts_.pop_back();
  const size_t first = parts_.size();
  if (absl::Status s = apart(); !s.ok()) return s;
  std::vector<ModelPart> one_by_one(
      std::make_move_iterator(parts_.begin() + first),
      std::make_move_iterator(parts_.end()));
  parts_.resize(first);
  if (!device_->measures_only()) {
    const auto seconds = Time(at_once.launch, true);
    if (!seconds.ok()) return seconds.status();
    const auto seconds_apart = Time(InOrder(one_by_one), true);
    if (!seconds_apart.ok()) return seconds_apart.status();
    fused = *seconds < *seconds_apart;
    chosen->emplace(key, fused);
  }
  if (fused) one_by_one = {std::move(at_once)};
  for (ModelPart& part : one_by_one) parts_.push_back(std::move(part));
  return absl::OkStatus();
}

}  // namespace seqmark
