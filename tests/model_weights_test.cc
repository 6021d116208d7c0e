// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints whose tensors are not the config's: each is refused with the
// tensor and what is wrong with it.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/changed_checkpoint.h"
#include "tests/golden_models.h"

namespace seqmark {
namespace {

class ModelWeights : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/seqmark_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Of a Llama whose tensor `change` has changed. Its weights are the only
  // thing that can be wrong.
  absl::Status Load(
      const std::function<void(nlohmann::json&, const std::string&)>& change,
      const std::string& tensor) {
    path_ = absl::StrCat(folder_, "/", ++copies_);
    WriteChangedCheckpoint(
        GoldenFolder("llama"), path_,
        [&](nlohmann::json& header) { change(header, tensor); });
    Golden golden = Golden::Read("llama");
    auto checkpoint = Checkpoint::Open(path_);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (!checkpoint.ok()) return checkpoint.status();
    golden.checkpoint = *std::move(checkpoint);
    auto device = *MakeCpuDevice({});
    const absl::Status status =
        RunModel(golden, DType::kF32, 64, LogitsOf::kLast, *device).status();
    EXPECT_EQ(device->memory().live, 0u);
    return status;
  }
  std::string folder_, path_;
  int copies_ = 0;
};

// Alone in its weight, or a part of one.
constexpr const char* kTensors[] = {"lm_head.weight",
                                    "model.layers.1.mlp.gate_proj.weight",
                                    "model.layers.0.self_attn.q_proj.weight"};

TEST_F(ModelWeights, ThatAreNotChangedLoad) {
  const absl::Status status =
      Load([](nlohmann::json&, const std::string&) {}, "");
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ModelWeights, AMissingTensorIsNamed) {
  for (const char* tensor : kTensors) {
    const absl::Status status = Load(Rename, tensor);
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_EQ(std::string(status.message()),
              absl::StrCat(path_, ": no tensor \"", tensor, "\""));
  }
}

TEST_F(ModelWeights, AWrongShapeIsSaidBesideTheRightOne) {
  const char* const shapes[] = {
      "is (40, 61); the config needs (61, 40)",
      "is (40, 72); the config needs (72, 40)",
      "is (40, 64); the config needs (64, 40)",
  };
  for (size_t i = 0; i < std::size(kTensors); ++i) {
    const absl::Status status = Load(Transpose, kTensors[i]);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(std::string(status.message()),
              absl::StrCat(path_, "/model.safetensors", ": tensor ",
                           kTensors[i], " ", shapes[i]));
  }
}

TEST_F(ModelWeights, AWrongDtypeIsSaidWithThoseThatAreRight) {
  for (const char* tensor : kTensors) {
    const absl::Status status = Load(CallIntegers, tensor);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(std::string(status.message()),
              absl::StrCat(path_, "/model.safetensors: tensor ", tensor,
                           " is I32; weights are BF16, F16 or F32"));
  }
}

}  // namespace
}  // namespace seqmark
