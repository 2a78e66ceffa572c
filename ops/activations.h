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
// x * HardSigmoid(x) (Howard et al., "Searching for MobileNetV3", 2019, section 5.2).
Value HardSwish(Operand x);
// x * tanh(log(1 + e^x)) (Misra, "Mish: a self regularized non-monotonic activation function",
// 2019).
Value Mish(Operand x);
// x where x > 0, else slope * x (He et al., "Delving deep into rectifiers", 2015, section 2.1). The
// slope broadcasts with x and has gradients. LeakyRelu takes the slope as a number.
Value PRelu(Operand x, Operand slope);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_ACTIVATIONS_H_
