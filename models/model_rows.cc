// SPDX-License-Identifier: Apache-2.0
#include "models/model_rows.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "fixtures/row.h"
#include "models/max_context.h"

namespace seqmark {
namespace {

enum class Phase : uint8_t { kPrefill, kDecode, kMaxContext };

absl::string_view PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kPrefill:
      return "prefill";
    case Phase::kDecode:
      return "decode";
    case Phase::kMaxContext:
      break;
  }
  return "max_context";
}

struct KnownModel {
  ModelConfig config;
  std::string checkpoint;  // a folder; empty: random weights
};

// The zoo, parsed once, and what AddModel added.
std::map<std::string, KnownModel>& KnownModels() {
  static auto* const models = [] {
    auto* made = new std::map<std::string, KnownModel>();
    for (const auto& [name, text] : EmbeddedConfigs()) {
      auto config = ParseModelConfig(text, name);
      if (config.ok()) made->emplace(name, KnownModel{*std::move(config), ""});
    }
    return made;
  }();
  return *models;
}

ModelRowOptions& RowOptions() {
  static auto* const options = new ModelRowOptions();
  return *options;
}

// The row's provider: what was chosen, in characters that need no quoting.
std::string ProviderName() {
  const ProviderChoice& choice = RowOptions().providers;
  if (choice.empty()) return "auto";
  return absl::StrJoin(choice, "-", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.first, ".", entry.second);
  });
}

ModelShape ShapeOf(Phase phase, DType dtype, int64_t batch, int64_t seqlen) {
  const ModelRowOptions& options = RowOptions();
  ModelShape shape = {.dtype = dtype, .batch = batch};
  shape.chunk = options.prefill_chunk > 0
                    ? options.prefill_chunk
                    : std::max<int64_t>(1, kDefaultChunkTokens / batch);
  if (phase == Phase::kDecode) {
    shape.context = seqlen;
    shape.capacity = seqlen + 1;
  } else {
    shape.prompt = shape.capacity = seqlen;
    shape.logits = options.logits;
  }
  return shape;
}

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab, uint64_t seed) {
  std::vector<int32_t> tokens(count);
  uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
  for (int32_t& token : tokens) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    token = static_cast<int32_t>((x >> 11) % static_cast<uint64_t>(vocab));
  }
  return tokens;
}

class ModelInstance final : public RowInstance {
 public:
  static absl::StatusOr<std::unique_ptr<RowInstance>> Make(
      const KnownModel& known, const ModelShape& shape,
      const LongestPrompt& longest, uint64_t seed, Device& device) {
    auto instance = std::make_unique<ModelInstance>();
    if (longest.seqlen > 0) {
      instance->counters_["max_seqlen"] = static_cast<double>(longest.seqlen);
      instance->counters_["max_seqlen_is_cap"] = longest.is_cap ? 1 : 0;
    }
    if (!known.checkpoint.empty()) {
      auto checkpoint = Checkpoint::Open(known.checkpoint);
      if (!checkpoint.ok()) return checkpoint.status();
      instance->checkpoint_ = *std::move(checkpoint);
    }
    const auto start = std::chrono::steady_clock::now();
    auto model = Model::Make(known.config, shape, RowOptions().providers,
                             instance->checkpoint_.get(), seed, device);
    if (!model.ok()) return model.status();
    instance->model_ = *std::move(model);
    instance->plan_seconds_ =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    if (absl::Status s = instance->Start(known.config, shape, seed); !s.ok())
      return s;
    return instance;
  }

  std::map<std::string, double> counters() const override {
    std::map<std::string, double> counters = counters_;
    const ModelMemory& memory = model_->memory();
    counters["memory_weights"] = static_cast<double>(memory.weights);
    // Of a kind that the model has not: absent.
    if (memory.kv_state > 0)
      counters["memory_kv_state"] = static_cast<double>(memory.kv_state);
    if (memory.ssm_state > 0)
      counters["memory_ssm_state"] = static_cast<double>(memory.ssm_state);
    counters["memory_logits"] = static_cast<double>(memory.logits);
    counters["memory_activations"] = static_cast<double>(memory.activations);
    counters["memory_workspace"] = static_cast<double>(memory.workspace);
    return counters;
  }
  std::vector<RowPart> parts() const override {
    std::vector<RowPart> parts;
    for (const ModelPart& part : *parts_)
      parts.push_back({.name = part.name,
                       .op_class = std::string(Name(part.op_class)),
                       .launch = part.launch,
                       .flops = part.cost.flops(),
                       .bytes = part.bytes});
    return parts;
  }
  bool replayed_as_graph() const override { return decode_; }

