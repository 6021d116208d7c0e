// SPDX-License-Identifier: Apache-2.0
//
// Scans of up to 128K tokens whose decays are what the rows' inputs never have:
// all exactly zero, all near one, and both mixed among heads and in time. How
// far back a kernel reads may depend on them (ops/ssd_scan/README.md), and so
// may how it computes a step (ops/selective_scan/README.md).
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/config.h"
#include "absl/strings/str_cat.h"
#include "fixtures/parts.h"
#include "ops/mamba2_inner/mamba2_inner.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/ssd_scan/ssd_scan.h"
#include "tests/op_call.h"

namespace seqmark {
namespace {

#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
constexpr int64_t kCpuTokens = 8192;
#else
constexpr int64_t kCpuTokens = 131072;
#endif
constexpr int64_t kCudaTokens = 131072;
// Of an operator whose reference is the whole, on every device.
constexpr int64_t kInnerTokens = std::min<int64_t>(kCpuTokens, 16357);

constexpr float kAsleep = -200;  // softplus of it is 0 in f32: a decay of 1
constexpr float kTiny = -13.8f;  // softplus: 1e-6
constexpr double kTinyStep = 1e-6;

// How one head or channel decays.
struct Pattern {
  std::string name;
  float rate;                         // -A, or of selective_scan's first state
  std::function<float(int64_t)> dt;   // of a token; NaN: as the rows' inputs
  std::function<bool(int64_t)> mute;  // whether x is zero there; none: never
  // For the bound: for how many tokens a state is kept, if longer than of the
  // rows' inputs (without steps it is so exactly: every exponential here is 1
  // at 0); the largest sum of exponents in a chunk that is not dead at its end;
  // a step whose inputs matter; whether one token's input is most of a state.
  double memory = 0;
  double sum = 0;
  double step = 1;
  bool single = false;
};

constexpr auto kUsual = [](int64_t) { return std::nanf(""); };
const auto kAlways = [](float value) {
  return [value](int64_t) { return value; };
};

// Tokens at chunks' edges, next to each other, and far apart.
std::function<bool(int64_t)> Marks(int64_t first) {
  std::vector<bool> marks(kCudaTokens);
  const int64_t gaps[] = {1, 62, 1, 64, 2011, 65, 30011, 4096, 777, 12800};
  for (int64_t at = first, i = 0; at < kCudaTokens; at += gaps[i++ % 10])
    marks[at] = true;
  return [marks](int64_t token) { return marks[token]; };
}

std::function<float(int64_t)> Where(const std::function<bool(int64_t)>& marked,
                                    float there, float elsewhere) {
  return [=](int64_t token) { return marked(token) ? there : elsewhere; };
}

// One after the other, `first` until `token`.
std::function<float(int64_t)> Until(int64_t token, float first, float then) {
  return [=](int64_t at) { return at < token ? first : then; };
}

// Replaces a tensor's elements that `value` (of all but the last axes' index,
// the last axis' index, the old value) changes.
template <class Value>
void Change(Device& device, const Tensor& tensor, int64_t last, Value&& value) {
  std::vector<std::byte> raw(tensor.bytes());
  ASSERT_TRUE(device.CopyToHost(raw.data(), tensor.data, raw.size()).ok());
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const double old = LoadElement(tensor.dtype, raw.data(), i);
    const double now = value(i / last, i % last, old);
    if (now != old) StoreElement(tensor.dtype, raw.data(), i, now);
  }
  ASSERT_TRUE(device.CopyToDevice(tensor.data, raw.data(), raw.size()).ok());
}

// `width` values of x a head or channel, `heads` of them a token.
void SetSteps(Device& device, const std::vector<Pattern>& patterns,
              const Tensor& dt, const Tensor& x, int64_t width) {
  const int64_t tokens = dt.dims[1];
  const auto heads = static_cast<int64_t>(patterns.size());
  Change(device, dt, heads, [&](int64_t row, int64_t head, double old) {
    const float value = patterns[head].dt(row % tokens);
    return std::isnan(value) ? old : value;
  });
  if (std::none_of(patterns.begin(), patterns.end(),
                   [](const Pattern& pattern) { return bool(pattern.mute); }))
    return;
  Change(device, x, heads * width, [&](int64_t row, int64_t i, double old) {
    const auto& mute = patterns[i / width].mute;
    return mute && mute(row % tokens) ? 0.0 : old;
  });
}

template <Operator Op>
std::string ReadOutputs(OpCall<Op>& call) {
  std::string bytes;
  Op::Visit(call.problem, call.args, [&](const TensorSpec& spec, Tensor& t) {
    if (IsOutput(spec.role)) bytes += call.Read(t);
  });
  return bytes;
}

// Every provider takes these problems; a second run has the same bits.
template <Operator Op>
void RunTwice(OpCall<Op>& call, const Provider<Op>& provider) {
  call.Run(provider);
  const std::string first = ReadOutputs(call);
  Op::Visit(call.problem, call.args, [&](const TensorSpec& spec, Tensor& t) {
    if (!IsOutput(spec.role)) return;
    ASSERT_TRUE(Fill(spec, t, 0, call.device).ok());  // with NaN
  });
  call.Run(provider);
  EXPECT_TRUE(first == ReadOutputs(call)) << "two runs differ";
}

// The outputs' part against the definition. What is large in one head or
// channel must not hide another's, so a part is of one.
template <Operator Op>
void ExpectPart(OpCall<Op>& call, const PartOf<typename Op::Problem>& part,
                const Tolerance& tolerance) {
  PartRun<Op> run(call.problem, part);
  std::vector<std::vector<double>> actual;
  Op::Visit(call.problem, call.args, [&](const TensorSpec& spec, Tensor& t) {
    const size_t i = actual.size();
    actual.push_back(*run.Read(t, i, call.device));
    if (!IsOutput(spec.role)) run.tensor(i) = actual[i];
  });
  run.Run();
  size_t i = 0;
  Op::Visit(call.problem, call.args, [&](const TensorSpec& spec, Tensor&) {
    const size_t t = i++;
    if (!run.compared(t)) return;
    for (const OutputError& error : CompareParts(
             spec.name, {{run.of(t).boxes.front(), std::move(actual[t]),
                          run.tensor(t), tolerance}}))
      EXPECT_TRUE(error.ok) << error.message;
  });
}

// What the operator allows its usual inputs, and `more` in the l2 error; in the
// largest in proportion.
Tolerance Widened(const Tolerance& usual, double more) {
  return {usual.max_error * (1 + more / usual.l2_error), usual.l2_error + more};
}

// What Mamba-2's scan may err by beyond its tolerance, whose terms have so many
// roundings.
double MoreError(const ProblemAxes& p, const Pattern& pattern, int roundings) {
  // A factor of a state errs by at most three f32 epsilon of it (two ulp of an
  // exponential, half of a multiply-add). It is a token's in f32, where a
  // provider may do the recurrence, a chunk's of at most 64 in 16 bits. Such
  // errors may all have one sign, so as many add up as a state lives for.
  const int64_t span = p.dtype == DType::kF32 ? 1 : 64;
  const double factors = std::min<double>(pattern.memory, p.seqlen) / span + 1;
  double more = 3 * factors * Epsilon(DType::kF32);
  // Exponents are differences of a chunk's sums, each off by a rounding.
  more += pattern.sum * Epsilon(DType::kF32);
  // Where a state is one token's input, its roundings do not average out: each
  // is up to half an epsilon.
  if (pattern.single) more += 0.5 * roundings * Epsilon(p.dtype);
  // The product of a step and x is an operand of dtype; f16's smallest
  // numbers are 2^-24 apart.
  if (p.dtype == DType::kF16) more += 0x1p-25 / pattern.step;
  return more;
}
Tolerance BoundOf(const SsdScan::Problem& p, const Pattern& pattern) {
  return Widened(SsdScan::GetTolerance(p), MoreError(p, pattern, 4));
}

const Pattern kDead = {.name = "dead", .rate = 1e5f, .dt = kUsual};
const Pattern kDeadSteps = {
    .name = "dead by large steps", .rate = 16, .dt = kAlways(8)};
const Pattern kLinear = {
    .name = "steps where softplus is linear", .rate = 16, .dt = kAlways(100)};
const Pattern kKept = {.name = "kept, by tiny steps",
                       .rate = 1,
                       .dt = kAlways(kTiny),
                       .memory = 1 / kTinyStep,
                       .step = kTinyStep};
const Pattern kKeptRate = {
    .name = "kept, by a small A", .rate = 1e-6f, .dt = kUsual, .memory = 1e6};
const Pattern kLeaking = {
    .name = "leaking", .rate = 3e-5f, .dt = kUsual, .memory = 1e5};
// Nothing happens but at marks, where all is forgotten.
Pattern Impulses(int64_t first) {
  return {.name = absl::StrCat("impulses from ", first),
          .rate = 16,
          .dt = Where(Marks(first), 8, kAsleep),
          .sum = 3 * 8 * 16 * M_LOG2E,  // marks of a chunk
          .single = true};
}
// Slow but at marks, where all is forgotten and nothing comes.
Pattern Resets(int64_t first) {
  return {.name = absl::StrCat("resets from ", first),
          .rate = 16,
          .dt = Where(Marks(first), 8, kTiny),
          .mute = Marks(first),
          .memory = 1 / (16 * kTinyStep),
          .sum = 3 * 8 * 16 * M_LOG2E,
          .step = kTinyStep};
}
// All is forgotten once a chunk, at token `at` of its 64.
Pattern Edges(int64_t at) {
  return {
      .name = absl::StrCat("forgets at ", at, " of 64"),
      .rate = 16,
      .dt = Where([at](int64_t token) { return token % 64 == at; }, 8, kAsleep),
      .sum = 8 * 16 * M_LOG2E,
      .single = true};
}
// One half of the time without memory, the other without steps.
Pattern FallsAsleep(int64_t tokens) {
  const int64_t at = tokens / 2 + 37;
  return {.name = "dead, then asleep",
          .rate = 16,
          .dt = Until(at, 8, kAsleep),
          .sum = 64 * 8 * 16 * M_LOG2E,
          .single = true};
}
Pattern WakesUp(int64_t tokens) {
  return {.name = "asleep, then dead",
          .rate = 16,
          .dt = Until(tokens / 3, kAsleep, 8),
          .sum = 64 * 8 * 16 * M_LOG2E,
          .single = true};
}

// A state before the first token shows only where inputs are as large.
bool ShowInitialState(const std::vector<Pattern>& patterns) {
  return std::all_of(
      patterns.begin(), patterns.end(),
      [](const Pattern& pattern) { return pattern.step > kTinyStep; });
}

// Three heads: the first two are one CTA's at head_dim 64, the third has one
// for itself.
void CheckSsdScan(const Provider<SsdScan>& provider, Device& device,
                  SsdScan::Problem p, int64_t rows) {
  const std::vector<Pattern> cases[] = {
      {kKept, kKeptRate, kLeaking},
      {kDead, kKept, kDeadSteps},
      {kKeptRate, kDeadSteps, kKept},
      {kDead, kLinear, kDead},
      {Impulses(20), Impulses(30011), Impulses(5011)},
      {Impulses(1000), Resets(700), Resets(20)},
      {Resets(1000), kKept, Impulses(64)},
      {Edges(63), Edges(0), Edges(0)},
      {FallsAsleep(p.seqlen), WakesUp(p.seqlen), kLeaking}};
  p.heads = 3;
  p.has_d = p.has_dt_bias = false;
  for (const auto& patterns : cases) {
    p.has_initial_state = ShowInitialState(patterns);
    OpCall<SsdScan> call(p, device);
    SetSteps(device, patterns, call.args.dt, call.args.x, p.head_dim);
    Change(device, call.args.A, p.heads,
           [&](int64_t, int64_t head, double) { return -patterns[head].rate; });
    RunTwice(call, provider);
    for (int64_t head = 0; head < p.heads; ++head) {
      SCOPED_TRACE(absl::StrCat("head ", head, ": ", patterns[head].name));
      PartOf<SsdScan::Problem> part{p, (head + 0.5) / p.heads};
      part.problem.batch = part.problem.heads = part.problem.groups = 1;
      part.problem.head_dim = rows;
      ExpectPart(call, part, BoundOf(part.problem, patterns[head]));
    }
  }
}

TEST(ExtremeDecays, SsdScan) {
  ForEachProvider<SsdScan>([&](const auto& provider, Device& device) {
    const bool cuda = device.kind() == DeviceKind::kCuda;
    for (DType dtype : provider.dtypes) {
      SCOPED_TRACE(Name(dtype));
      SsdScan::Problem p;
      p.dtype = dtype;
      p.seqlen = cuda ? kCudaTokens : kCpuTokens;
      p.head_dim = cuda ? 64 : 8;
      p.d_state = 16;
      CheckSsdScan(provider, device, p, cuda ? 4 : 1);
      if (!cuda || dtype == DType::kF32) continue;
      // So many heads that a scan has few segments, whose states, in pieces, it
      // sums up itself.
      p.batch = 24;
      p.seqlen = 8165;
      CheckSsdScan(provider, device, p, 4);
      // A head a CTA; other kernels.
      p.batch = 1;
      p.seqlen = 16357;
      p.head_dim = 128;
      p.d_state = 64;
      CheckSsdScan(provider, device, p, 4);
      p.head_dim = 64;
      p.d_state = 256;
      CheckSsdScan(provider, device, p, 2);
    }
  });
}

// The scan with a gate in it: its inputs are a convolution's, so none is muted.
// It has no Part, and the definition of the whole is compared head by head.
void CheckMamba2Inner(const Provider<Mamba2Inner>& provider, Device& device,
                      Mamba2Inner::Problem p) {
  const auto host = *MakeCpuDevice({});
  p.heads = 3;
  p.has_d = p.has_dt_bias = false;
  Mamba2Inner::Problem head_of = p;
  head_of.heads = 1;
  std::vector<Dims> extents;
  Mamba2Inner::Args args;
  Mamba2Inner::Visit(head_of, args, [&](const TensorSpec& spec, Tensor&) {
    if (IsOutput(spec.role)) extents.push_back(spec.dims);
  });
  for (const std::vector<Pattern>& patterns :
       {std::vector{kDead, kKept, kDeadSteps},
        {kKeptRate, kLeaking, kDead},
        {Impulses(20), Impulses(5011), kDead},
        {FallsAsleep(p.seqlen), WakesUp(p.seqlen), kKeptRate}}) {
    p.has_initial_states = ShowInitialState(patterns);
    OpCall<Mamba2Inner> call(p, device);
    SetSteps(device, patterns, call.args.dt, call.args.xbc, 1);
    Change(device, call.args.A, p.heads,
           [&](int64_t, int64_t head, double) { return -patterns[head].rate; });
    RunTwice(call, provider);
    ReferenceRun<Mamba2Inner> reference;
    ASSERT_TRUE(reference.Prepare(p, call.args, device).ok());
    Mamba2Inner::Reference(p, reference.args());
    size_t i = 0, output = 0;
    Mamba2Inner::Visit(p, call.args, [&](const TensorSpec& spec, Tensor& t) {
      std::vector<double> values = reference.tensor(i++);
      if (!IsOutput(spec.role)) return;
      const Tensor expected(values.data(), DType::kF64, spec.dims);
      const Dims& dims = extents[output++];
      for (int64_t head = 0; head < p.heads; ++head) {
        SCOPED_TRACE(absl::StrCat("head ", head, ": ", patterns[head].name));
        const Box box = BoxAt(spec.dims, dims, (head + 0.5) / p.heads);
        // Twice as large relative to the squares, as in the tolerance.
        const Tolerance tolerance = Widened(
            Mamba2Inner::GetTolerance(p), 2 * MoreError(p, patterns[head], 7));
        for (const OutputError& error : CompareParts(
                 spec.name,
                 {{box, (*ReadBoxes(t, {box}, device)).front(),
                   (*ReadBoxes(expected, {box}, *host)).front(), tolerance}}))
          EXPECT_TRUE(error.ok) << error.message;
      }
    });
  }
}

TEST(ExtremeDecays, Mamba2Inner) {
  ForEachProvider<Mamba2Inner>([&](const auto& provider, Device& device) {
    const bool cuda = device.kind() == DeviceKind::kCuda;
    for (DType dtype : provider.dtypes) {
      SCOPED_TRACE(Name(dtype));
      Mamba2Inner::Problem p;
      p.dtype = dtype;
      p.seqlen = kInnerTokens;
      p.head_dim = cuda ? 64 : 8;
      p.d_state = cuda ? 16 : 8;
      CheckMamba2Inner(provider, device, p);
    }
  });
}

Tolerance BoundOf(const SelectiveScan::Problem& p, const Pattern& pattern) {
  // As the operator's own, whose errors of a state, three epsilon a token, add
  // up over the tokens that it lives for; those here live for longer.
  return Widened(
      SelectiveScan::GetTolerance(p),
      3 * std::min<double>(pattern.memory, p.seqlen) * Epsilon(DType::kF32));
}

// Channels' patterns: 32 channels x 16 tokens are a tile. The second tile's
// steps are all small but at marks.
std::vector<Pattern> ChannelPatterns(int64_t channels) {
  const auto often = [](int64_t token) { return token / 16 % 7 == 3; };
  const std::vector<Pattern> all = {
      {.name = "small steps", .rate = 1, .dt = kAlways(-5)},
      {.name = "tiny steps",
       .rate = 1,
       .dt = kAlways(kTiny),
       .memory = 1 / kTinyStep},
      {.name = "small but at marks", .rate = 1, .dt = Where(Marks(5), 3, -5)},
      {.name = "small A", .rate = 1e-6f, .dt = kAlways(-3), .memory = 1e6},
      {.name = "linear", .rate = 1, .dt = kAlways(120)},
      {.name = "asleep but at marks",
       .rate = 1,
       .dt = Where(Marks(17), 30, kAsleep)},
      {.name = "large in some tiles", .rate = 1, .dt = Where(often, 0.7f, -4)},
      {.name = "about log(2)", .rate = 1, .dt = kUsual},
      {.name = "linear, kept", .rate = 1e-3f, .dt = kAlways(40)},
  };
  std::vector<Pattern> patterns;
  for (int64_t channel = 0; channel < channels; ++channel)
    patterns.push_back(
        all[channel / 32 % 2 == 0 ? channel % all.size() : channel % 4]);
  return patterns;
}

void CheckSelectiveScan(const Provider<SelectiveScan>& provider, Device& device,
                        SelectiveScan::Problem p, int64_t by) {
  p.has_z = p.has_d = p.has_dt_bias = false;
  p.has_initial_state = true;
  const std::vector<Pattern> patterns = ChannelPatterns(p.d_inner);
  OpCall<SelectiveScan> call(p, device);
  SetSteps(device, patterns, call.args.dt, call.args.x, 1);
  Change(device, call.args.A, p.d_state, [&](int64_t d, int64_t n, double) {
    return -patterns[d].rate * (n + 1);
  });
  RunTwice(call, provider);
  for (int64_t d = 0; d < p.d_inner; d += by) {
    SCOPED_TRACE(absl::StrCat("channel ", d, ": ", patterns[d].name));
    PartOf<SelectiveScan::Problem> part{p, (d + 0.5) / p.d_inner};
    part.problem.batch = part.problem.d_inner = 1;
    ExpectPart(call, part, BoundOf(part.problem, patterns[d]));
  }
}

TEST(ExtremeDecays, SelectiveScan) {
  ForEachProvider<SelectiveScan>([&](const auto& provider, Device& device) {
    for (DType dtype : provider.dtypes) {
      SCOPED_TRACE(Name(dtype));
      SelectiveScan::Problem p;
      p.dtype = dtype;
      p.seqlen = device.kind() == DeviceKind::kCuda ? kCudaTokens : kCpuTokens;
      p.d_inner = 44;
      CheckSelectiveScan(provider, device, p, 2);
      // Enough channels that CUDA takes them in order of time.
      p.batch = 64;
      p.d_inner = 512;
      p.seqlen = 100;
      CheckSelectiveScan(provider, device, p, 23);
    }
  });
}

}  // namespace
}  // namespace seqmark
