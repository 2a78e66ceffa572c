#include "gradweave/ops/windows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"

namespace gradweave {

bool CompleteNumbers(Integers& numbers, size_t count, int64_t least, int64_t otherwise) {
  constexpr int64_t kMost = int64_t{1} << 31;
  if (numbers.empty()) numbers.assign(count, otherwise);
  bool fits = numbers.size() == count;
  for (int64_t number : numbers) fits = fits && number >= least && number < kMost;
  return fits;
}

Shape WithSpatial(const Shape& x, std::initializer_list<Dim> spatial) {
  Shape shape = {x[0], x[1]};
  for (const Dim& dim : spatial) shape.Append(dim);
  return shape;
}

std::optional<Windows> CompleteWindows(absl::string_view function, const Operand& x, Integers taps,
                                       const ConvNDOptions& options) {
  const size_t axes = static_cast<size_t>(std::max(x.rank() - 2, 0));
  Windows windows = {std::move(taps), options.stride, options.dilation, options.padding_low, options.padding_high};
  if (options.auto_padding != AutoPadding::kNone) windows.low = windows.high = {};
  if (axes < 1 || axes > 3 || windows.taps.size() != axes || !CompleteNumbers(windows.taps, axes, 1, 1) ||
      !CompleteNumbers(windows.stride, axes, 1, 1) || !CompleteNumbers(windows.dilation, axes, 1, 1) ||
      !CompleteNumbers(windows.low, axes, 0, 0) || !CompleteNumbers(windows.high, axes, 0, 0)) {
    BuilderError(function, {x},
                 "x has to be [batch, channels, 1 to 3 spatial axes], and each list of window sizes, strides and "
                 "dilations has to be one number of at least 1 for each of these axes, of padding at least 0");
    return std::nullopt;
  }
  const bool upper = options.auto_padding == AutoPadding::kSameUpper;
  if (!upper && options.auto_padding != AutoPadding::kSameLower) return windows;
  for (int axis = 0; axis < static_cast<int>(axes); ++axis) {
    const Dim& size = x.shape()[axis + 2];
    if (!size.is_known()) {
      BuilderError(function, {x}, "the padding of the same size depends on the sizes of x, which have to be known");
      return std::nullopt;
    }
    const int64_t stride = windows.stride[axis], steps = (size.size() + stride - 1) / stride;
    const int64_t total = std::max<int64_t>((steps - 1) * stride + windows.Reach(axis) - size.size(), 0);
    windows.low[axis] = upper ? total / 2 : total - total / 2;
    windows.high[axis] = total - windows.low[axis];
  }
  return windows;
}

}  // namespace gradweave
