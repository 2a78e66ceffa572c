// How variables start.
#ifndef GRADWEAVE_FRONTEND_INITIALIZERS_H_
#define GRADWEAVE_FRONTEND_INITIALIZERS_H_

#include <source_location>
#include <variant>

#include "gradweave/ops/scope.h"

namespace gradweave::nn {

// With fan_in and fan_out the number of connections of a unit to the layer before and after it: of a dense weight [in,
// out] these are its sizes, of a filter [o, c, h, w] they are c*h*w and o*h*w.

// Uniform in ±sqrt(6/(fan_in + fan_out)) (Glorot and Bengio, "Understanding the difficulty of training deep feedforward
// neural networks", 2010, formula 16).
struct XavierUniform {};
// Normal with variance 2/(fan_in + fan_out) (the same, formula 12).
struct XavierNormal {};
// Uniform in ±sqrt(6/fan_in) (He et al., "Delving deep into rectifiers", 2015, section 2.2).
struct KaimingUniform {};
// Normal with variance 2/fan_in (the same).
struct KaimingNormal {};
// The same number everywhere.
struct Constant {
  double value = 0;
};
// Uniform in [low, high).
struct Uniform {
  double low = -0.05, high = 0.05;
};
// Normal.
struct Normal {
  double mean = 0, standard_deviation = 0.05;
};

using Initializer = std::variant<XavierUniform, XavierNormal, KaimingUniform, KaimingNormal, Constant, Uniform, Normal>;

// A value of that dtype and shape, to be a variable's initial value. The shape is known; Xavier's and Kaiming's need
// two axes or four. Errors are recorded in the graph.
Value InitialValue(Scope& scope, const Initializer& initializer, DType dtype, const Shape& shape,
                   std::source_location location = std::source_location::current());

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_INITIALIZERS_H_
