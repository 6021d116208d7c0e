// SPDX-License-Identifier: Apache-2.0
//
// An operator that copies, with providers that fail in every way a row can.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "fixtures/op_fixture.h"

namespace seqmark {
namespace {

struct Copy {
  static constexpr absl::string_view kName = "copy";
  struct Problem : ProblemAxes {};
  struct Args {
    Tensor x;  // (batch, seqlen, 64)
    Tensor y;  // (batch, seqlen, 64)
  };
  template <class V>
  static void Visit(const Problem& p, Args& a, V&& visit) {
    const Dims dims = {p.batch, p.seqlen, 64};
    visit(TensorSpec{"x", Role::kActivation, p.dtype, dims}, a.x);
    visit(TensorSpec{"y", Role::kOutput, p.dtype, dims}, a.y);
  }
  static Cost GetCost(const Problem&) { return {}; }
  static Tolerance GetTolerance(const Problem&) { return {1e-6, 1e-6}; }
  static std::vector<Problem> Sweep() {
    Problem p;
    p.shape = "custom";
    p.seqlen = 4096;
    return {p};
  }
  static std::vector<Problem> TestProblems() { return {}; }
  static void Reference(const Problem&, const Args& a) {
    std::copy_n(a.x.as<double>(), a.x.size(), a.y.as<double>());
  }
  static void CountedReference(const Problem&, const Args&) {}
};

using Plan = absl::StatusOr<Launch> (*)(const Copy::Problem&, const Copy::Args&,
                                        Device&);

Launch CopyOnce(const Copy::Args& a) {
  return [a](Stream) {
    std::memcpy(a.y.data, a.x.data, a.x.bytes());
    return absl::OkStatus();
  };
}

bool Add(absl::string_view name, Plan plan) {
  return AddProvider<Copy>({.name = name,
                            .device = DeviceKind::kCpu,
                            .dtypes = {DType::kF32},
                            .plan = plan});
}

using P = const Copy::Problem&;
using A = const Copy::Args&;
const bool registered[] = {
    AddOperator<Copy>(),
    Add("a_fine",
        [](P, A a, Device&) -> absl::StatusOr<Launch> { return CopyOnce(a); }),
    Add("aborts",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return [](Stream) -> absl::Status { std::abort(); };
        }),
    Add("crashes",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return [](Stream) -> absl::Status {
            raise(SIGSEGV);
            return absl::OkStatus();
          };
        }),
    Add("fails",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return absl::InternalError("planned to fail");
        }),
    Add("hangs",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return [](Stream) -> absl::Status {
            while (true) sleep(1);
          };
        }),
    Add("is_killed",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return [](Stream) -> absl::Status {
            kill(getpid(), SIGKILL);
            return absl::OkStatus();
          };
        }),
    Add("too_large",
        [](P, A, Device& device) -> absl::StatusOr<Launch> {
          return device.Allocate(size_t{1} << 50).status();
        }),
    Add("unsupported",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return absl::UnimplementedError("not this problem");
        }),
    // Right but for one element: the last.
    Add("wrong_last",
        [](P, A a, Device&) -> absl::StatusOr<Launch> {
          return [a](Stream) {
            std::memcpy(a.y.data, a.x.data, a.x.bytes());
            a.y.as<float>()[a.y.size() - 1] += 1;
            return absl::OkStatus();
          };
        }),
    // Writes nothing, as a kernel whose launch was forgotten.
    Add("wrong_stale",
        [](P, A, Device&) -> absl::StatusOr<Launch> {
          return [](Stream) { return absl::OkStatus(); };
        }),
    Add("z_fine",
        [](P, A a, Device&) -> absl::StatusOr<Launch> { return CopyOnce(a); }),
};

}  // namespace
}  // namespace seqmark
