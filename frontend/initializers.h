// Initializers: distributions of the initial values of variables.
#ifndef GRADWEAVE_FRONTEND_INITIALIZERS_H_
#define GRADWEAVE_FRONTEND_INITIALIZERS_H_

#include <source_location>
#include <variant>

#include "gradweave/ops/scope.h"

namespace gradweave::nn {

// fan_in and fan_out are the numbers of connections of a unit to the previous and to the next
// layer. For a dense weight [in, out] they are in and out. For a filter with one to three spatial
// axes, such as [o, c, h, w], they are c*h*w and o*h*w. The filter of a transposed convolution, [c,
// o, h, w], is counted by the same rule, as in PyTorch: its fan_in is o*h*w.
enum class Fan { kIn, kOut };

// The activations whose gain is known.
enum class Activation { kLinear, kSigmoid, kTanh, kRelu, kLeakyRelu, kSelu };

// The factor of a weight's standard deviation that keeps the variance through this activation: 1
// for linear and sigmoid, 5/3 for tanh, sqrt(2) for relu (He et al., 2015, section 2.2), sqrt(2/(1
// + slope^2)) for leaky relu (ibid., formula 15), 3/4 for selu. These are PyTorch's numbers.
double Gain(Activation activation, double slope = 0.01);

// Uniform in ±sqrt(6/(fan_in + fan_out)) (Glorot and Bengio, "Understanding the difficulty of
// training deep feedforward neural networks", 2010, formula 16).
struct XavierUniform {};
// Normal with variance 2/(fan_in + fan_out) (ibid., formula 12).
struct XavierNormal {};
// Uniform in ±Gain(activation, slope) * sqrt(3/fan) (He et al., "Delving deep into rectifiers",
// 2015, section 2.2).
struct KaimingUniform {
  Fan fan = Fan::kIn;
  Activation activation = Activation::kRelu;
  double slope = 0.01;  // For kLeakyRelu.
};
// Normal with variance Gain(activation, slope)^2/fan (ibid.).
struct KaimingNormal {
  Fan fan = Fan::kIn;
  Activation activation = Activation::kRelu;
  double slope = 0.01;  // For kLeakyRelu.
};
// Uniform in ±sqrt(3/fan_in) (LeCun et al., "Efficient backprop", 1998, section 4.6).
struct LeCunUniform {};
// Normal with variance 1/fan_in (ibid.).
struct LeCunNormal {};
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
// This normal distribution, limited to two standard deviations from the mean. The result has 0.8796
// times the standard deviation.
struct TruncatedNormal {
  double mean = 0, standard_deviation = 0.05;
};
// gain times a random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al.,
// "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2014).
// All such matrices are equally likely. A variable with more axes is the matrix [first axis,
// product of the others].
struct Orthogonal {
  double gain = 1;
};
// gain times the matrix with ones on the main diagonal and zeros elsewhere. It may be oblong.
struct Identity {
  double gain = 1;
};

using Initializer = std::variant<XavierUniform, XavierNormal, KaimingUniform, KaimingNormal, Constant, Uniform, Normal,
                                 LeCunUniform, LeCunNormal, TruncatedNormal, Orthogonal, Identity>;

// Returns the initial value of a variable with this dtype and shape. Records an error in the graph
// if the shape is not known; for a random initializer of integers; for fewer than two axes in
// Orthogonal and initializers with fans, and for other than two axes in Identity; and if a number
// is not finite, a standard deviation is negative, or low is not below high.
Value InitialValue(Scope& scope, const Initializer& initializer, DType dtype, const Shape& shape,
                   std::source_location location = std::source_location::current());

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_INITIALIZERS_H_
