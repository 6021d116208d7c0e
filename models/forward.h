// SPDX-License-Identifier: Apache-2.0
//
// The forward pass of any ModelConfig as a list of operators' calls: a chunk of
// a prompt, or one token a sequence. Each sub-layer is
//
//   u, residual = norm(delta + residual);  delta = mixer(u)
//
// so that the addition to the residual stream is the next norm's, and the last
// is the final norm's. A layer kind is one file (models/layer_<kind>.cc), with
// one entry in the table of forward.cc.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "models/composer.h"
#include "models/config.h"
#include "models/layout.h"
#include "models/state.h"
#include "models/weights.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/gemm/gemm.h"
#include "ops/rmsnorm/rmsnorm.h"

namespace seqmark {

// What tensors live in while a pass is listed.
struct ForwardMemory {
  const Weights& weights;
  ModelState& state;
  Layout& activations;
  Tensor zeros;              // (1, 1, hidden), of the residual's dtype: zeros
  Tensor inverse_frequency;  // (rotary_dim / 2) f32, none without rotation
};

// One pass: `length` tokens of each sequence after `past` ones. Meta tokens
// count, and are the first of the first pass: whatever ids stand for them.
struct PassShape {
  DType dtype = DType::kBF16;
  int64_t batch = 1;
  int64_t length = 1;
  int64_t past = 0;
  bool step = false;  // one token: the operators of a decode step
};

// What a sub-layer begins from: u, or the norm that makes it, which a decode
// step may do in one call with the projection that reads it.
struct LayerInput {
  Tensor u;       // (batch, length, width)
  Tensor weight;  // of an RMSNorm that is still to be done; none: u is there
  Tensor x;       // u = norm(x + residual), and residual_out = x + residual
  Tensor residual, residual_out;  // optional
  int64_t groups = 1;
  double epsilon = 0;
};

// A norm that a sub-layer left to the next one: each row of what it made times
// 1 / sqrt(sum(squares) / width + epsilon).
struct RowScale {
  Tensor squares;  // (batch, length, parts) f32
  int64_t width = 0;
  double epsilon = 0;
};

class ForwardPass {
 public:
  ForwardPass(const ModelConfig& config, const PassShape& shape,
              ForwardMemory memory, Composer& composer)
      : config_(config),
        shape_(shape),
        memory_(std::move(memory)),
        composer_(composer) {}

  // tokens (batch, length) i32. Logits (batch, n, vocab) are of the last n
  // tokens; none at all are made if it has no data.
  absl::Status List(const Tensor& tokens, const Tensor& logits);

  // For the layers' files.
  const ModelConfig& config() const { return config_; }
  const PassShape& shape() const { return shape_; }
  ForwardMemory& memory() { return memory_; }
  Composer& composer() { return composer_; }

