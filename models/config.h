// SPDX-License-Identifier: Apache-2.0
//
// What a model is made of, read from the original's own config.json: Hugging
// Face's form for model_type qwen2, llama, nemotron, phi3, gpt_neo, mamba,
// mamba2, nemotron_h, falcon_h1, zamba2 and hymba, and mamba_ssm's form (no
// model_type; d_model, n_layer, ssm_cfg) for state-spaces checkpoints.
//
// A model is a sequence of sub-layers, each norm -> mixer -> added to the
// residual, written as a pattern of one letter each:
//
//   M  Mamba-1 or Mamba-2, by ssm.version
//   *  attention
//   -  MLP
//   H  Falcon-H1: Mamba-2 and attention on one norm, their outputs summed
//   S  Zamba2: shared attention and MLP block on concat(x, embedding), then
//      Mamba-2:  x + mamba(norm(x + linear(block(x))))
//   P  Hymba: attention and Mamba-1 on one norm; each output is normed, the
//      mean of the two is projected
//
// so Qwen2.5-0.5B is "*-" 24 times and the 8B hybrid is its published string.
// The 8B models of arXiv:2406.07887 use forms that exist: the Transformer is
// `nemotron` (LayerNorm-1p, RoPE on half of each head, squared ReLU), the
// Mamba is mamba_ssm's with d_state 128, Mamba-2 and the hybrid `nemotron_h`.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "models/rope.h"
#include "ops/activation/activation.h"

namespace seqmark {

enum class NormKind : uint8_t {
  kRms,
  kLayer,
  kLayer1p,  // LayerNorm that stores weight - 1; loading adds the 1
};

// How a checkpoint names its tensors (models/weight_list.h).
enum class CheckpointFormat : uint8_t {
  kNone,      // a made-up pattern: random weights only
  kLlama,     // model.layers.N.self_attn: qwen2, llama, nemotron
  kPhi3,      // as llama, with qkv and gate_up fused
  kGptNeo,    // transformer.h.N
  kBackbone,  // backbone.layers.N.mixer: mamba, mamba2, nemotron_h
  kMambaSsm,  // the same, as mamba_ssm writes it
  kFalconH1,
  kZamba2,
  kHymba,
};

struct AttentionConfig {
  int64_t heads = 0;  // 0: the model has no attention
  int64_t kv_heads = 0;
  int64_t head_dim = 0;        // of q and k
  int64_t value_head_dim = 0;  // of v and the output; differs in Hymba alone
  // The width that q, k and v are projected from: hidden, or 2 * hidden in
  // Zamba2's shared block.
  int64_t input_width = 0;
  bool qkv_bias = false;
  bool o_bias = false;
  // The scale that the model's definition puts on q . k. The weight list folds
  // score_scale * sqrt(head_dim) into q, so a forward pass always scales by
  // 1 / sqrt(head_dim).
  double score_scale = 0;
  // One entry per attention sub-layer (*, H, S, P), in order: position i sees
  // i - window < j <= i; 0 is the whole context.
  std::vector<int64_t> windows;
  // One entry per attention sub-layer: whose keys and values it reads, as an
  // index among attention sub-layers. Its own, but for Hymba's consumers.
  std::vector<int64_t> kv_source;
};

struct MlpConfig {
  int64_t intermediate = 0;  // 0: the model has no MLP
  ActivationFunction activation = ActivationFunction::kSilu;
  bool gated = false;  // activation(gate(x)) * up(x), else activation(up(x))
  bool bias = false;
};

struct SsmConfig {
  int version = 0;  // 1: mamba1, 2: mamba2, 0: the model has no SSM
};

// Gu and Dao 2023, arXiv:2312.00752.
struct Mamba1Config {
  int64_t d_inner = 0;
  int64_t d_state = 0;
  int64_t d_conv = 0;
  int64_t dt_rank = 0;
  bool conv_bias = true;
  bool proj_bias = false;    // of in_proj and out_proj
  bool inner_norms = false;  // Hymba: RMSNorm of dt (before dt_proj), B and C
};

// Dao and Gu 2024, arXiv:2405.21060.
struct Mamba2Config {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t groups = 0;
  int64_t d_state = 0;
  int64_t d_conv = 0;
  int64_t chunk = 0;  // of the published model; a kernel may choose another
  bool conv_bias = true;
  bool proj_bias = false;
  bool gated_norm = true;         // false: y * silu(z), no norm
  bool norm_before_gate = false;  // norm(y) * silu(z), else norm(y * silu(z))
  // The gated norm's mean square is over each of so many equal parts: groups,
  // but 1 in Transformers' mamba2.
  int64_t norm_groups = 1;
  double norm_epsilon = 1e-5;
  // softplus(dt + dt_bias) is clamped to [dt_min, dt_max]; infinity: no limit.
  double dt_min = 0;
  double dt_max = 0;