  absl::StatusOr<std::vector<OutputError>> Verify() override {
    return absl::UnimplementedError(
        "a model has no reference of its own size; tests/models_test.cc checks "
        "every architecture against golden logits");
  }
  absl::StatusOr<Verification> VerifySample(const VerifyOptions&) override {
    auto bytes = RunAndReadOutputs();
    if (!bytes.ok()) return bytes.status();
    const DType dtype =
        (decode_ ? model_->step_logits() : model_->logits()).dtype;
    const size_t count = bytes->size() / SizeOf(dtype);
    OutputError error{.tensor = "logits", .ok = true};
    double least = HUGE_VAL, most = -HUGE_VAL;
    for (size_t i = 0; i < count && error.ok; ++i) {
      const double logit = LoadElement(dtype, bytes->data(), i);
      error.ok = std::isfinite(logit);
      least = std::min(least, logit);
      most = std::max(most, logit);
    }
    error.ok = error.ok && least < most;
    if (!error.ok) error.message = "logits are not finite, or all the same";
    return Verification{
        {std::move(error)}, "logits are finite, not against a reference", 0};
  }
  absl::StatusOr<std::string> RunAndReadOutputs() override {
    absl::Status status = launch_(device_->stream());
    status.Update(device_->Synchronize());
    const Tensor& logits = decode_ ? model_->step_logits() : model_->logits();
    std::string bytes(logits.bytes(), '\0');
    status.Update(device_->CopyToHost(bytes.data(), logits.data, bytes.size()));
    if (!status.ok()) return status;
    return bytes;
  }

 private:
  absl::Status Start(const ModelConfig& config, const ModelShape& shape,
                     uint64_t seed) {
    decode_ = shape.context >= 0;
    absl::Status status;
    if (decode_) {
      status = model_->FillState(seed);
      status.Update(
          model_->SetStepTokens(RandomTokens(shape.batch, config.vocab, seed)));
    } else {
      status = model_->SetPrompt(
          RandomTokens(shape.batch * shape.prompt, config.vocab, seed));
    }
    if (!status.ok()) return status;
    parts_ = decode_ ? &model_->step_parts() : &model_->prompt_parts();
    launch_ = InOrder(*parts_);
    device_ = &model_->device();
    return absl::OkStatus();
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Model> model_;
  const std::vector<ModelPart>* parts_ = nullptr;
  Device* device_ = nullptr;
  bool decode_ = false;
  std::map<std::string, double> counters_;
};

class ModelRow final : public Row {
 public:
  ModelRow(const KnownModel& known, Phase phase, DType dtype, DeviceKind device,
           int64_t batch, int64_t seqlen, size_t limit)
      : known_(known), phase_(phase), limit_(limit) {
    name_ = {.op = std::string(PhaseName(phase)),
             .provider = ProviderName(),
             .shape = known.config.name,
             .dtype = dtype,
             .device = device,
             .batch = batch,
             .seqlen = seqlen};
    if (phase == Phase::kMaxContext)
      name_.limit = absl::StrCat(limit >> 30, "GiB");
  }
  Cost cost() const override { return cost_of_row().cost; }
  size_t bytes_read() const override {
    return static_cast<size_t>(cost_of_row().bytes_read);
  }
  size_t bytes_written() const override {
    return static_cast<size_t>(cost_of_row().bytes_written);
  }
  double tokens() const override {
    return static_cast<double>(name_.batch) *
           (phase_ == Phase::kDecode ? 1.0 : static_cast<double>(seqlen()));
  }
  absl::StatusOr<std::unique_ptr<RowInstance>> Instantiate(
      Device& device, const InstanceOptions& options) const override {
    if (phase_ == Phase::kMaxContext) {
      const size_t allowed = device.memory_limit();
      const auto longest =
          MaxContext(known_.config, shape(), RowOptions().providers,
                     allowed > 0 ? std::min(limit_, allowed) : limit_, device);
      if (!longest.ok()) return longest.status();
      longest_ = *longest;
      has_cost_ = false;
    }
    return ModelInstance::Make(known_, shape(), longest_, options.seed, device);
  }

 private:
  // Of a max_context row only known once there was a device.
  int64_t seqlen() const {
    return longest_.seqlen > 0 ? longest_.seqlen : name_.seqlen;
  }
  ModelShape shape() const {
    return ShapeOf(phase_, name_.dtype, name_.batch, seqlen());
  }
  const ModelCost& cost_of_row() const {
    if (!has_cost_) {
      auto cost = Model::GetCost(known_.config, shape());
      if (cost.ok()) cost_ = *cost;
      has_cost_ = true;
    }
    return cost_;
  }

