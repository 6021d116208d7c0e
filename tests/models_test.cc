// SPDX-License-Identifier: Apache-2.0
//
// Whole models against logits that Transformers, mamba_ssm's definition and
// tools/golden/published_models.py computed in double (tests/golden/models,
// written by tools/golden/make_models.py): every position of a prompt, then
// eight steps of decoding, for two sequences.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "models/model.h"
#include "tests/zoo.h"

namespace seqmark {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Logits = std::vector<std::vector<std::vector<double>>>;  // [b][t][vocab]

const char* const kModels[] = {
    "falcon_h1", "falcon_h1_norm", "gpt_neo",         "hymba",
    "llama",     "mamba",          "mamba2_groups1",  "mamba2_groups2",
    "nemotron",  "nemotron_h",     "mamba_ssm_mamba", "mamba_ssm_mamba2",
    "phi3",      "qwen2",          "zamba2"};

std::string Folder(const std::string& model) {
  return absl::StrCat(SEQMARK_SOURCE_DIR, "/tests/golden/models/", model);
}

struct Golden {
  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
  std::vector<std::vector<int32_t>> prompt, decode;  // [b][t]
  Logits prefill_logits, decode_logits;

  static Golden Read(const std::string& model,
                     const std::string& logits = "logits.json") {
    Golden golden;
    golden.config = *LoadModelConfig(Folder(model));
    golden.checkpoint = *Checkpoint::Open(Folder(model));
    std::ifstream file(Folder(model) + "/" + logits);
    const Json json = Json::parse(file);
    json.at("prompt").get_to(golden.prompt);
    json.at("decode").get_to(golden.decode);
    json.at("prefill_logits").get_to(golden.prefill_logits);
    json.at("decode_logits").get_to(golden.decode_logits);
    return golden;
  }
  int64_t length() const { return static_cast<int64_t>(prompt[0].size()); }
  // Only one of the sequences.
  Golden Sequence(size_t b) const {
    Golden one;
    one.config = config;
    one.prompt = {prompt[b]};
    one.decode = {decode[b]};
    one.prefill_logits = {prefill_logits[b]};
    one.decode_logits = {decode_logits[b]};
    return one;
  }
};

// What a model said: [b][t][vocab], the prompt's tokens, then the steps'.
struct Run {
  Logits logits;
};

std::vector<double> ReadTensor(const Tensor& tensor, Device& device) {
  std::vector<std::byte> raw(tensor.bytes());
  EXPECT_TRUE(device.CopyToHost(raw.data(), tensor.data, raw.size()).ok());
  std::vector<double> values(tensor.size());
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = LoadElement(tensor.dtype, raw.data(), i);
  return values;
}

void Append(const Tensor& tensor, Device& device, Logits& logits) {
  const std::vector<double> values = ReadTensor(tensor, device);
  const int64_t tokens = tensor.dims[1], vocab = tensor.dims[2];
  logits.resize(tensor.dims[0]);
  for (int64_t b = 0; b < tensor.dims[0]; ++b)
    for (int64_t t = 0; t < tokens; ++t) {
      const auto* const from = &values[(b * tokens + t) * vocab];
      logits[b].emplace_back(from, from + vocab);
    }
}

absl::Status Call(const std::vector<ModelPart>& parts, Device& device) {
  absl::Status status = InOrder(parts)(device.stream());
  status.Update(device.Synchronize());
  return status;
}

absl::StatusOr<Logits> RunModel(const Golden& golden,
                                const Checkpoint& checkpoint, DType dtype,
                                int64_t chunk, LogitsOf logits_of,
                                Device& device,
                                const ProviderChoice& providers = {}) {
  const auto batch = static_cast<int64_t>(golden.prompt.size());
  const int64_t length = golden.length();
  const auto steps = static_cast<int64_t>(golden.decode[0].size());
  auto model = Model::Make(golden.config,
                           {.dtype = dtype,
                            .batch = batch,
                            .prompt = length,
                            .capacity = length + steps,
                            .chunk = chunk,
                            .logits = logits_of,
                            .context = length + steps - 1},
                           providers, &checkpoint, 1, device);
  if (!model.ok()) return model.status();
  std::vector<int32_t> tokens;
  for (const auto& sequence : golden.prompt)
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  absl::Status status = (*model)->SetPrompt(tokens);
  if (status.ok()) status = Call((*model)->prompt_parts(), device);
  if (!status.ok()) return status;
  Logits logits;
  Append((*model)->logits(), device, logits);
  for (int64_t i = 0; i < steps; ++i) {
    const auto parts = (*model)->PlanStep(length + i);
    if (!parts.ok()) return parts.status();
    tokens.clear();
    for (const auto& sequence : golden.decode) tokens.push_back(sequence[i]);
    status = (*model)->SetStepTokens(tokens);
    if (status.ok()) status = Call(*parts, device);
    if (!status.ok()) return status;
    Append((*model)->step_logits(), device, logits);
  }
  return logits;
}

Logits Expected(const Golden& golden, LogitsOf logits_of) {
  Logits logits = golden.prefill_logits;
  for (size_t b = 0; b < logits.size(); ++b) {
    if (logits_of == LogitsOf::kLast) logits[b] = {logits[b].back()};
    logits[b].insert(logits[b].end(), golden.decode_logits[b].begin(),
                     golden.decode_logits[b].end());
  }
  return logits;
}

// The largest |a - b| over the rms of b.
double Difference(const Logits& a, const Logits& b) {
  double squares = 0, worst = 0;
  int64_t count = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < b.size(); ++i) {
    EXPECT_EQ(a[i].size(), b[i].size());
    for (size_t t = 0; t < b[i].size(); ++t) {
      EXPECT_EQ(a[i][t].size(), b[i][t].size());
      for (size_t v = 0; v < b[i][t].size(); ++v) {
        squares += b[i][t][v] * b[i][t][v];
        ++count;
        const double difference = std::fabs(a[i][t][v] - b[i][t][v]);
        worst = difference <= worst ? worst : difference;  // NaN is worst
      }
    }
  }
  return worst / std::sqrt(squares / static_cast<double>(count));
}

