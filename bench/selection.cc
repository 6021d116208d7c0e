// SPDX-License-Identifier: Apache-2.0
#include "bench/selection.h"

#include <regex.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace seqmark {
namespace {

template <class T>
bool Contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// A preset is data: for each device, what part of the sweeps it holds.
struct PresetPart {
  Preset preset;
  DeviceKind device;
  std::vector<absl::string_view> models;  // empty: all
  std::vector<DType> dtypes;
  std::vector<int64_t> seqlens;  // empty: all
  int64_t max_batch;
  // Of whole models: they take longer. Empty: none, unless `seqlens` is too.
  std::vector<int64_t> model_seqlens = {};
};

const std::vector<PresetPart>& PresetParts() {
  using enum DType;
  // The default tells the story in minutes: one model of each family and size
  // class, short to long. CPU rows stop where a call takes seconds.
  static const auto* const parts = new std::vector<PresetPart>{
      {Preset::kSmoke,
       DeviceKind::kCpu,
       {"qwen2.5-0.5b", "mamba-130m", "mamba2-130m"},
       {kBF16},
       {1024},
       1},
      {Preset::kSmoke,
       DeviceKind::kCuda,
       {"qwen2.5-0.5b", "mamba-130m", "mamba2-130m"},
       {kBF16},
       {1024},
       1},
      {Preset::kDefault,
       DeviceKind::kCpu,
       {"qwen2.5-0.5b", "mamba-130m", "mamba2-130m"},
       {kBF16},
       {1, 1024, 4096, 16384},
       1,
       {1024}},
      {Preset::kDefault,
       DeviceKind::kCuda,
       {"qwen2.5-1.5b", "mamba-790m", "mamba2-780m", "mamba2-8b"},
       {kBF16},
       {1, 1024, 4096, 16384, 65536},
       1,
       {1024, 8192, 65536}},
      {Preset::kFull, DeviceKind::kCpu, {}, {kBF16, kF16, kF32}, {}, INT64_MAX},
      {Preset::kFull,
       DeviceKind::kCuda,
       {},
       {kBF16, kF16, kF32},
       {},
       INT64_MAX},
  };
  return *parts;
}

bool IsWholeModel(const RowName& name) {
  return name.op == "prefill" || name.op == "decode" ||
         name.op == "max_context";
}

bool InPreset(Preset preset, const RowName& name) {
  for (const PresetPart& part : PresetParts()) {
    if (part.preset != preset || part.device != name.device) continue;
    const auto& seqlens =
        IsWholeModel(name) ? part.model_seqlens : part.seqlens;
    return (part.models.empty() || Contains(part.models, name.model())) &&
           Contains(part.dtypes, name.dtype) &&
           (part.seqlens.empty() ||
            (name.limit.empty() && Contains(seqlens, name.seqlen))) &&
           name.batch <= part.max_batch;
  }
  return false;
}

// Google Benchmark's filter: POSIX extended, a leading '-' negates.
class Filter {
 public:
  static absl::StatusOr<std::unique_ptr<Filter>> Make(absl::string_view text) {
    auto filter = std::unique_ptr<Filter>(new Filter());
    filter->negative_ = absl::ConsumePrefix(&text, "-");
    if (text == "all") text = ".";
    const std::string pattern(text);
    if (const int error =
            regcomp(&filter->regex_, pattern.c_str(), REG_EXTENDED | REG_NOSUB);
        error != 0) {
      char reason[256];
      regerror(error, &filter->regex_, reason, sizeof(reason));
      return absl::InvalidArgumentError(
          absl::StrCat("--benchmark_filter=", pattern, ": ", reason,
                       " (POSIX extended syntax: [0-9] rather than \\d)"));
    }
    filter->compiled_ = true;
    return filter;
  }
  ~Filter() {
    if (compiled_) regfree(&regex_);
  }
  bool Matches(const std::string& name) const {
    return (regexec(&regex_, name.c_str(), 0, nullptr, 0) == 0) != negative_;
  }

 private:
  Filter() = default;
  regex_t regex_{};
  bool compiled_ = false;
  bool negative_ = false;
};

// An NVIDIA driver's node, seen without loading it.
bool GpuIsThere() {
  return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

template <class Get>
absl::Status CheckKnown(absl::string_view flag,
                        const std::vector<std::string>& wanted,
                        const std::vector<std::unique_ptr<Row>>& rows,
                        Get get) {
  std::set<std::string> known;
  for (const auto& row : rows) known.insert(std::string(get(row->name())));
  for (const std::string& name : wanted)
    if (!known.contains(name))
      return absl::InvalidArgumentError(absl::StrCat(
          "--", flag, "=", name,
          ": there is no such name; known: ", absl::StrJoin(known, ", ")));
  return absl::OkStatus();
}

}  // namespace

std::string BenchmarkName(const RowName& name) {
  return absl::StrCat(name.ToString(), "/iterations:1/manual_time");
}

absl::StatusOr<std::vector<std::unique_ptr<Row>>> SelectRows(
    const Options& options) {
  std::vector<std::unique_ptr<Row>> rows =
      MakeRows(RowSet::kSweep, options.sweep);
  const auto model = [](const RowName& n) { return n.model(); };
  const auto provider = [](const RowName& n) {
    return absl::string_view(n.provider);
  };
  absl::Status known = CheckKnown("models", options.models, rows, model);
  known.Update(CheckKnown("providers", options.providers, rows, provider));
  if (!known.ok()) return known;
  std::vector<DeviceKind> devices = options.devices;
  if (devices.empty()) {
    devices.push_back(DeviceKind::kCpu);
    if (GpuIsThere()) devices.push_back(DeviceKind::kCuda);
  }
  auto filter = Filter::Make(
      options.benchmark.filter.empty() ? "." : options.benchmark.filter);
  if (!filter.ok()) return filter.status();
  const size_t all = rows.size();
  std::erase_if(rows, [&](const std::unique_ptr<Row>& row) {
    const RowName& n = row->name();
    return !Contains(devices, n.device) || !InPreset(options.preset, n) ||
           (!options.models.empty() &&
            !Contains(options.models, std::string(n.model()))) ||
           (!options.providers.empty() &&
            !Contains(options.providers, n.provider)) ||
           !(*filter)->Matches(BenchmarkName(n));
  });
  if (rows.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        "no row matches: of ", all, " rows none is left by",
        options.preset == Preset::kSmoke     ? " --preset=smoke"
        : options.preset == Preset::kDefault ? " --preset=default"
                                             : "",
        options.benchmark.filter.empty()
            ? ""
            : absl::StrCat(" --benchmark_filter=", options.benchmark.filter),
        " --devices=",
        absl::StrJoin(devices, ",",
                      [](std::string* out, DeviceKind kind) {
                        absl::StrAppend(out, Name(kind));
                      }),
        " and the sweep flags; --preset=full --benchmark_list_tests shows ",
        "every row"));
  return rows;
}

}  // namespace seqmark
