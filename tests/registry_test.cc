// SPDX-License-Identifier: Apache-2.0
//
// That every provider file of the tree is in the program with rows, and that
// the rows are well named and well described.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "fixtures/row.h"

namespace seqmark {
namespace {

using testing::Contains;
using testing::IsEmpty;
namespace fs = std::filesystem;

constexpr RowSet kSets[] = {RowSet::kSweep, RowSet::kTest};

const std::vector<std::unique_ptr<Row>>& Rows(RowSet set) {
  static auto* const rows =
      new std::map<RowSet, std::vector<std::unique_ptr<Row>>>();
  auto& of_set = (*rows)[set];
  if (of_set.empty()) of_set = MakeRows(set, {});
  return of_set;
}

std::string GroupName(absl::string_view op, absl::string_view provider,
                      DeviceKind device, DType dtype) {
  return absl::StrCat(op, "/", provider, "/", Name(device), "/", Name(dtype));
}

// Whole models: made of operators, by no file of their own.
bool IsModel(absl::string_view op) {
  return op == "prefill" || op == "decode" || op == "max_context";
}

// The stems that a provider's file may have, and where it runs. What is
// composed of other operators' calls runs where they do: a .cc and a .cu file.
const std::map<std::string, std::set<DeviceKind>> kStems = {
    {"onednn", {DeviceKind::kCpu}},
    {"highway", {DeviceKind::kCpu}},
    {"composed", {DeviceKind::kCpu, DeviceKind::kCuda}},
    {"cublaslt", {DeviceKind::kCuda}},
    {"cudnn", {DeviceKind::kCuda}},
    {"driver", {DeviceKind::kCuda}},
    {"native", {DeviceKind::kCuda}}};

// "<op>/<provider>" of every provider file whose device is compiled in.
std::set<std::string> ProviderFiles() {
  std::set<std::string> files;
  const fs::path ops = fs::path(SEQMARK_SOURCE_DIR) / "ops";
  for (const auto& entry : fs::recursive_directory_iterator(ops)) {
    const fs::path& path = entry.path();
    const auto stem = kStems.find(path.stem().string());
    if (stem == kStems.end()) continue;
    if (path.extension() != ".cc" && path.extension() != ".cu") continue;
#ifndef SEQMARK_HAVE_CUDA
    if (!stem->second.contains(DeviceKind::kCpu)) continue;
#endif
    files.insert(
        absl::StrCat(path.parent_path().filename().string(), "/", stem->first));
  }
  return files;
}

TEST(Registry, EveryProviderFileHasRows) {
  const std::set<std::string> files = ProviderFiles();
  ASSERT_THAT(files, Contains("rmsnorm/highway"));
  for (RowSet set : kSets) {
    std::set<std::string> with_rows;
    for (const auto& row : Rows(set))
      with_rows.insert(absl::StrCat(row->name().op, "/", row->name().provider));
    for (const std::string& file : files)
      EXPECT_THAT(with_rows, Contains(file))
          << "ops/" << file << ".{cc,cu} has no rows in the "
          << (set == RowSet::kSweep ? "sweep" : "tests");
  }
}

// A folder may hold an operator's decode or step form too, named after it.
TEST(Registry, EveryProviderIsNamedAsItsFile) {
  const std::set<std::string> files = ProviderFiles();
  const auto file_of = [&](absl::string_view op, absl::string_view provider) {
    return std::any_of(files.begin(), files.end(), [&](const auto& file) {
      const std::vector<absl::string_view> parts = absl::StrSplit(file, '/');
      return op.substr(0, parts[0].size()) == parts[0] && provider == parts[1];
    });
  };
  for (const auto& op : Operators())
    for (const ProviderInfo& provider : op->providers()) {
      SCOPED_TRACE(absl::StrCat(op->name(), "/", provider.name));
      if (IsModel(op->name())) {
        EXPECT_EQ(provider.name, "auto");
        continue;
      }
      const auto stem = kStems.find(std::string(provider.name));
      ASSERT_NE(stem, kStems.end());
      EXPECT_TRUE(stem->second.contains(provider.device));
      EXPECT_TRUE(file_of(op->name(), provider.name)) << "no such file";
    }
}

TEST(Registry, OperatorsAreRegisteredOnce) {
  std::set<std::string> seen;
  for (const auto& op : Operators()) {
    EXPECT_TRUE(seen.insert(std::string(op->name())).second) << op->name();
    std::set<std::string> providers;
    for (const ProviderInfo& provider : op->providers())
      EXPECT_TRUE(
          providers
              .insert(absl::StrCat(provider.name, "/", Name(provider.device)))
              .second)
          << op->name() << "/" << provider.name << " is registered twice";
  }
}

TEST(Registry, EveryDeclaredDTypeHasRows) {
  for (RowSet set : kSets) {
    std::set<std::string> groups;
    for (const auto& row : Rows(set)) {
      const RowName& n = row->name();
      groups.insert(GroupName(n.op, n.provider, n.device, n.dtype));
    }
    for (const auto& op : Operators()) {
      if (set == RowSet::kTest && IsModel(op->name())) continue;
      EXPECT_THAT(op->providers(), testing::Not(IsEmpty())) << op->name();
      for (const ProviderInfo& provider : op->providers()) {
        EXPECT_THAT(provider.dtypes, testing::Not(IsEmpty()))
            << op->name() << "/" << provider.name;
        for (DType dtype : provider.dtypes)
          EXPECT_THAT(groups, Contains(GroupName(op->name(), provider.name,
                                                 provider.device, dtype)))
              << (set == RowSet::kSweep ? "sweep" : "tests");
      }
    }
  }
}

TEST(Registry, NoNameTwice) {
  for (RowSet set : kSets) {
    std::set<std::string> seen;
    for (const auto& row : Rows(set)) {
      const std::string name = row->name().ToString();
      EXPECT_TRUE(seen.insert(name).second) << name;
    }
  }
}

TEST(Registry, NamesParseToThemselves) {
  for (RowSet set : kSets)
    for (const auto& row : Rows(set)) {
      const std::string name = row->name().ToString();
      const auto parsed = RowName::Parse(name);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(parsed->ToString(), name);
      EXPECT_EQ(
          std::tie(parsed->op, parsed->provider, parsed->shape, parsed->batch,
                   parsed->seqlen),
          std::tie(row->name().op, row->name().provider, row->name().shape,
                   row->name().batch, row->name().seqlen));
    }
}

// Filters are regular expressions in a shell: no character of a name may need
// quoting in either, but for the dot.
TEST(Registry, NamesNeedNoQuoting) {
  for (RowSet set : kSets)
    for (const auto& row : Rows(set)) {
      const std::string name = row->name().ToString();
      EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz"
                                       "GB"  // of GiB
                                       "0123456789_.:/-"),
                name.npos)
          << name;
    }
}

