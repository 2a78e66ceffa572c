// Products and convolutions of 8-bit integers, and conversions to and from them. A quantized number
// q stands for scale * (q - zero) (Jacob et al., "Quantization and training of neural networks for
// efficient integer-arithmetic-only inference", 2018, section 2.1). frontend/quantize.h makes
// quantized models. Errors are recorded in the graph; docs/ops.md lists the formulas.
#ifndef GRADWEAVE_OPS_QUANTIZED_H_
#define GRADWEAVE_OPS_QUANTIZED_H_

#include <cstdint>

#include "gradweave/ops/builder.h"
#include "gradweave/ops/conv.h"

namespace gradweave {

// The result of a quantized product or convolution.
struct QuantizedResult {
  DType dtype = kFloat32;  // float32, int8 or uint8.
  int64_t zero = 0;        // The integer that stands for 0; 0 for float32.
  bool relu = false;       // Makes negative sums 0.
};

// x [..., k] of int8 or uint8, weights [k, n] of int8, scale float32 [n], bias int32 [n] -> [...,
// n]. s = (x - x_zero) * weights + bias is an int32, which wraps around. v = s * scale, or its
// positive part, is a float32. The result is v, or the integer nearest to v, to even if two are
// equally near, plus result.zero, saturated. It has the same bits on every machine.
Value QuantizedMatMul(Operand x, Operand weights, Operand scale, Operand bias, int64_t x_zero,
                      QuantizedResult result = {});

// Convolves x [n, c, h, w] with a filter [o, c/groups, kh, kw] in the same way. scale and bias have
// shape [o], and padding stands for 0.
Value QuantizedConv2D(Operand x, Operand filter, Operand scale, Operand bias, int64_t x_zero,
                      Conv2DOptions options = {}, QuantizedResult result = {});

// Rounds x/scale to the nearest integer, to even if two are equally near, adds `zero` and
// saturates. x and scale are float32 or float64 and broadcast; dtype is int8 or uint8. NaN becomes
// 0.
Value Quantize(Operand x, Operand scale, int64_t zero, DType dtype);

// Returns scale * (q - zero) for integers q, in the dtype of the scale. Both broadcast.
Value Dequantize(Operand q, Operand scale, int64_t zero);

// Rounds x to numbers that integers in [low, high] stand for: scale * (clip(round(x/scale) + zero,
// low, high) - zero). Training through it makes a model robust against quantization. The gradient
// passes straight through the rounding, and is 0 where x is clipped (Bengio et al., "Estimating or
// propagating gradients through stochastic neurons", 2013); the scale gets none. x and scale have
// one floating dtype and broadcast.
Value FakeQuantize(Operand x, Operand scale, int64_t zero, int64_t low, int64_t high);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_QUANTIZED_H_