class Models : public testing::TestWithParam<const char*> {};

constexpr double kF32 = 1e-4;

TEST_P(Models, LogitsAreTheDefinitions) {
  auto device = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  for (int64_t chunk : {64, 16, 7}) {
    SCOPED_TRACE(chunk);
    for (LogitsOf of : {LogitsOf::kAll, LogitsOf::kLast}) {
      const auto logits =
          RunModel(golden, *golden.checkpoint, DType::kF32, chunk, of, *device);
      ASSERT_TRUE(logits.ok()) << logits.status();
      EXPECT_LE(Difference(*logits, Expected(golden, of)), kF32);
    }
  }
}

TEST_P(Models, ABatchIsItsSequences) {
  auto device = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  for (size_t b = 0; b < golden.prompt.size(); ++b) {
    const Golden one = golden.Sequence(b);
    const auto logits = RunModel(one, *golden.checkpoint, DType::kF32, 64,
                                 LogitsOf::kAll, *device);
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_LE(Difference(*logits, Expected(one, LogitsOf::kAll)), kF32);
  }
}

// The calls that GPUs have one kernel for, as one operator here too.
TEST_P(Models, FusedCallsAreTheDefinitions) {
  auto device = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  const auto logits =
      RunModel(golden, *golden.checkpoint, DType::kF32, 64, LogitsOf::kLast,
               *device, {{"norm_gemm", "composed"}});
  ASSERT_TRUE(logits.ok()) << logits.status();
  EXPECT_LE(Difference(*logits, Expected(golden, LogitsOf::kLast)), kF32);
}

// The rms of a - b over the rms of b.
double RmsDifference(const Logits& a, const Logits& b) {
  double squares = 0, errors = 0;
  for (size_t i = 0; i < b.size(); ++i)
    for (size_t t = 0; t < b[i].size(); ++t)
      for (size_t v = 0; v < b[i][t].size(); ++v) {
        const double difference = a[i][t][v] - b[i][t][v];
        squares += b[i][t][v] * b[i][t][v];
        errors += difference * difference;
      }
  return std::sqrt(errors / squares);
}

