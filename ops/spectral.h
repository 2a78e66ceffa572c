// Fourier transforms as products with constant matrices. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_SPECTRAL_H_
#define GRADWEAVE_OPS_SPECTRAL_H_

#include <cstdint>
#include <optional>

#include "gradweave/ops/builder.h"

namespace gradweave {

// Options of Dft. The transformed axis has a known size.
struct DftOptions {
  int64_t axis = -2;              // Not the last one. Negative axes count from the end.
  std::optional<int64_t> length;  // x is cut, or filled with zeros, to this length. At least 1.
  bool inverse = false;           // Negates the exponent, and divides by the length.
  bool onesided = false;          // Only the first length/2 + 1 numbers, which suffice for a real x. Not for inverse.
};
// Returns y[k] = sum over j of x[j] * e^(-2*pi*i*j*k/n) along the axis. The last axis of x has the
// real and the imaginary part, or only the real part; the result has both. The time is proportional
// to n^2 for each row of n elements. x is floating.
Value Dft(Operand x, const DftOptions& options = {});

struct StftOptions {
  int64_t frame_length = 0;  // At least 1, and at most the length of the signal.
  int64_t frame_step = 1;    // At least 1.
  bool onesided = true;
};
// Returns the transforms of frames of a signal [batch, length, 1 or 2]: [batch, frames, numbers,
// 2], with (length - frame_length)/frame_step + 1 frames. The length is known.
Value Stft(Operand signal, const StftOptions& options);
// The same with each frame multiplied by a window [frame_length] first.
Value Stft(Operand signal, Operand window, const StftOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SPECTRAL_H_
