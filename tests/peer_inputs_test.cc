// SPDX-License-Identifier: Apache-2.0
//
// What tools/peers mirrors in Python: the values of inputs, and the problems
// that rows' names stand for. tests/golden/peers holds both; tests/python holds
// the other side to the same files.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixtures/op_fixture.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/attention_decode/attention_decode.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/copy/copy.h"
#include "ops/embedding/embedding.h"
#include "ops/gemm/gemm.h"
#include "ops/layernorm/layernorm.h"
#include "ops/mamba2_inner/mamba2_inner.h"
#include "ops/rmsnorm/rmsnorm.h"
#include "ops/rope/rope.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan_step/selective_scan_step.h"
#include "ops/ssd_scan/ssd_scan.h"
#include "ops/ssd_step/ssd_step.h"

namespace seqmark {

NLOHMANN_JSON_SERIALIZE_ENUM(Role, {{Role::kActivation, "activation"},
                                    {Role::kWeight, "weight"},
                                    {Role::kScale, "scale"},
                                    {Role::kBias, "bias"},
                                    {Role::kStep, "step"},
                                    {Role::kStepBias, "step_bias"},
                                    {Role::kDecay, "decay"},
                                    {Role::kHeadDecay, "head_decay"},
                                    {Role::kState, "state"},
                                    {Role::kFrequency, "frequency"},
                                    {Role::kIndex, "index"},
                                    {Role::kOutput, "output"}})
NLOHMANN_JSON_SERIALIZE_ENUM(DType, {{DType::kF64, "f64"},
                                     {DType::kBF16, "bf16"},
                                     {DType::kF16, "f16"},
                                     {DType::kF32, "f32"},
                                     {DType::kI32, "i32"}})

namespace {

using Json = nlohmann::ordered_json;

Json Read(const std::string& name) {
  const std::string path =
      absl::StrCat(SEQMARK_SOURCE_DIR, "/tests/golden/peers/", name);
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << " is missing";
  return Json::parse(file);
}

// For whoever changes the C++ side on purpose. An output is written anew where
// the file has "output":{}.
void WriteWhatItIs(const std::string& name, const char* entries,
                   const Json& now) {
  const std::string path = testing::TempDir() + name;
  std::ofstream file(path);
  file << "{\"seed\":" << now.at("seed") << ",\"" << entries << "\":[";
  const char* separator = "\n";
  for (const Json& entry : now.at(entries)) {
    file << separator << entry.dump();
    separator = ",\n";
  }
  file << "\n]}\n";
  ADD_FAILURE() << "tests/golden/peers/" << name << " differs from " << path
                << ", which is what the program does now; tools/peers must do "
                   "the same";
}

// All elements' bits, weighted by place, modulo 2^64; as JSON's numbers go, a
// string.
std::string WeightedSum(const Tensor& tensor) {
  uint64_t sum = 0;
  const size_t element = SizeOf(tensor.dtype);
  for (int64_t i = 0; i < tensor.size(); ++i)
    sum += static_cast<uint64_t>(i + 1) *
           (element == 2 ? tensor.as<uint16_t>()[i] : tensor.as<uint32_t>()[i]);
  return absl::StrCat(sum);
}

TEST(PeerInputs, ValuesAreTheGoldenOnes) {
  const Json golden = Read("inputs.json");
  ASSERT_EQ(golden.at("seed"), InstanceOptions{}.seed);
  ASSERT_FALSE(golden.at("tensors").empty());
  const auto device = MakeCpuDevice({});
  Json now = golden;
  for (Json& entry : now["tensors"]) {
    const std::string name = entry.at("name");
    const auto dims = entry.at("dims").get<std::vector<int64_t>>();
    const TensorSpec spec = {
        name, entry.at("role").get<Role>(), entry.at("dtype").get<DType>(),
        Dims(dims.begin(), dims.end()), entry.value("limit", int64_t{0})};
    const Buffer buffer = *(*device)->Allocate(Bytes(spec));
    const Tensor tensor(buffer.data(), spec.dtype, spec.dims);
    ASSERT_TRUE(Fill(spec, tensor, now["seed"], **device).ok());
    entry["first"] = Json::array();
    for (int64_t i = 0; i < 3; ++i)
      entry["first"].push_back(LoadElement(spec.dtype, tensor.data, i));
    entry["last"] = LoadElement(spec.dtype, tensor.data, tensor.size() - 1);
    entry["sum"] = WeightedSum(tensor);
  }
  if (now != golden) WriteWhatItIs("inputs.json", "tensors", now);
}

// The sweep's problem of the row's shape, with the row's extents.
template <class Op>
typename Op::Problem ProblemOf(const RowName& row) {
  for (typename Op::Problem p : Op::Sweep()) {
    if (p.shape != row.shape || (p.seqlen == 1) != (row.seqlen == 1)) continue;
    p.dtype = row.dtype;
    p.batch = row.batch;
    p.seqlen = row.seqlen;
    return p;
  }
  ADD_FAILURE() << row.ToString() << " is not in the sweep";
  return {};
}

// Places of the first output, spread over it, and the reference's values there.
// Where a norm's factor of a token is left to who reads the output, also what
// it is made of: the token's sum of squares.
template <class Op>
Json Output(const typename Op::Problem& p, Device& device, uint64_t seed) {
  constexpr size_t kPlaces = 16;
  typename Op::Args args;
  std::vector<Buffer> buffers;
  size_t count = 0, first = 0, squares_at = 0;
  int64_t width = 0, parts = 0;  // of a token
  std::string name;
  Op::Visit(p, args, [&](const TensorSpec& spec, Tensor& tensor) {
    buffers.push_back(*device.Allocate(Bytes(spec)));
    tensor = Tensor(buffers.back().data(), spec.dtype, spec.dims);
    EXPECT_TRUE(Fill(spec, tensor, seed, device).ok());
    if (IsOutput(spec.role) && name.empty()) {
      name = std::string(spec.name);
      first = count;
      width = spec.dims.back();
    } else if (spec.name == "squares") {
      squares_at = count;
      parts = spec.dims.back();
    }
    ++count;
  });
  ReferenceRun<Op> run;
  EXPECT_TRUE(run.Prepare(p, args, device).ok());
  Op::Reference(p, run.args());
  const std::vector<double>& values = run.tensor(first);
  double squares = 0;
  for (double v : values) squares += v * v;
  Json output = {
      {"tensor", name},
      {"rms", std::sqrt(squares / static_cast<double>(values.size()))},
      {"places", Json::array()},
      {"values", Json::array()}};
  for (size_t k = 0; k < kPlaces; ++k) {
    const size_t place = k * (values.size() - 1) / (kPlaces - 1);
    output["places"].push_back(place);
    output["values"].push_back(values[place]);
    if (parts == 0) continue;
    const auto of_token = run.tensor(squares_at).begin() +
                          static_cast<int64_t>(place) / width * parts;
    output["squares"].push_back(
        std::accumulate(of_token, of_token + parts, 0.0));
  }
  return output;
}

// Fills `entry`, a row with its name, if it is one of Op.
template <class Op>
bool Describe(const RowName& row, Json& entry, Device& device, uint64_t seed) {
  if (row.op != Op::kName) return false;
  const typename Op::Problem p = ProblemOf<Op>(row);
  entry["flops"] = Op::GetCost(p).flops();
  entry["tensors"] = Json::array();
  typename Op::Args args;
  Op::Visit(p, args, [&](const TensorSpec& spec, Tensor&) {
    Json tensor = {{"name", std::string(spec.name)},
                   {"role", spec.role},
                   {"dtype", spec.dtype},
                   {"dims", std::vector(spec.dims.begin(), spec.dims.end())},
                   {"bytes", BytesTouched(spec)}};
    if (spec.role == Role::kIndex) tensor["limit"] = spec.limit;
    entry["tensors"].push_back(std::move(tensor));
  });
  if (entry.contains("output")) entry["output"] = Output<Op>(p, device, seed);
  return true;
}

template <class... Ops>
bool DescribeAny(const RowName& row, Json& entry, Device& device,
                 uint64_t seed) {
  return (Describe<Ops>(row, entry, device, seed) || ...);
}

// Sums in double, whose order a compiler may not change, of what libm says.
void ExpectSameOutput(const Json& now, const Json& golden) {
  if (!golden.contains("values")) return;
  constexpr double kBound = 1e-9;
  EXPECT_EQ(now.at("places"), golden.at("places"));
  const double rms = golden.at("rms");
  EXPECT_NEAR(now.at("rms").get<double>(), rms, kBound * rms);
  for (size_t i = 0; i < now.at("values").size(); ++i)
    EXPECT_NEAR(now["values"][i].get<double>(),
                golden.at("values").at(i).get<double>(), kBound * rms);
  ASSERT_EQ(now.contains("squares"), golden.contains("squares"));
  if (!now.contains("squares")) return;
  for (size_t i = 0; i < now.at("squares").size(); ++i) {
    const double sum = golden.at("squares").at(i);
    EXPECT_NEAR(now["squares"][i].get<double>(), sum, kBound * sum);
  }
}

TEST(PeerInputs, ProblemsAreTheGoldenOnes) {
  const Json golden = Read("problems.json");
  ASSERT_EQ(golden.at("seed"), InstanceOptions{}.seed);
  ASSERT_FALSE(golden.at("rows").empty());
  const auto device = MakeCpuDevice({});
  Json now = golden;
  for (Json& entry : now["rows"]) {
    const auto row = RowName::Parse(entry.at("row").get<std::string>());
    ASSERT_TRUE(row.ok()) << row.status();
    SCOPED_TRACE(row->ToString());
    const Json before = entry;
    const bool known =
        DescribeAny<RmsNorm, LayerNorm, Gemm, Attention, AttentionDecode,
                    CausalConv1d, SelectiveScan, SsdScan, Mamba2Inner,
                    SelectiveScanStep, SsdStep, Rope, Embedding, Activation,
                    Copy>(*row, entry, **device, now["seed"]);
    ASSERT_TRUE(known) << "no operator " << row->op;
    if (!entry.contains("output")) continue;
    ExpectSameOutput(entry["output"], before["output"]);
    if (before["output"].contains("values")) entry["output"] = before["output"];
  }
  if (now != golden) WriteWhatItIs("problems.json", "rows", now);
}

}  // namespace
}  // namespace seqmark
