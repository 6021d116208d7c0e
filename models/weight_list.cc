// SPDX-License-Identifier: Apache-2.0
#include "models/weight_list.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "models/checkpoint_names.h"

namespace seqmark {
namespace {

// Rows of a stored linear layer that become rows of a weight.
struct Part {
  std::string module;
  int64_t rows;
  double scale = 1;  // of the weight
  double bias_scale = 1;
  int64_t row_begin = 0;
  int64_t stored_rows = 0;  // 0: `rows`, the module is this part alone
};

// The parts as consecutive rows of one stored module.
std::vector<Part> Fused(const std::string& module, std::vector<Part> parts) {
  int64_t total = 0;
  for (Part& part : parts) {
    part.row_begin = total;
    total += part.rows;
  }
  for (Part& part : parts) {
    part.module = module;
    part.stored_rows = total;
  }
  return parts;
}

class Builder {
 public:
  Builder(const ModelConfig& config, DType dtype)
      : c_(config), dtype_(dtype), names_(NamesOf(config.format)) {}

  std::vector<WeightSpec> Build() {
    Model();
    int64_t number = -1;
    std::vector<std::string> first_use;  // of each shared block
    int64_t use = 0;
    for (const SubLayer& layer : SubLayers(c_)) {
      if (names_.layer_per_sub_layer || layer.kind != '-') ++number;
      to_ = absl::StrCat("layers.", layer.index, ".");
      from_ = absl::StrCat(names_.layers, number, ".");
      if (layer.kind == 'S') {
        if (static_cast<int64_t>(first_use.size()) == layer.shared_block) {
          first_use.push_back(from_ + "shared_transformer.");
          SharedBlock(layer.shared_block, first_use.back());
          to_ = absl::StrCat("layers.", layer.index, ".");
        }
        SharedUse(first_use[layer.shared_block], use++);
      }
      Layer(layer);
    }
    return std::move(specs_);
  }

 private:
  // One weight; `source` is its checkpoint tensor where that is all there is.
  void Add(const std::string& name, Dims dims, Role role, DType dtype,
           std::vector<WeightSource> sources) {
    if (c_.format == CheckpointFormat::kNone) sources.clear();
    specs_.push_back({name, std::move(dims), role, dtype, std::move(sources)});
  }
  void Tensor(const std::string& name, const Dims& dims, Role role,
              const std::string& source, double scale = 1) {
    Add(name, dims, role, dtype_,
        {{source, dims, 0, dims[0], Transform::kPlain, scale}});
  }
  void Parameter(const std::string& name, const Dims& dims, Role role,
                 const std::string& source,
                 Transform transform = Transform::kPlain) {
    Add(name, dims, role, DType::kF32, {{source, dims, 0, dims[0], transform}});
  }
  void Norm(const std::string& name, int64_t width, const std::string& source,
            double scale = 1) {
    const bool rms = c_.norm == NormKind::kRms;
    const Transform transform =
        c_.norm == NormKind::kLayer1p ? Transform::kPlusOne : Transform::kPlain;
    Add(name + ".weight", {width}, Role::kScale, dtype_,
        {{source + ".weight", {width}, 0, width, transform, scale}});
    if (!rms) Tensor(name + ".bias", {width}, Role::kBias, source + ".bias");
  }
  // Norms inside a mixer are RMSNorm in every model.
  void InnerNorm(const std::string& name, int64_t width,
                 const std::string& source) {
    Tensor(name + ".weight", {width}, Role::kScale, source + ".weight");
  }
  void Linear(const std::string& name, int64_t columns, bool bias,
              const std::vector<Part>& parts) {
    int64_t rows = 0;
    std::vector<WeightSource> weights, biases;
    for (const Part& part : parts) {
      const int64_t stored = part.stored_rows ? part.stored_rows : part.rows;
      weights.push_back({part.module + ".weight",
                         {stored, columns},
                         part.row_begin,
                         part.rows,
                         Transform::kPlain,
                         part.scale});
      biases.push_back({part.module + ".bias",
                        {stored},
                        part.row_begin,
                        part.rows,
                        Transform::kPlain,
                        part.bias_scale});
      rows += part.rows;
    }
    Add(name + ".weight", {rows, columns}, Role::kWeight, dtype_,
        std::move(weights));
    if (bias)
      Add(name + ".bias", {rows}, Role::kBias, dtype_, std::move(biases));
  }

