// SPDX-License-Identifier: Apache-2.0
//
// Whole models against logits that Transformers, mamba_ssm's definition and
// tools/golden/published_models.py computed in double (tests/golden/models,
// written by tools/golden/make_models.py): every position of a prompt, then
// eight steps of decoding, for two sequences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fixtures/row.h"
#include "tests/golden_models.h"
#include "tests/zoo.h"

namespace seqmark {
namespace {

class Models : public testing::TestWithParam<const char*> {};

void ExpectTheDefinitions(const Golden& golden) {
  auto device = *MakeCpuDevice({});
  for (int64_t chunk : {64, 16, 7}) {
    SCOPED_TRACE(chunk);
    for (LogitsOf of : {LogitsOf::kAll, LogitsOf::kLast}) {
      const auto logits = RunModel(golden, DType::kF32, chunk, of, *device);
      ASSERT_TRUE(logits.ok()) << logits.status();
      EXPECT_LE(Difference(*logits, golden.Expected(of)), kF32);
    }
  }
}

TEST_P(Models, LogitsAreTheDefinitions) {
  ExpectTheDefinitions(Golden::Read(GetParam()));
}

// A prompt and steps within Phi-3's original length: the other factors.
TEST(ModelsPhi3, ShortSequencesHaveTheShortFactors) {
  const Golden golden = Golden::Read("phi3", "logits_short.json");
  ASSERT_LE(golden.length() + golden.steps(), 32);
  ASSERT_NE(golden.config.rope.short_factor, golden.config.rope.long_factor);
  ExpectTheDefinitions(golden);
}

TEST_P(Models, ABatchIsItsSequences) {
  auto device = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  for (size_t b = 0; b < golden.prompt.size(); ++b) {
    const Golden one = golden.Sequence(b);
    const auto logits = RunModel(one, DType::kF32, 64, LogitsOf::kAll, *device);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_LE(Difference(*logits, one.Expected(LogitsOf::kAll)), kF32);
  }
}

// Weights are exact in 16 bits, so that a run in them differs from one in f32
// by the rounding of activations alone. What that may do follows from what
// f32's rounding does in the same model: its error, measured, times the ratio
// of the epsilons. A wrong layer gives an error near 1, whatever the model's
// conditioning.
double Allowed(DType dtype, double f32_error) {
  return dtype == DType::kF32
             ? kF32
             : std::min(0.3, f32_error * Epsilon(dtype) / Epsilon(DType::kF32));
}

// The rms error of f32 on the CPU.
double F32Error(const Golden& golden) {
  auto cpu = *MakeCpuDevice({});
  const auto f32 = RunModel(golden, DType::kF32, 64, LogitsOf::kAll, *cpu);
  EXPECT_TRUE(f32.ok()) << f32.status();
  return f32.ok() ? RmsDifference(*f32, golden.Expected(LogitsOf::kAll)) : 0;
}

TEST_P(Models, CudaIsAsNearAsItsRoundingAllows) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  const Golden golden = Golden::Read(GetParam());
  const Logits expected = golden.Expected(LogitsOf::kAll);
  const double error = F32Error(golden);
  int ran = 0;
  std::string refused;
  for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
    for (int64_t chunk : {64, 16}) {
      SCOPED_TRACE(testing::Message() << Name(dtype) << ", chunk " << chunk);
      const auto logits =
          RunModel(golden, dtype, chunk, LogitsOf::kAll, **cuda);
      if (absl::IsUnimplemented(logits.status())) {
        refused = std::string(logits.status().message());
        continue;
      }
      ASSERT_TRUE(logits.ok()) << logits.status();
      const double allowed = Allowed(dtype, error);
      const double off = RmsDifference(*logits, expected);
      std::printf("%s %s chunk %d: %.2e, allowed %.2e\n", GetParam(),
                  std::string(Name(dtype)).c_str(), static_cast<int>(chunk),
                  off, allowed);
      EXPECT_LE(off, allowed);
      ++ran;
    }
  // The tiny models' odd sizes are not those of GPU kernels: see below.
  if (ran == 0) GTEST_SKIP() << refused;
}

// An operator whose provider a model's maker has a choice of.
struct Choice {
  std::string op;
  DeviceKind device;
  std::vector<std::string> providers;

