#include "gradweave/ops/pool.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

constexpr const char* kSides[] = {"height", "width"};

// Returns the shape of the result, [n, c, oh, ow].
absl::StatusOr<Shape> PooledShape(const OpView& op, const Shape& x) {
  const Integers& window = op.attribute<Integers>("window");
  const Integers& stride = op.attribute<Integers>("stride");
  const Integers& padding = op.attribute<Integers>("padding");
  if (x.rank() != 4) return op.Error("x has to be [batch, channels, height, width], and has shape ", x.ToString());
  if (window.size() != 2 || window[0] < 1 || window[1] < 1)
    return op.Error("the window has to be two numbers of at least 1, for height and width");
  if (stride.size() != 2 || stride[0] < 1 || stride[1] < 1)
    return op.Error("the stride has to be two numbers of at least 1, for height and width");
  if (padding.size() != 4) return op.Error("the padding has to be four numbers: top, bottom, left, right");
  // Sums and products of these numbers and the sizes cannot overflow.
  if (std::max({window[0], window[1], stride[0], stride[1]}) >= int64_t{1} << 31) {
    return op.Error("window and stride have to be below 2^31");
  }
  Shape result = {x[0], x[1]};
  for (int side = 0; side < 2; ++side) {
    for (int64_t amount : {padding[2 * side], padding[2 * side + 1]}) {
      if (amount < 0 || amount >= window[side]) {
        return op.Error("the padding ", amount, " of the ", kSides[side], " has to be in [0, ", window[side],
                        "), below the window");
      }
    }
    const Dim padded = x[2 + side] + Dim(padding[2 * side]) + Dim(padding[2 * side + 1]);
    if (padded.is_known() && padded.size() < window[side]) {
      return op.Error("the window's ", kSides[side], " is ", window[side], ", and x with its padding has ",
                      padded.ToString());
    }
    result.Append(FloorDivide(padded - Dim(window[side]), stride[side]) + Dim(1));
  }
  return result;
}

std::vector<AttributeDefinition> PoolAttributes() {
  return {{"window", AttributeType::kIntegers, "Height, width; at least 1."},
          {"stride", AttributeType::kIntegers, "Height, width; at least 1."},
          {"padding", AttributeType::kIntegers, "Top, bottom, left, right; at least 0 and below the window.",
           Integers{0, 0, 0, 0}}};
}

std::vector<AttributeDefinition> AvgPoolAttributes() {
  std::vector<AttributeDefinition> attributes = PoolAttributes();
  attributes.push_back(
      {"count_padding", AttributeType::kBool, "Divides by the size of the window, padding included.", false});
  return attributes;
}

AttributeDefinition InputShape() {
  return {"input_shape", AttributeType::kShape, "Shape of the pooled tensor, [n, c, h, w]."};
}

Value AddAvgPool(const Operand& x, const Node& like) {
  return AddOp("AvgPool2D", {x},
               {{"window", like.attribute<Integers>("window")},
                {"stride", like.attribute<Integers>("stride")},
                {"padding", like.attribute<Integers>("padding")},
                {"count_padding", like.attribute<bool>("count_padding")}});
}

Value AddAvgPoolGrad(const Operand& dy, const Shape& input_shape, const Node& like) {
  return AddOp("AvgPool2DGrad", {dy},
               {{"window", like.attribute<Integers>("window")},
                {"stride", like.attribute<Integers>("stride")},
                {"padding", like.attribute<Integers>("padding")},
                {"count_padding", like.attribute<bool>("count_padding")},
                {"input_shape", input_shape}});
}

// Pooling treats each image and channel separately, so either of the first two axes may be the
// batch.
BatchAxes ImagesAlone(absl::Span<const BatchAxis> operands, int outputs) {
  BatchAxis result = operands[0];
  for (const BatchAxis& operand : operands) {
    if (!(operand == result)) result = {BatchAxis::kMixed, 0};
  }
  if (result.kind == BatchAxis::kAxis && result.axis > 1) result = {BatchAxis::kMixed, 0};
  return BatchAxes(outputs, result);
}
BatchAxes OneOutputBatch(const OpView&, absl::Span<const BatchAxis> operands) { return ImagesAlone(operands, 1); }