TEST(Registry, RowsAreSorted) {
  for (RowSet set : kSets) {
    const auto& rows = Rows(set);
    const auto key = [](const auto& row) {
      const RowName& n = row->name();
      return std::tie(n.op, n.provider, n.shape, n.dtype, n.device, n.batch,
                      n.seqlen, n.limit);
    };
    for (size_t i = 1; i < rows.size(); ++i)
      EXPECT_LT(key(rows[i - 1]), key(rows[i])) << rows[i]->name().ToString();
  }
}

TEST(Registry, SweepsAreOfKnownModels) {
  const std::set<std::string> models = {
      "qwen2.5-0.5b",        "qwen2.5-1.5b",   "llama-3.2-1b",
      "tinyllama-1.1b",      "phi-3-mini",     "gpt-neo-125m",
      "mamba-130m",          "mamba-370m",     "mamba-790m",
      "mamba-1.4b",          "mamba-2.8b",     "mamba2-130m",
      "mamba2-370m",         "mamba2-780m",    "mamba2-1.3b",
      "mamba2-2.7b",         "falcon-h1-0.5b", "falcon-h1-1.5b",
      "falcon-h1-1.5b-deep", "zamba2-1.2b",    "hymba-1.5b",
      "transformer-8b",      "mamba-8b",       "mamba2-8b",
      "mamba2-hybrid-8b"};
  for (const auto& row : Rows(RowSet::kSweep)) {
    if (row->name().shape.starts_with("custom")) continue;
    EXPECT_THAT(models, Contains(std::string(row->name().model())))
        << row->name().ToString();
  }
}

TEST(Registry, CostsAndBytesAreFiniteAndPositive) {
  for (RowSet set : kSets)
    for (const auto& row : Rows(set)) {
      SCOPED_TRACE(row->name().ToString());
      const Cost cost = row->cost();
      for (double part :
           {cost.matrix_flops, cost.vector_flops, cost.special_ops}) {
        EXPECT_TRUE(std::isfinite(part));
        EXPECT_GE(part, 0);
      }
      // A copy has no arithmetic, nor has rope of models without positions.
      const bool copies =
          row->name().op == "copy" ||
          row->name().shape.find("-rotary0") != std::string::npos;
      EXPECT_EQ(cost.flops() + cost.special_ops > 0, !copies);
      for (size_t bytes : {row->bytes_read(), row->bytes_written()}) {
        EXPECT_GT(bytes, 0u);
        EXPECT_LT(bytes, size_t{1} << 46);  // a negative extent is huge
      }
    }
}

TEST(Registry, RowsCountTheTokensOfACall) {
  const std::set<std::string> steps = {"attention_decode", "decode",
                                       "selective_scan_step", "ssd_step"};
  std::set<std::string> seen;
  for (const RowSet set : kSets)
    for (const auto& row : Rows(set)) {
      const RowName& name = row->name();
      const bool step = steps.contains(name.op);
      EXPECT_EQ(row->tokens(), name.batch * (step ? 1 : name.seqlen))
          << name.ToString();
      if (step) seen.insert(name.op);
    }
  EXPECT_EQ(seen, steps);
}

TEST(Registry, OverridesReplaceTheAxes) {
  const auto rows =
      MakeRows(RowSet::kSweep,
               {.dtypes = {DType::kF32}, .batches = {3, 5}, .seqlens = {777}});
  ASSERT_FALSE(rows.empty());
  std::set<int64_t> batches;
  for (const auto& row : rows) {
    EXPECT_EQ(row->name().dtype, DType::kF32);
    if (row->name().limit.empty()) {
      EXPECT_EQ(row->name().seqlen, 777);
    }
    batches.insert(row->name().batch);
  }
  EXPECT_THAT(batches, testing::ElementsAre(3, 5));
}

}  // namespace
}  // namespace seqmark