// Weights are exact in 16 bits, so that a run in them differs from one in f32
// by the rounding of activations alone. What that may do follows from what
// f32's rounding does in the same model: its error, measured, times the ratio
// of the epsilons. A wrong layer gives an error near 1, whatever the model's
// conditioning.
TEST_P(Models, CudaIsAsNearAsItsRoundingAllows) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  auto cpu = *MakeCpuDevice({});
  const Golden golden = Golden::Read(GetParam());
  const Logits expected = Expected(golden, LogitsOf::kAll);
  const auto f32 = RunModel(golden, *golden.checkpoint, DType::kF32, 64,
                            LogitsOf::kAll, *cpu);
  ASSERT_TRUE(f32.ok()) << f32.status();
  const double error = RmsDifference(*f32, expected);
  int ran = 0;
  std::string refused;
  for (DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
    for (int64_t chunk : {64, 16}) {
      SCOPED_TRACE(testing::Message() << Name(dtype) << ", chunk " << chunk);
      const auto logits = RunModel(golden, *golden.checkpoint, dtype, chunk,
                                   LogitsOf::kAll, **cuda);
      if (absl::IsUnimplemented(logits.status())) {
        refused = std::string(logits.status().message());
        continue;
      }
      ASSERT_TRUE(logits.ok()) << logits.status();
      const double allowed =
          dtype == DType::kF32
              ? kF32
              : std::min(0.3, error * Epsilon(dtype) / Epsilon(DType::kF32));
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

TEST(ModelLimits, NoTokenAfterTheLearnedPositions) {
  auto device = *MakeCpuDevice({});
  const ModelConfig config = *LoadModelConfig(Folder("gpt_neo"));
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
    const ModelConfig config = *LoadModelConfig(Folder(name));
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

absl::StatusOr<Logits> RunZoo(const ModelConfig& config, DType dtype,
                              Device& device) {
  constexpr int64_t kPrompt = 150, kSteps = 2;
  auto model = Model::Make(config,
                           {.dtype = dtype,
                            .prompt = kPrompt,
                            .capacity = kPrompt + kSteps,
                            .chunk = 100,
                            .context = kPrompt + kSteps - 1},
                           {}, nullptr, 1, device);
  if (!model.ok()) return model.status();
  std::vector<int32_t> tokens(kPrompt);
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>((i * 7919 + 13) % config.vocab);
  absl::Status status = (*model)->SetPrompt(tokens);
  if (status.ok()) status = Call((*model)->prompt_parts(), device);
  Logits logits;
  if (status.ok()) Append((*model)->logits(), device, logits);
  for (int64_t i = 0; i < kSteps && status.ok(); ++i) {
    const auto parts = (*model)->PlanStep(kPrompt + i);
    if (!parts.ok()) return parts.status();
    status = (*model)->SetStepTokens({static_cast<int32_t>(17 + i)});
    if (status.ok()) status = Call(*parts, device);
    if (status.ok()) Append((*model)->step_logits(), device, logits);
  }
  if (!status.ok()) return status;
  return logits;
}

TEST_P(ZooModels, CudaAgreesWithTheCpu) {
  auto cuda = MakeCudaDevice();
  if (!cuda.ok()) GTEST_SKIP() << cuda.status().message();
  auto cpu = *MakeCpuDevice({});
  const ModelConfig config = ZooConfig(GetParam());
  const auto bf16 = RunZoo(config, DType::kBF16, *cpu);
  if (absl::IsUnimplemented(bf16.status())) GTEST_SKIP() << bf16.status();
  const auto f32 = RunZoo(config, DType::kF32, *cpu);
  const auto on_gpu = RunZoo(config, DType::kBF16, **cuda);
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
  for (const char* name : {"qwen2.5-0.5b", "mamba-130m", "mamba2-130m",
                           "mamba-790m", "mamba2-780m"}) {
    SCOPED_TRACE(name);
    const ModelConfig config = ZooConfig(name);
    const ModelShape shape = {
        .prompt = 4096, .capacity = 5000, .chunk = 1024, .context = 4999};
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
  const ModelConfig config = *LoadModelConfig(Folder("hymba"));
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

INSTANTIATE_TEST_SUITE_P(All, Models, testing::ValuesIn(kModels),
                         [](const auto& test) {
                           return std::string(test.param);
                         });

}  // namespace
}  // namespace seqmark
