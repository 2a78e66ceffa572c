// LeNet's layers, which the example, the benchmarks and the tests share.
#ifndef GRADWEAVE_EXAMPLES_LENET_LAYERS_H_
#define GRADWEAVE_EXAMPLES_LENET_LAYERS_H_

#include "gradweave/frontend/layers.h"

namespace examples {

// Classifies images float32[batch,1,28,28]; returns logits float32[batch,10].
inline gradweave::nn::Sequential LeNet() {
  namespace nn = gradweave::nn;
  return {nn::Conv2D{.channels = 6, .kernel = 5, .padding = 2},
          nn::Sigmoid{},
          nn::AvgPool2D{.pool = 2},
          nn::Conv2D{.channels = 16, .kernel = 5},
          nn::Sigmoid{},
          nn::AvgPool2D{.pool = 2},
          nn::Flatten{},
          nn::Dense{120},
          nn::Sigmoid{},
          nn::Dense{84},
          nn::Sigmoid{},
          nn::Dense{10}};
}

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_LENET_LAYERS_H_
