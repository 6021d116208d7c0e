// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "models/config_parse.h"
#include "models/weight_list.h"

namespace seqmark {
namespace {

// Far more than any config, far less than a file given by mistake.
constexpr size_t kMaxConfigBytes = 16 << 20;
// More weights than this no machine holds; less, no sum of sizes overflows.
constexpr int64_t kMaxParameters = int64_t{1} << 42;

void ParseForm(FieldReader& r, ModelConfig& c) {
  if (!r.Has("model_type") && r.Has("d_model")) return ParseMambaSsm(r, c);
  const std::string type = r.String("model_type");
  if (!r.ok()) return;
  if (type == "qwen2" || type == "llama" || type == "nemotron" ||
      type == "phi3")
    return ParseDecoder(type, r, c);
  if (type == "gpt_neo") return ParseGptNeo(r, c);
  if (type == "mamba") return ParseMamba(r, c);
  if (type == "mamba2") return ParseMamba2(r, c);
  if (type == "nemotron_h") return ParseNemotronH(r, c);
  if (type == "falcon_h1") return ParseFalconH1(r, c);
  if (type == "zamba2") return ParseZamba2(r, c);
  if (type == "hymba") return ParseHymba(r, c);
  r.Wrong("model_type",
          "qwen2, llama, nemotron, phi3, gpt_neo, mamba, mamba2, nemotron_h, "
          "falcon_h1, zamba2 or hymba, or absent with mamba_ssm's d_model");
}

// Which layer `letter` needs and `c` does not describe, if any.
absl::string_view MissingLayer(const ModelConfig& c, char letter) {
  const bool shared = c.zamba2.blocks > 0;
  const bool parallel = c.format == CheckpointFormat::kHymba ||
                        c.attention.value_head_dim != c.attention.head_dim;
  const bool attention = c.attention.heads > 0;
  switch (letter) {
    case 'M':
      return c.ssm.version != 0 ? "" : "Mamba layer";
    case '*':
      return attention && !shared && !parallel ? "" : "attention layer";
    case '-':
      return c.mlp.intermediate > 0 ? "" : "MLP";
    case 'H':
      return attention && !shared && !parallel && c.ssm.version == 2
                 ? ""
                 : "attention with Mamba-2";
    case 'S':
      return shared ? "" : "shared block";
    case 'P':
      return attention && !shared && c.ssm.version == 1 &&
                     c.attention.heads * c.attention.value_head_dim ==
                         c.mamba1.d_inner
                 ? ""
                 : "attention with Mamba-1 of one inner width";
  }
  return "layer of that letter; letters are M, *, -, H, S and P";
}

absl::Status CheckPattern(const ModelConfig& c) {
  if (c.pattern.empty() || c.pattern.size() > 2 * kLayers.max)
    return absl::InvalidArgumentError(
        absl::StrCat(c.name, ": the pattern has ", c.pattern.size(),
                     " letters, must have 1 to ", 2 * kLayers.max));
  for (size_t i = 0; i < c.pattern.size(); ++i) {
    const absl::string_view missing = MissingLayer(c, c.pattern[i]);
    if (!missing.empty())
      return absl::InvalidArgumentError(
          absl::StrCat(c.name, ": letter ", i, " of the pattern is '",
                       absl::CHexEscape(c.pattern.substr(i, 1)),
                       "', but the config describes no ", missing));
  }
  const int64_t parameters = ParameterCount(c);
  if (parameters > kMaxParameters)
    return absl::InvalidArgumentError(
        absl::StrCat(c.name, ": these sizes make ", parameters,
                     " parameters, must be at most ", kMaxParameters));
  return absl::OkStatus();
}

}  // namespace

std::vector<SubLayer> SubLayers(const ModelConfig& config) {
  const AttentionConfig& a = config.attention;
  std::vector<SubLayer> layers;
  int64_t attention = 0, ssm = 0, mlp = 0, shared = 0;
  for (char kind : config.pattern) {
    SubLayer layer;
    layer.kind = kind;
    layer.index = layers.size();
    if (HasAttention(kind)) {
      layer.window = a.windows[attention];
      layer.kv_source = a.kv_source[attention];
      layer.attention = attention++;
    }
    if (HasSsm(kind)) layer.ssm = ssm++;
    if (kind == '-') layer.mlp = mlp++;
    if (kind == 'S') layer.shared_block = shared++ % config.zamba2.blocks;
    layers.push_back(layer);
  }
  return layers;
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text,
                                             absl::string_view name) {
  const auto invalid = [&](absl::string_view message) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", message));
  };
  if (json_text.size() > kMaxConfigBytes)
    return invalid(absl::StrCat("the config has ", json_text.size(),
                                " bytes, must have at most ", kMaxConfigBytes));
  const nlohmann::json json = ParseJson(json_text);
  if (!json.is_object())
    return invalid("the config is not JSON, must be one JSON object");
  ModelConfig config;
  config.name = std::string(name);
  absl::Status status;
  FieldReader reader(json, "", status);
  ParseForm(reader, config);
  if (!status.ok()) return invalid(status.message());
  status = CheckPattern(config);
  if (!status.ok()) return status;
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path file = path;
  if (fs::is_directory(file, error)) file /= "config.json";
  const auto size = fs::file_size(file, error);
  if (error)
    return absl::NotFoundError(
        absl::StrCat(file.string(), ": ", error.message(),
                     "; must be a config.json or a folder that holds one"));
  if (size > kMaxConfigBytes)
    return absl::InvalidArgumentError(absl::StrCat(file.string(), " has ", size,
                                                   " bytes, a config has at ",
                                                   "most ", kMaxConfigBytes));
  std::ifstream stream(file, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  if (!stream)
    return absl::NotFoundError(absl::StrCat(file.string(), " cannot be read"));
  const fs::path named = fs::absolute(file, error).lexically_normal();
  const std::string name = named.filename() == "config.json"
                               ? named.parent_path().filename().string()
                               : named.stem().string();
  return ParseModelConfig(text.str(), name);
}

absl::StatusOr<ModelConfig> WithPattern(const ModelConfig& config,
                                        absl::string_view pattern) {
  ModelConfig mix = config;
  mix.pattern = std::string(pattern);
  if (pattern != config.pattern) {
    if (config.format != CheckpointFormat::kBackbone ||
        mix.pattern.find_first_not_of("M*-") != std::string::npos)
      mix.format = CheckpointFormat::kNone;
    const int64_t layers =
        std::count_if(pattern.begin(), pattern.end(), HasAttention);
    const auto& known = config.attention.windows;
    std::vector<int64_t> windows(layers, 0);
    for (int64_t i = 0; i < layers && !known.empty(); ++i)
      windows[i] = known[i % known.size()];
    SetWindows(mix, std::move(windows));
  }
  if (const absl::Status status = CheckPattern(mix); !status.ok())
    return status;
  return mix;
}

}  // namespace seqmark
