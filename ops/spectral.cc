#include "gradweave/ops/spectral.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {
namespace {

// The greatest number of elements of a transform's constant matrices.
constexpr int64_t kMostElements = int64_t{1} << 26;

bool HasComplexNumbers(const Operand& x, int least_rank) {
  return IsFloating(x.dtype()) && x.rank() >= least_rank &&
         (x.shape()[x.rank() - 1] == Dim(1) || x.shape()[x.rank() - 1] == Dim(2));
}

// The frames [batch, frames, length, parts] of a signal; not valid after an error.
Value FramesOf(const Operand& signal, const StftOptions& options) {
  const bool fits = HasComplexNumbers(signal, 3) && signal.rank() == 3 && signal.shape()[1].is_known();
  const int64_t length = fits ? signal.shape()[1].size() : 0;
  if (!fits || options.frame_step < 1 || options.frame_length < 1 || options.frame_length > length) {
    return BuilderError("Stft", {signal},
                        absl::StrCat("the signal has to be floating, [batch, length, 1 or 2] with a known length, the "
                                     "frames' length ",
                                     options.frame_length, " from 1 to that of the signal, and their step ",
                                     options.frame_step, " at least 1"));
  }
  const int64_t frames = (length - options.frame_length) / options.frame_step + 1;
  if (frames > kMostElements / options.frame_length) {
    return BuilderError("Stft", {signal},
                        absl::StrCat(frames, " frames of ", options.frame_length,
                                     " elements are too many; together they have to have at most 2^26 elements"));
  }
  std::vector<int64_t> places;
  for (int64_t frame = 0; frame < frames; ++frame) {
    for (int64_t i = 0; i < options.frame_length; ++i) places.push_back(frame * options.frame_step + i);
  }
  return Gather(signal, Numbers(signal, {frames, options.frame_length}, places), 1);
}

Value TransformOf(const Value& frames, const StftOptions& options) {
  return Dft(frames, {.axis = 2, .onesided = options.onesided});
}

}  // namespace

Value Dft(Operand x, const DftOptions& options) {
  if (!x.is_value()) return NeedsValue("Dft", x);
  const int last = x.rank() - 1;
  const int64_t axis = NormalizedAxis(options.axis, x.rank());
  if (axis < 0 || axis == last || !HasComplexNumbers(x, 2) || !x.shape()[static_cast<int>(axis)].is_known() ||
      (options.onesided && options.inverse)) {
    return BuilderError("Dft", {x},
                        absl::StrCat("x has to be floating, with a last axis of size 1 or 2 and a known size of axis ",
                                     options.axis, ", which is another one; an inverse is not onesided"));
  }
  const int64_t size = x.shape()[static_cast<int>(axis)].size(), n = options.length.value_or(size);
  const int64_t m = options.onesided ? n / 2 + 1 : n;
  if (n < 1 || n > kMostElements || m * n > kMostElements) {
    return BuilderError("Dft", {x},
                        absl::StrCat("the length is ", n,
                                     "; it has to be at least 1, and the matrix of the transform has "
                                     "to have at most 2^26 elements"));
  }
  const CallLocation location(x);
  Value rows = x.value();
  if (n < size) rows = SliceAxis(rows, axis, 0, n);
  if (n > size) {
    Shape none(std::vector<Dim>(x.rank(), Dim(0))), high = none;
    high[static_cast<int>(axis)] = Dim(n - size);
    rows = Pad(rows, {.low = none, .high = high});
  }
  // [..., n] for each part. The product j*k is taken modulo n, so that the angle is exact for large
  // ones.
  std::vector<double> cosines, sines;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t k = 0; k < m; ++k) {
      const double angle = 2 * M_PI * static_cast<double>(j * k % n) / static_cast<double>(n);
      cosines.push_back(std::cos(angle) / (options.inverse ? static_cast<double>(n) : 1));
      sines.push_back(std::sin(angle) / (options.inverse ? -static_cast<double>(n) : 1));
    }
  }
  const Value cosine = Numbers(x, {n, m}, cosines), sine = Numbers(x, {n, m}, sines);
  const Integers exchanged = WithLast(last, axis);
  auto part = [&](int64_t i) { return Transpose(Squeeze(SliceAxis(rows, last, i, i + 1), {last}), exchanged); };
  // e^(-it) = cos(t) - i*sin(t).
  const Value real = part(0);
  Value result_real = MatMul(real, cosine), result_imaginary = Neg(MatMul(real, sine));
  if (x.shape()[last] == Dim(2)) {
    const Value imaginary = part(1);
    result_real = result_real + MatMul(imaginary, sine);
    result_imaginary = result_imaginary + MatMul(imaginary, cosine);
  }
  auto back = [&](const Value& value) { return ExpandDims(Transpose(value, exchanged), {last}); };
  return Concat({back(result_real), back(result_imaginary)}, last);
}

Value Stft(Operand signal, const StftOptions& options) {
  if (!signal.is_value()) return NeedsValue("Stft", signal);
  const CallLocation location(signal);
  const Value frames = FramesOf(signal, options);
  return frames.valid() ? TransformOf(frames, options) : frames;
}

Value Stft(Operand signal, Operand window, const StftOptions& options) {
  if (!signal.is_value()) return NeedsValue("Stft", signal);
  if (!window.is_value()) return NeedsValue("Stft", window);
  const CallLocation location(signal);
  const Value frames = FramesOf(signal, options);
  if (!frames.valid()) return frames;
  if (!(window.shape() == Shape{options.frame_length}) || window.dtype() != signal.dtype()) {
    return BuilderError(
        "Stft", {signal, window},
        absl::StrCat("the window has to be ", DTypeName(signal.dtype()), "[", options.frame_length, "]"));
  }
  return TransformOf(frames * ExpandDims(window, {1}), options);
}

}  // namespace gradweave
