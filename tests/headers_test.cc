// SPDX-License-Identifier: Apache-2.0
//
// Who may include what. That every header compiles alone is the object library
// seqmark_headers (tests/CMakeLists.txt), without which this does not build.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace seqmark {
namespace {

using testing::IsEmpty;
namespace fs = std::filesystem;

// What an #include line names, without its quotes.
std::optional<std::string> Included(absl::string_view line) {
  line = absl::StripLeadingAsciiWhitespace(line);
  if (!absl::ConsumePrefix(&line, "#")) return std::nullopt;
  line = absl::StripLeadingAsciiWhitespace(line);
  if (!absl::ConsumePrefix(&line, "include")) return std::nullopt;
  line = absl::StripLeadingAsciiWhitespace(line);
  if (line.empty() || (line[0] != '"' && line[0] != '<')) return std::nullopt;
  const size_t end = line.find(line[0] == '"' ? '"' : '>', 1);
  return std::string(line.substr(1, end - 1));
}

// An include of a header of CUDA or of one of its libraries, or of one of ours
// that is made of them.
bool IsCuda(absl::string_view header) {
  for (absl::string_view prefix : {"cuda", "cublas", "cudnn", "cub/", "cute/",
                                   "cutlass/", "cooperative_groups", "mma.h"})
    if (absl::StartsWith(header, prefix)) return true;
  return header == "fixtures/cuda.h" || absl::EndsWith(header, ".cuh");
}

bool MayIncludeCuda(const fs::path& file) {
  const std::string extension = file.extension(), stem = file.stem();
  if (extension == ".cu" || extension == ".cuh") return true;
  const std::string folder = *file.begin();
  if (folder == "fixtures")
    return file == "fixtures/cuda.h" || absl::EndsWith(stem, "_cuda");
  return folder == "ops" && extension == ".cc" &&
         (stem == "cublaslt" || stem == "cudnn");
}

// The folders that a folder's files may not include.
const std::map<std::string, std::vector<std::string>> kNotBelow = {
    {"fixtures", {"ops", "models", "bench", "tests"}},
    {"ops", {"models", "bench", "tests"}},
    {"models", {"bench", "tests"}},
    {"bench", {"tests"}},
    {"tests", {}}};

// What is wrong with `file` (relative to the root) including `header`, if
// anything is.
std::optional<std::string> Objection(const fs::path& file,
                                     const std::string& header) {
  if (IsCuda(header) && !MayIncludeCuda(file))
    return "host code includes a CUDA header";
  const std::string folder = *file.begin();
  if (header == "benchmark/benchmark.h" && folder != "bench")
    return "only bench/ includes Google Benchmark";
  for (const std::string& below : kNotBelow.at(folder))
    if (absl::StartsWith(header, below + "/"))
      return absl::StrCat(folder, "/ does not include ", below, "/");
  if (absl::StartsWith(header, ".")) return "includes are relative to the root";
  return std::nullopt;
}

struct Include {
  fs::path file;
  std::string header;
};

const std::vector<Include>& Includes() {
  static const auto* const includes = [] {
    auto* const found = new std::vector<Include>();
    const fs::path root = SEQMARK_SOURCE_DIR;
    for (const auto& [folder, unused] : kNotBelow) {
      if (!fs::exists(root / folder)) continue;
      for (const auto& entry :
           fs::recursive_directory_iterator(root / folder)) {
        const std::string extension = entry.path().extension();
        if (extension != ".h" && extension != ".cc" && extension != ".cu" &&
            extension != ".cuh")
          continue;
        std::ifstream text(entry.path());
        for (std::string line; std::getline(text, line);)
          if (auto header = Included(line))
            found->push_back(
                {fs::relative(entry.path(), root), *std::move(header)});
      }
    }
    return found;
  }();
  return *includes;
}

TEST(Headers, AreIncludedByThoseWhoMay) {
  EXPECT_GT(Includes().size(), 100u) << "in " << SEQMARK_SOURCE_DIR;
  std::vector<std::string> wrong;
  for (const auto& [file, header] : Includes())
    if (const auto objection = Objection(file, header))
      wrong.push_back(
          absl::StrCat(file.string(), ", ", header, ": ", *objection));
  EXPECT_THAT(wrong, IsEmpty());
}

TEST(Headers, ThatAreOursExist) {
  for (const auto& [file, header] : Includes())
    for (const auto& [folder, unused] : kNotBelow)
      EXPECT_TRUE(!absl::StartsWith(header, folder + "/") ||
                  fs::exists(fs::path(SEQMARK_SOURCE_DIR) / header))
          << file << " includes " << header;
}

TEST(Headers, IncludeLinesAreRead) {
  EXPECT_EQ(Included("#include <vector>"), "vector");
  EXPECT_EQ(Included("  #  include \"fixtures/row.h\"  // why"),
            "fixtures/row.h");
  for (const char* line : {"", "// #include <vector>", "#define X", "#include",
                           "#include X", "include <vector>"})
    EXPECT_EQ(Included(line), std::nullopt) << line;
}

TEST(Headers, WrongIncludesAreObjectedTo) {
  struct Case {
    const char* file;
    const char* header;
    bool wrong;
  };
  constexpr Case kCases[] = {
      {"fixtures/device.cc", "cuda_runtime.h", true},
      {"fixtures/device.cc", "fixtures/cuda.h", true},
      {"fixtures/cuda.h", "cuda_bf16.h", false},
      {"fixtures/device_cuda.cu", "cuda_runtime.h", false},
      {"fixtures/sampler_cuda.h", "cuda_runtime.h", false},
      {"ops/gemm/gemm.h", "cublasLt.h", true},
      {"ops/gemm/onednn.cc", "cuda_fp16.h", true},
      {"ops/gemm/cublaslt.cc", "cublasLt.h", false},
      {"ops/gemm/cublaslt.cc", "fixtures/cuda.h", false},
      {"ops/attention/cudnn.cc", "cudnn_frontend.h", false},
      {"ops/attention/cudnn.h", "cudnn.h", true},
      {"ops/ssd_scan/native.cu", "ops/ssd_scan/tile.cuh", false},
      {"ops/ssd_scan/highway.cc", "ops/ssd_scan/tile.cuh", true},
      {"bench/main.cc", "cuda_runtime.h", true},
      {"bench/main.cc", "benchmark/benchmark.h", false},
      {"tests/row_test.cc", "benchmark/benchmark.h", true},
      {"ops/gemm/gemm.cc", "benchmark/benchmark.h", true},
      {"fixtures/row.cc", "ops/shapes.h", true},
      {"fixtures/row.cc", "models/config.h", true},
      {"ops/gemm/gemm.cc", "models/config.h", true},
      {"ops/gemm/gemm.cc", "bench/flags.h", true},
      {"ops/gemm/gemm.cc", "fixtures/row.h", false},
      {"models/model.cc", "ops/shapes.h", false},
      {"models/model.cc", "bench/flags.h", true},
      {"bench/main.cc", "models/model.h", false},
      {"ops/gemm/gemm.cc", "../shapes.h", true},
  };
  for (const Case& c : kCases)
    EXPECT_EQ(Objection(c.file, c.header).has_value(), c.wrong)
        << c.file << " includes " << c.header;
}

}  // namespace
}  // namespace seqmark
