#include "gradweave/ops/padding.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"

namespace gradweave {
namespace {

// The place in [0, size) of the element for each place, which may be below 0 or beyond.
Value Inside(const Value& place, const Operand& size, BorderMode mode) {
  switch (mode) {
    case BorderMode::kEdge:
      return Maximum(Minimum(place, size - 1), 0);
    case BorderMode::kWrap:
      return Mod(place, size);
    case BorderMode::kReflect:
      break;
  }
  // The mirror image repeats after this many places, which is at least 1 for a single element too.
  const Value period = Maximum((size - 1) * 2, 1), rest = Mod(place, period);
  return Minimum(rest, period - rest);
}

}  // namespace

Value PadBorder(Operand x, const BorderOptions& options) {
  if (!x.is_value()) return NeedsValue("PadBorder", x);
  const size_t rank = static_cast<size_t>(x.rank());
  if (options.low.size() != rank || options.high.size() != rank)
    return BuilderError("PadBorder", {x},
                        absl::StrCat("low and high have to be one number for each of ", rank, " axes"));
  const CallLocation location(x);
  Value y = x.value();
  for (int axis = 0; axis < x.rank(); ++axis) {
    const int64_t low = options.low[axis], high = options.high[axis];
    if (low == 0 && high == 0) continue;
    const Dim& size = x.shape()[axis];
    const Dim padded = size + Dim(low) + Dim(high);
    constexpr int64_t kMost = int64_t{1} << 48;
    if (size == Dim(0) || (padded.is_known() && padded.size() < 0) || std::max(low, high) > kMost ||
        std::min(low, high) < -kMost) {
      return BuilderError("PadBorder", {x},
                          absl::StrCat("axis ", axis, " has to have an element, and its padding ", low, " and ", high,
                                       " has to be at most 2^48 and remove no more than there is"));
    }
    // The size as a value: the formulas for places are the same for a known one.
    const Operand known = SizeOf(x.value(), axis);
    const Value place = RangeLike(x, padded) - low;
    y = Gather(y, Inside(place, ToValue(known, place), options.mode), axis);
  }
  return y;
}

}  // namespace gradweave
