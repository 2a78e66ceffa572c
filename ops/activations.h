// Activations composed of elementwise ops. x is float32 or float64; errors are recorded in the
// graph. Relu, Gelu, Sigmoid and others that are ops of their own are in ops/elementwise.h.
#ifndef GRADWEAVE_OPS_ACTIVATIONS_H_
#define GRADWEAVE_OPS_ACTIVATIONS_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// x * sigmoid(x), also called SiLU (Ramachandran et al., "Searching for activation functions",
// 2017).
Value Swish(Operand x);
// x/6 + 1/2, limited to [0, 1].
Value HardSigmoid(Operand x);
// slope * x + offset, limited to [0, 1]. Both numbers are finite.
Value HardSigmoid(Operand x, double slope, double offset);
// x * HardSigmoid(x) (Howard et al., "Searching for MobileNetV3", 2019, section 5.2).
Value HardSwish(Operand x);
// x * tanh(log(1 + e^x)) (Misra, "Mish: a self regularized non-monotonic activation function",
// 2019).
Value Mish(Operand x);
// x where x > 0, else slope * x (He et al., "Delving deep into rectifiers", 2015, section 2.1). The
// slope broadcasts with x and has gradients. LeakyRelu takes the slope as a number.
Value PRelu(Operand x, Operand slope);

// max(x, 0) + min(alpha * (e^(x/alpha) - 1), 0) (Barron, "Continuously differentiable exponential
// linear units", 2017). alpha is finite and above 0.
Value Celu(Operand x, double alpha = 1);
// scale * Elu(x, alpha) with any finite numbers. Selu(x) of ops/elementwise.h has the numbers of
// its paper.
Value Selu(Operand x, double alpha, double scale);
// x where x > threshold, else 0 (Konda et al., "Zero-bias autoencoders and the benefits of
// co-adapting features", 2014). The threshold is finite.
Value ThresholdedRelu(Operand x, double threshold = 1);
// x + bias where x < -threshold, x - bias where x > threshold, else 0. Both numbers are finite.
// With equal numbers, it moves x toward 0 (Donoho, "De-noising by soft-thresholding", 1995).
Value Shrink(Operand x, double threshold = 0.5, double bias = 0);
// x / (1 + |x|) (Bergstra et al., "Quadratic polynomials learn better image features", 2009).
Value Softsign(Operand x);
// log(sigmoid(x)), also for x far below 0.
Value LogSigmoid(Operand x);
// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), which approximates Gelu (Hendrycks and Gimpel,
// "Gaussian error linear units", 2016).
Value TanhGelu(Operand x);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_ACTIVATIONS_H_