  // A temporary (batch, length, width); it lasts until the sub-layer's end.
  Tensor Temporary(int64_t width) {
    return memory_.activations.Place(shape_.dtype,
                                     {shape_.batch, shape_.length, width});
  }
  // Axes that every Problem has.
  template <class Problem>
  Problem Make() const {
    Problem problem;
    problem.shape = config_.name;
    problem.dtype = shape_.dtype;
    problem.batch = shape_.batch;
    problem.seqlen = shape_.length;
    return problem;
  }
  // y = x W^T with the weight of that name (".weight" and, if there is one,
  // ".bias" are appended), + addend if it has data.
  absl::Status Linear(const std::string& name, const Tensor& x, const Tensor& y,
                      const Tensor& addend = {}) {
    return Linear(OpClass::kGemm, memory_.weights.Find(name + ".weight"),
                  memory_.weights.Find(name + ".bias"), x, y, addend);
  }
  // y = norm(delta + residual) with the norm of that name; residual_out takes
  // the sum. delta is scaled first, if a scale has squares.
  absl::Status Norm(const std::string& name, const Tensor& delta,
                    const RowScale& scale, const Tensor& residual,
                    const Tensor& residual_out, const Tensor& y);
  // The same, where the sub-layer of a step may take it up.
  absl::StatusOr<LayerInput> LateNorm(
      const std::string& name, const Tensor& delta, const RowScale& scale,
      const Tensor& residual, const Tensor& residual_out, const Tensor& u);
  // Does the norm now, if that has not been done.
  absl::Status Finish(LayerInput& input);
  // y = u W^T, with the weight of that name.
  absl::Status Linear(const std::string& name, const LayerInput& input,
                      const Tensor& y) {
    Tensor none;
    return Linear(OpClass::kGemm, memory_.weights.Find(name + ".weight"),
                  memory_.weights.Find(name + ".bias"), input, y, {}, 0, none);
  }
  // The same, with a convolution over columns of y: from `first` on, as many
  // as `convolved` has, which becomes a slice of y where they lie there.
  absl::Status LinearAndConvolution(const std::string& name,
                                    const std::string& convolution,
                                    const SubLayer& layer,
                                    const LayerInput& input, const Tensor& y,
                                    int64_t first, Tensor& convolved);
  // x = norm(x) of a mixer's inside: always RMSNorm.
  absl::Status InnerNorm(const std::string& name, const Tensor& x);
  // (batch, n, width) to another, either with any strides of axes 0 and 1.
  absl::Status Copy(const Tensor& from, const Tensor& to);
  // "layers.<index>."
  static std::string Prefix(const SubLayer& layer) {
    return absl::StrCat("layers.", layer.index, ".");
  }

 private:
  absl::Status Linear(OpClass op_class, const Tensor& weight,
                      const Tensor& bias, const Tensor& x, const Tensor& y,
                      const Tensor& addend);
  absl::Status Linear(OpClass op_class, const Tensor& weight,
                      const Tensor& bias, const LayerInput& input,
                      const Tensor& y, const CausalConv1d::Args& convolution,
                      int64_t first, Tensor& convolved);
  absl::Status Convolve(const CausalConv1d::Args& args);
  absl::Status Embed(const Tensor& tokens, const Tensor& y);

  const ModelConfig& config_;
  const PassShape shape_;
  ForwardMemory memory_;
  Composer& composer_;
};

// The layers: from the input's u (batch, length, hidden) to delta, the same
// shape, which is what is added to the residual stream; + addend if it has
// data.
absl::Status AttentionLayer(ForwardPass& pass, const SubLayer& layer,
                            const LayerInput& input, const Tensor& delta,
                            const Tensor& addend = {});
absl::Status MlpLayer(ForwardPass& pass, const SubLayer& layer,
                      const LayerInput& input, const Tensor& delta);
// If `left` has squares, the layer leaves its last norm to who reads delta: it
// writes them, and what they are of.
absl::Status MambaLayer(ForwardPass& pass, const SubLayer& layer,
                        const LayerInput& input, const Tensor& delta,
                        RowScale* left = nullptr);
// Where such squares go: none in a pass that leaves no norm.
RowScale PlaceRowScale(ForwardPass& pass);
// Hymba's attention and Mamba-1 on one norm.
absl::Status HymbaLayer(ForwardPass& pass, const SubLayer& layer,
                        const Tensor& u, const Tensor& delta);
// Mamba-1 up to its gate: from u to y (batch, length, d_inner).
absl::Status Mamba1Scan(ForwardPass& pass, const SubLayer& layer,
                        const LayerInput& input, const Tensor& y);
// Attention proper: rotation, the cache, and softmax(q k^T) v, from a fused
// projection qkv (batch, length, q + k + v), q alone where another layer's keys
// are read, to o (batch, length, heads * value_head_dim).
absl::Status Attend(ForwardPass& pass, const SubLayer& layer, const Tensor& qkv,
                    const Tensor& o);
// y = act(x), x a fused gate and up if the model's MLP is gated.
absl::Status Activate(ForwardPass& pass, const Tensor& x, const Tensor& y);
// Zamba2's shared block, from the residual stream and the embedding to what is
// added to the Mamba layer's input.
absl::Status SharedBlock(ForwardPass& pass, const SubLayer& layer,
                         const Tensor& residual, const Tensor& embedding,
                         const Tensor& y);

}  // namespace seqmark
