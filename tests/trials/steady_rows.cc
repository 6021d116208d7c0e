// SPDX-License-Identifier: Apache-2.0
//
// An operator that takes a time that is known: a call waits, awake, until it is
// over. Whatever differs between two processes is what measuring adds.
#include <chrono>

#include "fixtures/op_fixture.h"

namespace seqmark {
namespace {

struct Steady {
  static constexpr absl::string_view kName = "steady";
  struct Problem : ProblemAxes {};
  struct Args {
    Tensor y;  // (1)
  };
  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    visit(TensorSpec{"y", Role::kOutput, p.dtype, {1}}, a.y);
  }
  static Cost GetCost(const Problem&) { return {}; }
  static Tolerance GetTolerance(const Problem&) { return {1e-6, 1e-6}; }
  static std::vector<Problem> Sweep() {
    std::vector<Problem> problems;
    // 100 microseconds and 50 more for each.
    for (int64_t length = 1; length <= 6; ++length) {
      Problem p;
      p.shape = "custom";
      p.seqlen = length;
      problems.push_back(p);
    }
    return problems;
  }
  static std::vector<Problem> TestProblems() { return {}; }
  static void Reference(const Problem&, const Args& a) {
    *a.y.as<double>() = 0;
  }
  static void CountedReference(const Problem&, const Args&) {}
};

absl::StatusOr<Launch> Plan(const Steady::Problem& p, const Steady::Args& a,
                            Device&) {
  return Launch([a, length = p.seqlen](Stream) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::microseconds(50 + 50 * length);
    *a.y.as<float>() = 0;
    while (Clock::now() < end) {
    }
    return absl::OkStatus();
  });
}

bool Add(absl::string_view name) {
  return AddProvider<Steady>({.name = name,
                              .device = DeviceKind::kCpu,
                              .dtypes = {DType::kF32},
                              .plan = Plan});
}

const bool registered[] = {AddOperator<Steady>(), Add("alpha"), Add("beta")};

}  // namespace
}  // namespace seqmark