// int32 indices count the elements of an image, and each window has to have one.
absl::Status CheckArea(const OpView& op) {
  const Dim &height = op.shape(0)[2], &width = op.shape(0)[3], area = height * width;
  if (area.is_known() && (area.size() == 0 || area.size() > int64_t{1} << 31)) {
    return op.Error("an image of x has ", height.ToString(), " x ", width.ToString(),
                    " elements and has to have at least 1 and at most 2^31: int32 indices count them");
  }
  return absl::OkStatus();
}

double WindowFlops(const OpView& op, const Shape& pooled) {
  const Integers& window = op.attribute<Integers>("window");
  return static_cast<double>(pooled.num_elements().size()) * window[0] * window[1];
}

Pool2DOptions WithDefaults(Pool2DOptions options) {
  if (options.stride.empty()) options.stride = options.window;
  if (options.padding.size() == 2) {
    options.padding = {options.padding[0], options.padding[0], options.padding[1], options.padding[1]};
  }
  return options;
}

}  // namespace

void RegisterPoolOps(OpRegistry& registry) {
  registry.Add({
      .name = "AvgPool2D",
      .doc = "The mean of each window: y[n,c,i,j] = the sum of x over the window at (i*stride - top, j*stride - left), "
             "divided by the number of window elements inside x. With count_padding, the divisor is the size of the "
             "window.",
      .operands = {{"x", "[n, c, h, w].", kFloating}},
      .attributes = AvgPoolAttributes(),
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_ASSIGN_OR_RETURN(Shape shape, PooledShape(op, op.shape(0)));
        return TensorTypes{{op.dtype(0), std::move(shape)}};
      },
      .gradient =
          [](GradientContext& g) { g.Set(0, AddAvgPoolGrad(g.output_gradient(), g.operand(0).shape(), g.node())); },
      .batch = OneOutputBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType> outputs) { return WindowFlops(op, outputs[0].shape); },
      .kind = OpKind::kAvgPool2D,
      .mixed_precision = MixedPrecision::kFollows,
  });

  std::vector<AttributeDefinition> attributes = AvgPoolAttributes();
  attributes.push_back(InputShape());
  registry.Add({
      .name = "AvgPool2DGrad",
      .doc = "The gradient of AvgPool2D: adds each dy, divided by AvgPool2D's divisor, to all elements of its window.",
      .operands = {{"dy", "[n, c, oh, ow].", kFloating}},
      .attributes = attributes,
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const Shape& shape = op.attribute<Shape>("input_shape");
        GW_ASSIGN_OR_RETURN(Shape expected, PooledShape(op, shape));
        if (!(expected == op.shape(0))) return op.Error("dy has to have shape ", expected.ToString());
        return TensorTypes{{op.dtype(0), shape}};
      },
      .gradient = [](GradientContext& g) { g.Set(0, AddAvgPool(g.output_gradient(), g.node())); },
      .batch = OneOutputBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return WindowFlops(op, op.shape(0)); },
      .kind = OpKind::kAvgPool2DGrad,
      .mixed_precision = MixedPrecision::kFollows,
  });

  registry.Add({
      .name = "QuantizedMaxPool2D",
      .doc = "The largest element of each window of quantized numbers. Padding never counts.",
      .operands = {{"x", "[n, c, h, w].", {kInt8, kUint8}}},
      .attributes = PoolAttributes(),
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_ASSIGN_OR_RETURN(Shape shape, PooledShape(op, op.shape(0)));
        GW_RETURN_IF_ERROR(CheckArea(op));
        return TensorTypes{{op.dtype(0), std::move(shape)}};
      },
      .batch = OneOutputBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType> outputs) { return WindowFlops(op, outputs[0].shape); },
  });

  registry.Add({
      .name = "MaxPool2D",
      .doc = "The largest element of each window, and its index y*w + x in its image. Of several equal elements, the "
             "first one counts. NaN counts as the largest; padding never counts.",
      .operands = {{"x", "[n, c, h, w].", kFloating}},
      .attributes = PoolAttributes(),
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_ASSIGN_OR_RETURN(Shape shape, PooledShape(op, op.shape(0)));
        GW_RETURN_IF_ERROR(CheckArea(op));
        return TensorTypes{{op.dtype(0), shape}, {kInt32, shape}};
      },
      .gradient =
          [](GradientContext& g) {
            g.Set(0, AddOp("MaxUnpool2D", {g.output_gradient(), g.output(1)}, {{"input_shape", g.operand(0).shape()}}));
          },
      .batch = [](const OpView&, absl::Span<const BatchAxis> operands) { return ImagesAlone(operands, 2); },
      .flops = [](const OpView& op, absl::Span<const TensorType> outputs) { return WindowFlops(op, outputs[0].shape); },
      .kind = OpKind::kMaxPool2D,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "MaxUnpool2D",
      .doc = "Zeros, with each dy added at its index in its image: the gradient of MaxPool2D. An index outside of the "
             "image fails the run.",
      .operands = {{"dy", "[n, c, oh, ow].", kFloating},
                   {"indices", "Same shape as dy; the second output of MaxPool2D.", DTypeSet{kInt32}}},
      .attributes = {InputShape()},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const Shape& shape = op.attribute<Shape>("input_shape");
        if (op.shape(0).rank() != 4 || shape.rank() != 4 || !(op.shape(0) == op.shape(1)) ||
            !(shape[0] == op.shape(0)[0]) || !(shape[1] == op.shape(0)[1])) {
          return op.Error("dy and indices have to be [n, c, oh, ow], and the input shape, ", shape.ToString(),
                          ", [n, c, h, w]");
        }
        return TensorTypes{{op.dtype(0), shape}};
      },
      .gradient =
          [](GradientContext& g) {
            g.Set(0, AddOp("MaxPool2DGather", {g.output_gradient(), g.operand(1)}));
          },
      .batch = OneOutputBatch,
      .flops = [](const OpView& op,
                  absl::Span<const TensorType>) { return static_cast<double>(op.shape(0).num_elements().size()); },
      .kind = OpKind::kMaxUnpool2D,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "MaxPool2DGather",
      .doc = "The elements of x at the indices in their images: the gradient of MaxUnpool2D. An index outside of the "
             "image fails the run.",
      .operands = {{"x", "[n, c, h, w].", kFloating},
                   {"indices", "[n, c, oh, ow], the second output of MaxPool2D.", DTypeSet{kInt32}}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const Shape& x = op.shape(0);
        const Shape& indices = op.shape(1);
        if (x.rank() != 4 || indices.rank() != 4 || !(x[0] == indices[0]) || !(x[1] == indices[1])) {
          return op.Error("x has to be [n, c, h, w] and indices [n, c, oh, ow]");
        }
        return TensorTypes{{op.dtype(0), indices}};
      },
      .gradient =
          [](GradientContext& g) {
            g.Set(0,
                  AddOp("MaxUnpool2D", {g.output_gradient(), g.operand(1)}, {{"input_shape", g.operand(0).shape()}}));
          },
      .batch = OneOutputBatch,
      .mixed_precision = MixedPrecision::kFollows,
  });
}

Value AvgPool2D(Operand x, Pool2DOptions options) {
  options = WithDefaults(std::move(options));
  return AddOp("AvgPool2D", {x},
               {{"window", options.window},
                {"stride", options.stride},
                {"padding", options.padding},
                {"count_padding", options.count_padding}});
}

Value MaxPool2D(Operand x, Pool2DOptions options) {
  options = WithDefaults(std::move(options));
  const bool quantized = x.dtype() == kInt8 || x.dtype() == kUint8;
  return AddOp(quantized ? "QuantizedMaxPool2D" : "MaxPool2D", {x},
               {{"window", options.window}, {"stride", options.stride}, {"padding", options.padding}});
}

Value GlobalAvgPool(Operand x) {
  if (!x.is_value()) return NeedsValue("GlobalAvgPool", x);
  if (x.rank() != 4) {
    return BuilderError("GlobalAvgPool", {x}, "x has to be [batch, channels, height, width]");
  }
  return Mean(x, {.axes = {2, 3}});
}

}  // namespace gradweave