  void Model();
  void Layer(const SubLayer& layer);
  void Attention(const SubLayer& layer);
  void Mlp();
  void Mamba1(const SubLayer& layer, const std::string& from);
  void Mamba2(const std::string& from);
  void SharedBlock(int64_t block, const std::string& from);
  void SharedUse(const std::string& block, int64_t use);
  std::vector<Part> QkvParts(bool own_kv) const;

  const ModelConfig& c_;
  const DType dtype_;
  const CheckpointNames& names_;
  std::vector<WeightSpec> specs_;
  std::string to_;    // prefix of the layer's canonical names
  std::string from_;  // prefix of its names in the checkpoint
};

void Builder::Model() {
  const Multipliers& m = c_.multipliers;
  Tensor("embedding", {c_.vocab, c_.hidden}, Role::kWeight,
         absl::StrCat(names_.embedding, ".weight"), m.embedding);
  if (c_.learned_positions)
    Tensor("position_embedding", {c_.max_position, c_.hidden}, Role::kWeight,
           "transformer.wpe.weight");
  if (c_.hymba.meta_tokens > 0)
    Tensor("meta_tokens", {c_.hymba.meta_tokens, c_.hidden}, Role::kWeight,
           "model.memory_tokens");
  // A tied head is the embedding with its multiplier: the final norm makes up
  // the difference.
  Norm("norm", c_.hidden, names_.final_norm,
       c_.tie_embeddings ? m.lm_head / m.embedding : 1);
  if (!c_.tie_embeddings)
    Tensor("lm_head", {c_.vocab, c_.hidden}, Role::kWeight, "lm_head.weight",
           m.lm_head);
}

void Builder::Layer(const SubLayer& layer) {
  const std::string deeper = layer.kind == 'S' ? "mamba_decoder." : "";
  const char* const norm = layer.kind == '-' ? names_.mlp_norm : names_.norm;
  Norm(to_ + "norm", c_.hidden, absl::StrCat(from_, deeper, norm ? norm : ""));
  if (layer.kind == '-') Mlp();
  if (HasAttention(layer.kind) && layer.kind != 'S') Attention(layer);
  if (!HasSsm(layer.kind)) return;
  const std::string mamba =
      absl::StrCat(from_, deeper, names_.mamba ? names_.mamba : "");
  if (layer.kind == 'P' || (layer.kind == 'M' && c_.ssm.version == 1))
    Mamba1(layer, mamba);
  else
    Mamba2(mamba);
}

std::vector<Part> Builder::QkvParts(bool own_kv) const {
  const AttentionConfig& a = c_.attention;
  const Multipliers& m = c_.multipliers;
  const double fold = a.score_scale * std::sqrt(a.head_dim);
  std::vector<Part> parts = {
      {"q_proj", a.heads * a.head_dim, fold * m.attention_in, fold}};
  if (own_kv) {
    parts.push_back(
        {"k_proj", a.kv_heads * a.head_dim, m.attention_in * m.key, m.key});
    parts.push_back({"v_proj", a.kv_heads * a.value_head_dim, m.attention_in});
  }
  return parts;
}

void Builder::Attention(const SubLayer& layer) {
  const AttentionConfig& a = c_.attention;
  const std::string name = to_ + "attention.";
  std::vector<Part> parts = QkvParts(layer.kv_source == layer.attention);
  if (layer.kind == 'P') {
    // Hymba's in_proj goes on with x and z.
    parts.push_back({"", 2 * c_.mamba1.d_inner});
    parts = Fused(from_ + "mamba.in_proj", std::move(parts));
    parts.pop_back();
  } else if (names_.fused_qkv) {
    parts = Fused(from_ + names_.fused_qkv, std::move(parts));
  } else {
    for (Part& part : parts)
      part.module = absl::StrCat(from_, names_.attention, part.module);
  }
  Linear(name + "qkv_proj", a.input_width, a.qkv_bias, parts);
  if (layer.kind == 'P') {
    InnerNorm(name + "norm", a.heads * a.value_head_dim,
              from_ + "mamba.pre_avg_layernorm1");
    return;
  }
  const double out = c_.multipliers.attention_out;
  Linear(name + "o_proj", a.heads * a.value_head_dim, a.o_bias,
         {{absl::StrCat(from_, names_.o_proj), c_.hidden, out, out}});
}

void Builder::Mlp() {
  const MlpConfig& mlp = c_.mlp;
  const Multipliers& m = c_.multipliers;
  std::vector<Part> parts;
  if (names_.fused_up && names_.up_before_gate) {
    parts = Fused(from_ + names_.fused_up,
                  {{"", mlp.intermediate}, {"", mlp.intermediate}});
    std::swap(parts[0], parts[1]);
  } else if (names_.fused_up) {
    parts = Fused(from_ + names_.fused_up,
                  {{"", mlp.intermediate}, {"", mlp.intermediate}});
  } else {
    if (mlp.gated)
      parts.push_back({absl::StrCat(from_, names_.gate ? names_.gate : ""),
                       mlp.intermediate, m.mlp_gate, m.mlp_gate});
    parts.push_back(
        {absl::StrCat(from_, names_.up ? names_.up : ""), mlp.intermediate});
  }
  Linear(to_ + "mlp.up_proj", c_.hidden, mlp.bias, parts);
  Linear(to_ + "mlp.down_proj", mlp.intermediate, mlp.bias,
         {{absl::StrCat(from_, names_.down ? names_.down : ""), c_.hidden,
           m.mlp_down, m.mlp_down}});
}

void Builder::Mamba1(const SubLayer& layer, const std::string& from) {
  const Mamba1Config& m = c_.mamba1;
  const std::string name = to_ + "mamba.";
  const std::string one = names_.parameter ? names_.parameter : "";
  std::vector<Part> in = {{"", 2 * m.d_inner}};
  if (layer.kind == 'P') {
    in = QkvParts(layer.kv_source == layer.attention);
    in.push_back({"", 2 * m.d_inner});
  }
  in = {Fused(from + "in_proj", std::move(in)).back()};
  Linear(name + "in_proj", c_.hidden, m.proj_bias, in);
  Add(name + "conv.weight", {m.d_inner, m.d_conv}, Role::kWeight, dtype_,
      {{from + "conv1d.weight", {m.d_inner, 1, m.d_conv}, 0, m.d_inner}});
  if (m.conv_bias)
    Tensor(name + "conv.bias", {m.d_inner}, Role::kBias, from + "conv1d.bias");
  const int64_t projected = m.dt_rank + 2 * m.d_state;
  Linear(name + "x_proj", m.d_inner, false,
         {{absl::StrCat(from, "x_proj", one), projected}});
  if (m.inner_norms) {
    InnerNorm(name + "dt_norm", m.dt_rank, from + "dt_layernorm");
    InnerNorm(name + "B_norm", m.d_state, from + "B_layernorm");
    InnerNorm(name + "C_norm", m.d_state, from + "C_layernorm");
  }
  const std::string dt = absl::StrCat(from, "dt_proj", one);
  Linear(name + "dt_proj", m.dt_rank, false, {{dt, m.d_inner}});
  Parameter(name + "dt_bias", {m.d_inner}, Role::kStepBias, dt + ".bias");
  Parameter(name + "A", {m.d_inner, m.d_state}, Role::kDecay,
            absl::StrCat(from, "A_log", one), Transform::kNegExp);
  Parameter(name + "D", {m.d_inner}, Role::kScale,
            absl::StrCat(from, "D", one));
  if (layer.kind != 'P') {
    Linear(name + "out_proj", m.d_inner, m.proj_bias,
           {{from + "out_proj", c_.hidden}});
    return;
  }
  InnerNorm(name + "norm", m.d_inner, from + "pre_avg_layernorm2");
  Linear(to_ + "out_proj", m.d_inner, m.proj_bias,
         {{from + "out_proj", c_.hidden, 0.5}});
}

void Builder::Mamba2(const std::string& from) {
  const Mamba2Config& m = c_.mamba2;
  const Multipliers& f = c_.multipliers;
  const std::string name = to_ + "mamba.";
  const int64_t states = m.groups * m.d_state;
  const auto part = [&](int64_t rows, double scale) {
    return Part{"", rows, f.ssm_in * scale, scale};
  };
  std::vector<Part> in = {part(m.d_inner(), f.ssm_z),
                          part(m.d_inner(), f.ssm_x), part(states, f.ssm_b),
                          part(states, f.ssm_c), part(m.heads, f.ssm_dt)};
  Linear(name + "in_proj", c_.hidden, m.proj_bias,
         Fused(from + "in_proj", std::move(in)));
  const int64_t channels = m.conv_channels();
  Add(name + "conv.weight", {channels, m.d_conv}, Role::kWeight, dtype_,
      {{from + "conv1d.weight", {channels, 1, m.d_conv}, 0, channels}});
  if (m.conv_bias)
    Tensor(name + "conv.bias", {channels}, Role::kBias, from + "conv1d.bias");
  Parameter(name + "dt_bias", {m.heads}, Role::kStepBias, from + "dt_bias");
  Parameter(name + "A", {m.heads}, Role::kHeadDecay, from + "A_log",
            Transform::kNegExp);
  Parameter(name + "D", {m.heads}, Role::kScale, from + "D");
  if (m.gated_norm) InnerNorm(name + "norm", m.d_inner(), from + "norm");
  Linear(name + "out_proj", m.d_inner(), m.proj_bias,
         {{from + "out_proj", c_.hidden, f.ssm_out, f.ssm_out}});
}

void Builder::SharedBlock(int64_t block, const std::string& from) {
  const AttentionConfig& a = c_.attention;
  const MlpConfig& mlp = c_.mlp;
  to_ = absl::StrCat("shared.", block, ".");
  InnerNorm(to_ + "norm", a.input_width, from + "input_layernorm");
  std::vector<Part> qkv = QkvParts(/*own_kv=*/true);
  for (Part& part : qkv)
    part.module = absl::StrCat(from, "self_attn.", part.module);
  Linear(to_ + "attention.qkv_proj", a.input_width, false, qkv);
  Linear(to_ + "attention.o_proj", a.heads * a.head_dim, false,
         {{from + "self_attn.o_proj", c_.hidden}});
  InnerNorm(to_ + "mlp_norm", c_.hidden, from + "pre_ff_layernorm");
  Linear(to_ + "mlp.up_proj", c_.hidden, mlp.bias,
         {{from + "feed_forward.gate_up_proj", 2 * mlp.intermediate}});
  Linear(to_ + "mlp.down_proj", mlp.intermediate, mlp.bias,
         {{from + "feed_forward.down_proj", c_.hidden}});
}

void Builder::SharedUse(const std::string& block, int64_t use) {
  const int64_t rank = c_.zamba2.adapter_rank;
  Linear(to_ + "linear", c_.hidden, false, {{from_ + "linear", c_.hidden}});
  const auto adapter = [&](absl::string_view module, int half) {
    return absl::StrCat(block, module, "_adapter_list.", use, ".", half);
  };
  if (c_.zamba2.attention_adapters) {
    std::vector<Part> down;
    for (const char* module : {"q", "k", "v"})
      down.push_back(
          {adapter(absl::StrCat("self_attn.linear_", module), 0), rank});
    Linear(to_ + "attention.adapter_down", c_.attention.input_width, false,
           down);
    for (Part& part : QkvParts(/*own_kv=*/true)) {
      const std::string one = part.module.substr(0, 1);  // q, k or v
      part.module = adapter(absl::StrCat("self_attn.linear_", one), 1);
      Linear(absl::StrCat(to_, "attention.adapter_up_", one), rank, false,
             {part});
    }
  }
  Linear(to_ + "mlp.adapter_down", c_.hidden, false,
         {{adapter("feed_forward.gate_up_proj", 0), rank}});
  Linear(to_ + "mlp.adapter_up", rank, false,
         {{adapter("feed_forward.gate_up_proj", 1), 2 * c_.mlp.intermediate}});
}

}  // namespace

std::vector<WeightSpec> WeightList(const ModelConfig& config, DType dtype) {
  return Builder(config, dtype).Build();
}

int64_t ParameterCount(const ModelConfig& config) {
  int64_t count = 0;
  for (const WeightSpec& weight : WeightList(config, DType::kF32))
    count += NumElements(weight.dims);
  return count;
}

}  // namespace seqmark