  int64_t d_inner() const { return heads * head_dim; }
  int64_t conv_channels() const { return d_inner() + 2 * groups * d_state; }
};

// Falcon-H1's constants. All are folded into weights (models/weight_list.h), a
// forward pass has none of them.
struct Multipliers {
  double embedding = 1;
  double lm_head = 1;
  double attention_in = 1;
  double attention_out = 1;
  double key = 1;
  double mlp_gate = 1;
  double mlp_down = 1;
  double ssm_in = 1;
  double ssm_out = 1;
  double ssm_z = 1, ssm_x = 1, ssm_b = 1, ssm_c = 1, ssm_dt = 1;
};

struct Zamba2Config {
  int64_t blocks = 0;        // shared blocks; the k-th S uses block k % blocks
  int64_t adapter_rank = 0;  // of the adapters on the MLP's gate and up
  bool attention_adapters = false;  // on q, k and v too
};

struct HymbaConfig {
  int64_t meta_tokens = 0;  // learned embeddings put before the prompt; every
                            // position sees them, whatever the window
};

struct ModelConfig {
  std::string name;
  CheckpointFormat format = CheckpointFormat::kNone;
  int64_t vocab = 0;  // as the model pads it
  int64_t hidden = 0;
  std::string pattern;
  NormKind norm = NormKind::kRms;
  double norm_epsilon = 1e-5;
  bool residual_in_f32 = false;    // the residual stream is f32 in every dtype
  bool tie_embeddings = false;     // lm_head is the embedding
  int64_t max_position = 0;        // that the model was made for; 0: no limit
  bool learned_positions = false;  // max_position rows, added to the embedding
  AttentionConfig attention;
  RopeConfig rope;
  MlpConfig mlp;
  SsmConfig ssm;
  Mamba1Config mamba1;
  Mamba2Config mamba2;
  Multipliers multipliers;
  Zamba2Config zamba2;
  HymbaConfig hymba;
};

// One letter of the pattern with its indices among its like.
struct SubLayer {
  char kind = 0;
  int64_t index = 0;          // in the pattern: layers.<index> of the weights
  int64_t attention = -1;     // among attention sub-layers (*HSP), else -1
  int64_t ssm = -1;           // among SSM sub-layers (MHSP), else -1
  int64_t mlp = -1;           // among MLPs (-), else -1
  int64_t window = 0;         // attention: see AttentionConfig::windows
  int64_t kv_source = -1;     // attention: see AttentionConfig::kv_source
  int64_t shared_block = -1;  // S: which shared block
};
std::vector<SubLayer> SubLayers(const ModelConfig& config);

inline bool HasAttention(char kind) {
  return kind == '*' || kind == 'H' || kind == 'S' || kind == 'P';
}
inline bool HasSsm(char kind) {
  return kind == 'M' || kind == 'H' || kind == 'S' || kind == 'P';
}

// `name` is the row's name for the model. Every field that is missing,
// mistyped, out of range or at odds with another is an InvalidArgumentError
// that names it.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text,
                                             absl::string_view name);

// The file, or `path`/config.json where path is a folder. The model is named
// after the folder that holds config.json, or after the file.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

// The same layers in another order and number, for sweeps of layer mixes. A
// letter whose layer the config does not describe is an error. Attention
// windows repeat in the config's order; no layer reads another's keys.
absl::StatusOr<ModelConfig> WithPattern(const ModelConfig& config,
                                        absl::string_view pattern);

// The zoo: (name, text of models/configs/<name>.json), in the order of names.
const std::vector<std::pair<std::string, std::string>>& EmbeddedConfigs();

}  // namespace seqmark
