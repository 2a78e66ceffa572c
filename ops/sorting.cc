#include "gradweave/ops/sorting.h"

#include <cmath>

#include "gradweave/graph/check.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {

void RegisterSortingOps(OpRegistry& registry) {
  registry.Add({
      .name = "ArgSort",
      .doc =
          "The places of the first elements in order along the last axis. Equal elements keep their order. NaN counts "
          "as the largest.",
      .operands = {{"x", "At least one axis.", kNumeric}},
      .attributes = {{"count", AttributeType::kShape, "[number of places], at most the size of the last axis."},
                     {"descending", AttributeType::kBool, "The largest element comes first.", false}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        Shape shape = op.shape(0);
        if (shape.rank() == 0) return op.Error("x needs at least one axis");
        const Shape& count = op.attribute<Shape>("count");
        Dim& size = shape[shape.rank() - 1];
        if (count.rank() != 1 || (count[0].is_known() && count[0].size() < 0) ||
            (count[0].is_known() && size.is_known() && count[0].size() > size.size())) {
          return op.Error("the count ", count.ToString(), " has to be one number from 0 to the size ", size.ToString(),
                          " of the last axis");
        }
        size = count[0];
        return TensorTypes{{kInt64, shape}};
      },
      .batch = [](const OpView& op, absl::Span<const BatchAxis> operands) -> absl::InlinedVector<BatchAxis, 2> {
        if (operands[0].kind == BatchAxis::kAxis && operands[0].axis == op.shape(0).rank() - 1)
          return {{BatchAxis::kMixed, 0}};
        return {operands[0]};
      },
      .flops =
          [](const OpView& op, absl::Span<const TensorType>) {
            const Shape& shape = op.shape(0);
            const double size = static_cast<double>(shape[shape.rank() - 1].size());
            return static_cast<double>(shape.num_elements().size()) * std::log2(size + 1);
          },
      .mixed_precision = MixedPrecision::kFollows,
  });
}

Value ArgSort(Operand x, const Dim& count, SortOptions options) {
  if (!x.is_value()) return NeedsValue("ArgSort", x);
  const int64_t axis = NormalizedAxis(options.axis, x.rank());
  if (axis < 0) return BuilderError("ArgSort", {x}, AxisError(x, options.axis));
  const CallLocation location(x);
  const Integers to_last = WithLast(x.rank(), axis);
  const bool is_last = axis == x.rank() - 1;
  const Value rows = is_last ? x.value() : Transpose(x, to_last);
  const Value indices = AddOp("ArgSort", {rows}, {{"count", Shape{count}}, {"descending", options.descending}});
  return is_last ? indices : Transpose(indices, to_last);
}

Value ArgSort(Operand x, SortOptions options) {
  if (!x.is_value()) return NeedsValue("ArgSort", x);
  const int64_t axis = NormalizedAxis(options.axis, x.rank());
  return ArgSort(x, axis < 0 ? Dim(0) : x.shape()[static_cast<int>(axis)], options);
}

SortResult Sort(Operand x, SortOptions options) {
  const Value indices = ArgSort(x, options);
  if (!indices.valid()) return {indices, indices};
  const CallLocation location(x);
  return {TakeAlong(x, indices, options.axis), indices};
}

}  // namespace gradweave