  std::string name() const { return absl::StrCat(op, "_", Name(device)); }
  friend void PrintTo(const Choice& choice, std::ostream* out) {
    *out << choice.name();
  }
};

// Of operators with several providers on a device. norm_gemm is a choice with
// one, too: it stands for calls that may be done apart.
std::vector<Choice> Choices() {
  std::vector<Choice> choices;
  for (const auto& op : Operators())
    for (DeviceKind device : {DeviceKind::kCpu, DeviceKind::kCuda}) {
      Choice choice = {std::string(op->name()), device, {}};
      for (const ProviderInfo& provider : op->providers())
        if (provider.device == device)
          choice.providers.emplace_back(provider.name);
      const size_t few = choice.op == "norm_gemm" ? 0 : 1;
      // No model copies.
      if (choice.op != "copy" && choice.providers.size() > few)
        choices.push_back(choice);
    }
  return choices;
}

class ModelProviders : public testing::TestWithParam<Choice> {};

// Chunks of 16: a prompt's kernels from an empty state and from another, and
// few enough rows for those that are made for few.
TEST_P(ModelProviders, EachAgreesWithTheDefinitions) {
  const Choice& choice = GetParam();
  auto device =
      choice.device == DeviceKind::kCpu ? MakeCpuDevice({}) : MakeCudaDevice();
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  int ran = 0;
  for (const char* name : kGoldenModels) {
    const Golden golden = Golden::Read(name);
    const Logits expected = golden.Expected(LogitsOf::kAll);
    const double error = F32Error(golden);
    for (const std::string& provider : choice.providers)
      for (DType dtype : {DType::kBF16, DType::kF32}) {
        const std::string call = absl::StrCat(choice.op, "/", provider);
        SCOPED_TRACE(absl::StrCat(name, " ", call, " ", Name(dtype)));
        std::set<std::string> used;
        const auto logits = RunModel(golden, dtype, 16, LogitsOf::kAll,
                                     **device, {{choice.op, provider}}, &used);
        // It has no such call, or has one that this provider does not do.
        if (absl::IsUnimplemented(logits.status())) continue;
        ASSERT_TRUE(logits.ok()) << logits.status();
        // `composed` is booked as the calls that it is made of.
        if (provider != "composed" && !used.contains(call)) continue;
        const double allowed = Allowed(dtype, error);
        const double off = RmsDifference(*logits, expected);
        std::printf("%s %s %s: %.2e, allowed %.2e\n", name, call.c_str(),
                    std::string(Name(dtype)).c_str(), off, allowed);
        EXPECT_LE(off, allowed);
        ++ran;
      }
  }
  EXPECT_GT(ran, 0) << "no model could run with any of them";
}

INSTANTIATE_TEST_SUITE_P(All, ModelProviders, testing::ValuesIn(Choices()),
                         [](const auto& test) { return test.param.name(); });

TEST(ModelLimits, NoTokenAfterTheLearnedPositions) {
  auto device = *MakeCpuDevice({});
  const ModelConfig config = *LoadModelConfig(GoldenFolder("gpt_neo"));
  const int64_t most = config.max_position;
  ModelShape shape = {.dtype = DType::kF32, .chunk = 1024};
  shape.prompt = shape.capacity = most;
  EXPECT_TRUE(Model::Measure(config, shape, {}, *device).ok());
  shape.prompt = shape.capacity = most + 1;
  EXPECT_TRUE(absl::IsUnimplemented(
      Model::Measure(config, shape, {}, *device).status()));
}

// What is planned is what is then held; what does not fit is refused before
// anything is allocated, with both sizes.
TEST(ModelMemory, IsKnownBeforeItIsAllocated) {
  auto device = *MakeCpuDevice({});
  for (const char* name : {"qwen2", "mamba_ssm_mamba", "falcon_h1", "zamba2"}) {
    SCOPED_TRACE(name);
    const ModelConfig config = *LoadModelConfig(GoldenFolder(name));
    const ModelShape shape = {.dtype = DType::kF32,
                              .batch = 2,
                              .prompt = 50,
                              .capacity = 60,
                              .chunk = 16,
                              .context = 55};
    const auto planned = *Model::Measure(config, shape, {}, *device);
    const size_t before = device->memory().live;
    {
      const auto model = Model::Make(config, shape, {}, nullptr, 1, *device);
      ASSERT_TRUE(model.ok()) << model.status();
      const double held = static_cast<double>(device->memory().live - before);
      EXPECT_NEAR(held, static_cast<double>(planned.total()), 0.01 * held);
    }
    EXPECT_EQ(device->memory().live, before);
    device->SetMemoryLimit(planned.total() - 1);
    const auto refused = Model::Make(config, shape, {}, nullptr, 1, *device);
    EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
    EXPECT_NE(refused.status().message().find(absl::StrCat(planned.total())),
              absl::string_view::npos)
        << refused.status();
    device->SetMemoryLimit(0);
  }
}

// What a library packs of the weights does not grow with the prompt's chunks.
TEST(ModelMemory, ChunksShareWhatIsPacked) {
  auto device = *MakeCpuDevice({});
  const ModelConfig config = ZooConfig("mamba2-130m");
  ModelShape shape = {.chunk = 64};
  const auto workspace = [&](int64_t prompt) {
    shape.prompt = shape.capacity = prompt;
    return Model::Measure(config, shape, {}, *device)->workspace;
  };
  EXPECT_EQ(workspace(64 * 8), workspace(64 * 2));
}

// Real layers, random weights: bf16 on CUDA against bf16 on the CPU, which the
// golden models tie to the definitions. Two runs in bf16 may differ by what
// each differs from f32, which the CPU's own two runs show.
class ZooModels : public testing::TestWithParam<const char*> {};

TEST_P(ZooModels, CudaAgreesWithTheCpu) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  auto cpu = *MakeCpuDevice({});
  const Sequences sequences =
      Sequences::Random(ZooConfig(GetParam()), 1, 150, 2);
  const auto run = [&](DType dtype, Device& device) {
    return RunModel(sequences, dtype, 100, LogitsOf::kLast, device);
  };
  const auto bf16 = run(DType::kBF16, *cpu);
  if (absl::IsUnimplemented(bf16.status())) GTEST_SKIP() << bf16.status();
  const auto f32 = run(DType::kF32, *cpu);
  const auto on_gpu = run(DType::kBF16, **cuda);
  ASSERT_TRUE(bf16.ok() && f32.ok() && on_gpu.ok())
      << bf16.status() << f32.status() << on_gpu.status();
  const double allowed = 1.5 * RmsDifference(*bf16, *f32);
  const double off = RmsDifference(*on_gpu, *bf16);
  std::printf("%s: %.2e, allowed %.2e\n", GetParam(), off, allowed);
  EXPECT_LT(allowed, 0.5);
  EXPECT_LE(off, allowed);
}