  const KnownModel& known_;
  const Phase phase_;
  const size_t limit_;
  mutable ModelCost cost_;
  mutable bool has_cost_ = false;
  mutable LongestPrompt longest_;
};

std::vector<int64_t> Lengths() {
  std::vector<int64_t> lengths = {57344};  // the papers' longest of all models
  for (int64_t l = 256; l <= 131072; l *= 2) lengths.push_back(l);
  return lengths;
}

class ModelEntry final : public OperatorEntry {
 public:
  explicit ModelEntry(Phase phase) : phase_(phase) {}
  absl::string_view name() const override { return PhaseName(phase_); }

  std::vector<ProviderInfo> providers() const override {
    using enum DType;
    return {
        {"auto", DeviceKind::kCpu, {kBF16, kF16, kF32}},
#ifdef SEQMARK_HAVE_CUDA
        {"auto", DeviceKind::kCuda, {kBF16, kF16, kF32}},
#endif
    };
  }

  void MakeRows(RowSet set, const SweepOverrides& overrides,
                std::vector<std::unique_ptr<Row>>& rows) const override {
    if (set == RowSet::kTest) return;  // tests/models_test.cc
    for (const auto& [name, known] : KnownModels())
      for (const ProviderInfo& provider : providers())
        for (DType dtype :
             overrides.dtypes.empty() ? provider.dtypes : overrides.dtypes)
          AddRows(known, dtype, provider.device, overrides, rows);
  }

  std::vector<std::string> CheckCosts() const override { return {}; }
  std::vector<std::string> CheckParts() const override { return {}; }

 private:
  void AddRows(const KnownModel& known, DType dtype, DeviceKind device,
               const SweepOverrides& overrides,
               std::vector<std::unique_ptr<Row>>& rows) const {
    const auto add = [&](int64_t batch, int64_t seqlen, size_t limit) {
      rows.push_back(std::make_unique<ModelRow>(known, phase_, dtype, device,
                                                batch, seqlen, limit));
    };
    std::vector<int64_t> batches = {1};
    if (absl::EndsWith(known.config.name, "-8b")) batches = {1, 8, 32};
    if (!overrides.batches.empty()) batches = overrides.batches;
    for (int64_t batch : batches) {
      if (phase_ == Phase::kMaxContext) {
        for (size_t gib : {8, 24}) add(batch, 1, gib << 30);
        continue;
      }
      for (int64_t seqlen :
           overrides.seqlens.empty() ? Lengths() : overrides.seqlens)
        add(batch, seqlen, 0);
    }
  }
  const Phase phase_;
};

const bool registered = [] {
  for (Phase phase : {Phase::kPrefill, Phase::kDecode, Phase::kMaxContext})
    RegisterOperator(std::make_unique<ModelEntry>(phase));
  return true;
}();

}  // namespace

void SetModelRowOptions(const ModelRowOptions& options) {
  RowOptions() = options;
}

absl::Status AddModel(const std::string& path, bool has_weights) {
  auto config = LoadModelConfig(path);
  if (!config.ok()) return config.status();
  if (KnownModels().contains(config->name))
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a model named ", config->name,
                     " is there already; rename the folder"));
  const std::string name = config->name;
  if (const size_t bad = name.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
      bad != std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": '", name, "' cannot stand in a row's name: letters, digits, ",
        "'_', '.' and '-' can"));
  KnownModels().emplace(
      name, KnownModel{*std::move(config), has_weights ? path : ""});
  return absl::OkStatus();
}

absl::StatusOr<ProviderChoice> ParseProviderChoice(const std::string& text) {
  ProviderChoice choice;
  for (absl::string_view part :
       absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const std::pair<std::string, std::string> entry =
        absl::StrSplit(part, absl::MaxSplits(':', 1));
    std::set<std::string> known;
    bool is_operator = false;
    for (const auto& op : Operators()) {
      if (op->name() != entry.first) continue;
      is_operator = true;
      for (const ProviderInfo& info : op->providers())
        known.insert(std::string(info.name));
    }
    if (!is_operator || !known.contains(entry.second))
      return absl::InvalidArgumentError(absl::StrCat(
          "--model_providers=", part, ": expected <operator>:<provider>",
          is_operator
              ? absl::StrCat(" with one of ", absl::StrJoin(known, ", "))
              : ", and there is no such operator"));
    choice[entry.first] = entry.second;
  }
  return choice;
}

}  // namespace seqmark
