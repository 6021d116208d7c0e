// SPDX-License-Identifier: Apache-2.0
//
// What a model remembers of the tokens before: keys and values of attention
// layers, the scans' states and the convolutions' last inputs. It is what grows
// (or does not) with the context.
#pragma once

#include <vector>

#include "models/config.h"
#include "models/layout.h"

namespace seqmark {

// A layer's state that a scan reads and writes anew: the new one goes to a
// spare place, and the old place becomes the spare of the layer after it.
class RotatingStates {
 public:
  void Place(int64_t layers, DType dtype, const Dims& dims, Layout& layout) {
    for (int64_t i = 0; i <= layers; ++i)
      places_.push_back(layout.Place(dtype, dims));
    for (int64_t i = 0; i < layers; ++i) place_of_.push_back(i);
    spare_ = layers;
  }
  const Tensor& now(int64_t layer) const { return places_[place_of_[layer]]; }
  // Where the layer's next state goes; `now` from here on.
  const Tensor& Next(int64_t layer) {
    std::swap(place_of_[layer], spare_);
    return now(layer);
  }

 private:
  std::vector<Tensor> places_;
  std::vector<int64_t> place_of_;
  int64_t spare_ = 0;
};

struct ModelState {
  // By attention sub-layer; those that read another's are views of it.
  std::vector<Tensor> keys;    // (batch, capacity, kv_heads, head_dim)
  std::vector<Tensor> values;  // (batch, capacity, kv_heads, value_head_dim)
  // By SSM sub-layer.
  RotatingStates conv;  // (batch, d_conv - 1, channels)
  RotatingStates ssm;   // (batch, d_inner, d_state) or
                        // (batch, heads, head_dim, d_state), f32
  // What was placed: of keys and values, those that layers share once, and of
  // the other two.
  size_t kv_bytes = 0, ssm_bytes = 0;

  // `capacity`: tokens that there is room for, besides meta tokens.
  static ModelState Place(const ModelConfig& config, DType dtype, int64_t batch,
                          int64_t capacity, Layout& layout);
};

}  // namespace seqmark
