// Initializers: distributions of the initial values of variables.
#ifndef GRADWEAVE_FRONTEND_INITIALIZERS_H_
#define GRADWEAVE_FRONTEND_INITIALIZERS_H_

#include <source_location>
#include <variant>

#include "gradweave/ops/scope.h"

namespace gradweave::nn {

// fan_in and fan_out are the numbers of connections of a unit to the previous and to the next
// layer. For a dense weight [in, out] they are in and out. For a filter [o, c, h, w] they are c*h*w
// and o*h*w.

// Uniform in ±sqrt(6/(fan_in + fan_out)) (Glorot and Bengio, "Understanding the difficulty of
// training deep feedforward neural networks", 2010, formula 16).
struct XavierUniform {};
// Normal with variance 2/(fan_in + fan_out) (ibid., formula 12).
struct XavierNormal {};
// Uniform in ±sqrt(6/fan_in) (He et al., "Delving deep into rectifiers", 2015, section 2.2).
struct KaimingUniform {};
// Normal with variance 2/fan_in (ibid.).
struct KaimingNormal {};
// The same number for every element.
struct Constant {
  double value = 0;
};
// Uniform in [low, high).
struct Uniform {
  double low = -0.05, high = 0.05;
};
// Normal with this mean and standard deviation.
struct Normal {
  double mean = 0, standard_deviation = 0.05;
};

using Initializer = std::variant<XavierUniform, XavierNormal, KaimingUniform, KaimingNormal, Constant, Uniform, Normal>;

// Returns the initial value of a variable with this dtype and shape. The shape must be known.
// Xavier and Kaiming initializers need two or four axes. Errors are recorded in the graph.
Value InitialValue(Scope& scope, const Initializer& initializer, DType dtype, const Shape& shape,
                   std::source_location location = std::source_location::current());

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_INITIALIZERS_H_
