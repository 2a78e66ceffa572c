// Dense layers, embeddings, dropout and changes of shape.
#ifndef GRADWEAVE_FRONTEND_BASIC_LAYERS_H_
#define GRADWEAVE_FRONTEND_BASIC_LAYERS_H_

#include <cstdint>

#include "gradweave/frontend/initializers.h"
#include "gradweave/frontend/layer.h"
#include "gradweave/graph/shape.h"

namespace gradweave::nn {

// x W + b along the last axis. Variables: weight [features of x, features], bias [features].
struct Dense {
  static constexpr const char* kKind = "dense";
  int64_t features = 0;  // Output features.
  bool bias = true;
  Initializer weight_initializer = XavierUniform{};
  Initializer bias_initializer = nn::Constant{0};
  Value Apply(const Context& context, Value x) const;
};

// Merges all axes but the first into one.
struct Flatten {
  static constexpr const char* kKind = "flatten";
  Value Apply(const Context& context, Value x) const;
};

// Keeps the first axis and the order of the elements, and gives the other axes this shape:
// Reshape{{64, 7, 7}}. One size may be -1; it is computed from the others.
struct Reshape {
  static constexpr const char* kKind = "reshape";
  Shape shape;
  Value Apply(const Context& context, Value x) const;
};

// In training, sets elements to zero with probability `rate` and scales the others
// (ops/normalization.h). Outside of training, returns its input.
struct Dropout {
  static constexpr const char* kKind = "dropout";
  double rate = 0.5;
  Value Apply(const Context& context, Value x) const;
};

// Looks up rows of a table by integer indices: [...] -> [..., features]. Variable: table
// [vocabulary, features].
struct Embedding {
  static constexpr const char* kKind = "embedding";
  int64_t vocabulary = 0;
  int64_t features = 0;
  DType dtype = kFloat32;
  Initializer initializer = nn::Normal{0, 1};
  Value Apply(const Context& context, Value x) const;
};

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_BASIC_LAYERS_H_
