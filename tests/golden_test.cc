// SPDX-License-Identifier: Apache-2.0
//
// The references against PyTorch: tests/golden/<op>.json holds inputs, options
// and outputs that tools/golden/make_golden.py computed in double. A reference
// that agrees with its own providers but not with the definition fails here.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fixtures/op.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/attention_decode/attention_decode.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/embedding/embedding.h"
#include "ops/gemm/gemm.h"
#include "ops/layernorm/layernorm.h"
#include "ops/rmsnorm/rmsnorm.h"
#include "ops/rope/rope.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/selective_scan_step/selective_scan_step.h"
#include "ops/ssd_scan/ssd_scan.h"
#include "ops/ssd_step/ssd_step.h"

namespace seqmark {

NLOHMANN_JSON_SERIALIZE_ENUM(NormGate, {{NormGate::kNone, "none"},
                                        {NormGate::kBefore, "before"},
                                        {NormGate::kAfter, "after"}})
NLOHMANN_JSON_SERIALIZE_ENUM(ActivationFunction,
                             {{ActivationFunction::kSilu, "silu"},
                              {ActivationFunction::kGelu, "gelu"},
                              {ActivationFunction::kGeluTanh, "gelu_tanh"},
                              {ActivationFunction::kRelu2, "relu2"}})

namespace {

using Json = nlohmann::json;

// A case's "problem": every axis in it must be a field that is read here.
class Axes {
 public:
  explicit Axes(const Json& axes) : axes_(axes) {}
  template <class T>
  Axes& Read(const char* name, T& field) {
    axes_.at(name).get_to(field);
    read_.insert(name);
    return *this;
  }
  bool all_read() const { return read_.size() == axes_.size(); }