INSTANTIATE_TEST_SUITE_P(All, ZooModels,
                         testing::Values("qwen2.5-0.5b", "gpt-neo-125m",
                                         "mamba-130m", "mamba2-130m",
                                         "falcon-h1-0.5b", "zamba2-1.2b",
                                         "hymba-1.5b"));

// What is planned is also what the driver says is gone; to be run alone.
TEST(CudaModelMemory, IsWhatTheDriverLends) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  const std::pair<const char*, int64_t> models[] = {
      {"qwen2.5-0.5b", 1}, {"qwen2.5-0.5b", 4},   {"mamba-130m", 1},
      {"mamba2-130m", 1},  {"mamba-790m", 1},     {"mamba2-780m", 1},
      {"zamba2-1.2b", 1},  {"falcon-h1-0.5b", 1},
  };
  for (const auto& [name, batch] : models) {
    SCOPED_TRACE(absl::StrCat(name, ", batch ", batch));
    const ModelConfig config = ZooConfig(name);
    const ModelShape shape = {.batch = batch,
                              .prompt = 4096,
                              .capacity = 5000,
                              .chunk = 1024,
                              .context = 4999};
    const auto planned = *Model::Measure(config, shape, {}, **cuda);
    // The first time, libraries load what they keep for good.
    ASSERT_TRUE(Model::Make(config, shape, {}, nullptr, 1, **cuda).ok());
    const double before = static_cast<double>(*(*cuda)->FreeBytes());
    const auto model = Model::Make(config, shape, {}, nullptr, 1, **cuda);
    ASSERT_TRUE(model.ok()) << model.status();
    const double gone = before - static_cast<double>(*(*cuda)->FreeBytes());
    const auto total = static_cast<double>(planned.total());
    EXPECT_NEAR(gone, total, 0.01 * total);
  }
}

// Of the golden Hymba's five layers two see all, and the three of the window
// share keys and values; there are five meta tokens.
TEST(HymbaCosts, CountWhatIsSeenOnceAndMetaTokens) {
  const ModelConfig config = *LoadModelConfig(GoldenFolder("hymba"));
  const AttentionConfig& a = config.attention;
  const double row = 4.0 * a.kv_heads * (a.head_dim + a.value_head_dim);
  const auto step = [&](int64_t context) {
    return *Model::GetCost(config, {.dtype = DType::kF32, .context = context});
  };
  const ModelCost at = step(100), later = step(101);
  EXPECT_EQ(later.bytes_read - at.bytes_read, 2 * row);
  EXPECT_EQ(later.bytes_written, at.bytes_written);
  // The shared layers see five meta tokens and ten others, then no more.
  EXPECT_EQ(at.bytes_read - step(10).bytes_read, 90 * 2 * row);
  EXPECT_EQ(step(10).bytes_read - step(9).bytes_read, 3 * row);
  const double fixed = step(0).bytes_read - 5 * 3 * row;
  const double weights = Weights::Placed(config, DType::kF32).bytes();
  EXPECT_GT(fixed, weights);  // and the scans' states

  const auto prompt = [&](int64_t length) {
    return *Model::GetCost(config, {.dtype = DType::kF32,
                                    .prompt = length,
                                    .capacity = length,
                                    .chunk = 64});
  };
  EXPECT_EQ(prompt(2).bytes_written - prompt(1).bytes_written, 3 * row);
  EXPECT_EQ(prompt(1).bytes_written - at.bytes_written, 5 * 3 * row);
}

INSTANTIATE_TEST_SUITE_P(All, Models, testing::ValuesIn(kGoldenModels),
                         [](const auto& test) {
                           return std::string(test.param);
                         });

}  // namespace
}  // namespace seqmark