 private:
  const Json& axes_;
  std::set<std::string> read_;
};

void ReadAxes(Axes& axes, RmsNorm::Problem& p) {
  axes.Read("width", p.width)
      .Read("groups", p.groups)
      .Read("residual", p.residual)
      .Read("gate", p.gate)
      .Read("epsilon", p.epsilon);
}

void ReadAxes(Axes& axes, LayerNorm::Problem& p) {
  axes.Read("width", p.width)
      .Read("residual", p.residual)
      .Read("epsilon", p.epsilon);
}

void ReadAxes(Axes& axes, Gemm::Problem& p) {
  axes.Read("in_features", p.in_features)
      .Read("out_features", p.out_features)
      .Read("bias", p.bias);
}

void ReadAxes(Axes& axes, Attention::Problem& p) {
  axes.Read("heads", p.heads)
      .Read("kv_heads", p.kv_heads)
      .Read("head_dim", p.head_dim)
      .Read("window", p.window)
      .Read("past", p.past);
}

void ReadAxes(Axes& axes, AttentionDecode::Problem& p) {
  axes.Read("heads", p.heads)
      .Read("kv_heads", p.kv_heads)
      .Read("head_dim", p.head_dim)
      .Read("window", p.window);
}

void ReadAxes(Axes& axes, CausalConv1d::Problem& p) {
  axes.Read("channels", p.channels)
      .Read("width", p.width)
      .Read("bias", p.bias)
      .Read("silu", p.silu)
      .Read("initial_state", p.initial_state)
      .Read("final_state", p.final_state);
}

void ReadAxes(Axes& axes, SelectiveScan::Problem& p) {
  axes.Read("d_inner", p.d_inner)
      .Read("d_state", p.d_state)
      .Read("has_z", p.has_z)
      .Read("has_d", p.has_d)
      .Read("has_dt_bias", p.has_dt_bias)
      .Read("has_initial_state", p.has_initial_state);
}

void ReadAxes(Axes& axes, SsdScan::Problem& p) {
  axes.Read("heads", p.heads)
      .Read("head_dim", p.head_dim)
      .Read("groups", p.groups)
      .Read("d_state", p.d_state)
      .Read("has_d", p.has_d)
      .Read("has_dt_bias", p.has_dt_bias)
      .Read("has_z", p.has_z)
      .Read("has_initial_state", p.has_initial_state);
}

void ReadAxes(Axes& axes, SelectiveScanStep::Problem& p) {
  axes.Read("d_inner", p.d_inner)
      .Read("d_state", p.d_state)
      .Read("has_z", p.has_z)
      .Read("has_d", p.has_d)
      .Read("has_dt_bias", p.has_dt_bias);
}

void ReadAxes(Axes& axes, SsdStep::Problem& p) {
  axes.Read("heads", p.heads)
      .Read("head_dim", p.head_dim)
      .Read("groups", p.groups)
      .Read("d_state", p.d_state)
      .Read("has_d", p.has_d)
      .Read("has_dt_bias", p.has_dt_bias)
      .Read("has_z", p.has_z);
}

void ReadAxes(Axes& axes, Rope::Problem& p) {
  axes.Read("heads", p.heads)
      .Read("kv_heads", p.kv_heads)
      .Read("head_dim", p.head_dim)
      .Read("rotary_dim", p.rotary_dim)
      .Read("position", p.position)
      .Read("factor", p.factor)
      .Read("has_v", p.has_v);
}

void ReadAxes(Axes& axes, Embedding::Problem& p) {
  axes.Read("vocab", p.vocab)
      .Read("width", p.width)
      .Read("scale", p.scale)
      .Read("learned_positions", p.learned_positions)
      .Read("max_position", p.max_position)
      .Read("position", p.position);
}

void ReadAxes(Axes& axes, Activation::Problem& p) {
  axes.Read("width", p.width)
      .Read("function", p.function)
      .Read("gated", p.gated);
}

// |actual - expected| within 1e-9 of the element or of the tensor's rms:
// the file has 12 digits, and sums of doubles agree to more.
void ExpectClose(const std::vector<double>& actual,
                 const std::vector<double>& expected) {
  double squares = 0;
  for (double e : expected) squares += e * e;
  const double rms = std::sqrt(squares / expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_LE(std::fabs(actual[i] - expected[i]),
              1e-9 * (std::fabs(expected[i]) + rms))
        << "element " << i << " is " << actual[i] << ", PyTorch has "
        << expected[i];
}

template <Operator Op>
void RunCase(const Json& golden) {
  typename Op::Problem problem;
  Axes axes(golden.at("problem"));
  axes.Read("batch", problem.batch).Read("seqlen", problem.seqlen);
  ReadAxes(axes, problem);
  ASSERT_TRUE(axes.all_read()) << "an axis that Problem has no field for";

  const Json& tensors = golden.at("tensors");
  typename Op::Args args;
  std::vector<std::vector<double>> storage;
  storage.reserve(tensors.size());
  std::vector<std::string> outputs;  // by index of storage; "" for an input
  Op::Visit(problem, args, [&](const TensorSpec& spec, Tensor& tensor) {
    const std::string name(spec.name);
    ASSERT_TRUE(tensors.contains(name)) << "PyTorch has no tensor " << name;
    const auto dims = tensors[name]["dims"].get<std::vector<int64_t>>();
    ASSERT_EQ(dims, std::vector<int64_t>(spec.dims.begin(), spec.dims.end()))
        << name;
    storage.push_back(tensors[name]["values"].get<std::vector<double>>());
    ASSERT_EQ(static_cast<int64_t>(storage.back().size()),
              NumElements(spec.dims));
    outputs.push_back(IsOutput(spec.role) ? name : "");
    if (IsOutput(spec.role))
      storage.back().assign(storage.back().size(),
                            std::numeric_limits<double>::quiet_NaN());
    tensor = Tensor(storage.back().data(), DType::kF64, spec.dims);
  });
  if (testing::Test::HasFatalFailure()) return;
  ASSERT_EQ(storage.size(), tensors.size()) << "a tensor that Args lacks";

  Op::Reference(problem, args);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].empty()) continue;
    SCOPED_TRACE(outputs[i]);
    ExpectClose(storage[i],
                tensors[outputs[i]]["values"].get<std::vector<double>>());
  }
}

template <class Op>
class GoldenTest : public testing::Test {};

struct OpName {
  template <class Op>
  static std::string GetName(int) {
    return std::string(Op::kName);
  }
};
using GoldenOps =
    testing::Types<RmsNorm, LayerNorm, Gemm, Attention, AttentionDecode,
                   CausalConv1d, SelectiveScan, SsdScan, SelectiveScanStep,
                   SsdStep, Rope, Embedding, Activation>;
TYPED_TEST_SUITE(GoldenTest, GoldenOps, OpName);

TYPED_TEST(GoldenTest, ReferenceAgreesWithPyTorch) {
  const std::string path = absl::StrCat(SEQMARK_SOURCE_DIR, "/tests/golden/",
                                        TypeParam::kName, ".json");
  std::ifstream file(path);
  ASSERT_TRUE(file) << path << " is missing: tools/golden/make_golden.py";
  const Json golden = Json::parse(file);
  ASSERT_EQ(golden.at("operator"), std::string(TypeParam::kName));
  ASSERT_FALSE(golden.at("cases").empty());
  for (const Json& one : golden["cases"]) {
    SCOPED_TRACE(one.at("problem").dump());
    RunCase<TypeParam>(one);
  }
}

}  // namespace
}  // namespace seqmark
