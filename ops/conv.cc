#include "gradweave/ops/conv.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/conv_shape.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {
namespace {

absl::StatusOr<TensorTypes> InferConv2D(const OpView& op) {
  GW_ASSIGN_OR_RETURN(Shape shape, ConvOutputShape(op, op.shape(0), op.shape(1)));
  if (op.num_operands() == 3 && !(op.shape(2) == Shape{op.shape(1)[0]})) {
    return op.Error("the bias has to have shape [", op.shape(1)[0].ToString(), "], one number for each output channel");
  }
  return TensorTypes{{op.dtype(0), std::move(shape)}};
}

absl::StatusOr<TensorTypes> InferInputGrad(const OpView& op) {
  const Shape& shape = op.attribute<Shape>("input_shape");
  GW_ASSIGN_OR_RETURN(Shape expected, ConvOutputShape(op, shape, op.shape(1)));
  if (!(expected == op.shape(0)))
    return op.Error("dy has to have shape ", expected.ToString(), " for an input of shape ", shape.ToString());
  return TensorTypes{{op.dtype(0), shape}};
}

absl::StatusOr<TensorTypes> InferFilterGrad(const OpView& op) {
  const Shape& shape = op.attribute<Shape>("filter_shape");
  GW_ASSIGN_OR_RETURN(Shape expected, ConvOutputShape(op, op.shape(0), shape));
  if (!(expected == op.shape(1)))
    return op.Error("dy has to have shape ", expected.ToString(), " for a filter of shape ", shape.ToString());
  return TensorTypes{{op.dtype(0), shape}};
}

// The shape attribute contains the size of the whole batch. That is fine for part of a batch,
// because kernels take sizes from the operands.
absl::InlinedVector<BatchAxis, 2> SummedOverSamples(const OpView&, absl::Span<const BatchAxis> operands) {
  if (operands[0].kind == BatchAxis::kAbsent && operands[1].kind == BatchAxis::kAbsent) return {BatchAxis{}};
  const bool both = operands[0] == BatchAxis::Axis(0) && operands[1] == BatchAxis::Axis(0);
  return {BatchAxis{both ? BatchAxis::kSummed : BatchAxis::kMixed, 0}};
}

Value AddConv(absl::Span<const Operand> operands, const Conv2DOptions& options) {
  return AddOp("Conv2D", operands,
               {{"stride", options.stride},
                {"padding", FourPaddings(options.padding)},
                {"dilation", options.dilation},
                {"groups", options.groups}});
}

}  // namespace

void RegisterConvOps(OpRegistry& registry) {
  registry.Add({
      .name = "Conv2D",
      .doc = "Convolution without flipping the filter: y[n,o,i,j] = bias[o] + sum over c, k, l of filter[o,c,k,l] * "
             "x[n, c, i*stride + k*dilation - top, j*stride + l*dilation - left]. x is zero outside of its shape. y "
             "has shape [n, o, oh, ow] with oh = floor((h + top + bottom - dilation*(kh - 1) - 1)/stride) + 1.",
      .operands = {{"x", "[n, c, h, w].", kFloating},
                   {"filter", "[o, c/groups, kh, kw].", kFloating},
                   {"bias", "[o].", kFloating, OperandDefinition::kOptional}},
      .attributes = ConvAttributes(),
      .infer = InferConv2D,
      .gradient =
          [](GradientContext& g) {
            const Conv2DOptions options = ConvOptionsOf(g.node());
            const Value x = g.operand(0), filter = g.operand(1), dy = g.output_gradient();
            if (g.needs(0)) g.Set(0, Conv2DInputGrad(dy, filter, x.shape(), options));
            if (g.needs(1)) g.Set(1, Conv2DFilterGrad(x, dy, filter.shape(), options));
            if (g.num_operands() == 3 && g.needs(2)) g.Set(2, Sum(dy, {.axes = {0, 2, 3}}));
          },
      .batch = SamplesOfFirstOperand,
      .flops = [](const OpView& op,
                  absl::Span<const TensorType> outputs) { return ConvFlops(op.shape(1), outputs[0].shape); },
      .kind = OpKind::kConv2D,
      .same_dtypes = true,
      .mixed_precision = MixedPrecision::kHalf,
  });

  std::vector<AttributeDefinition> attributes = ConvAttributes();
  attributes.insert(attributes.begin(), {"input_shape", AttributeType::kShape, "Result shape, [n, c, h, w]."});
  registry.Add({
      .name = "Conv2DInputGrad",
      .doc = "The gradient of Conv2D with respect to x: dx[n,c,y,x] = sum of filter[o,c,k,l] * dy[n,o,i,j] over all o, "
             "k, l, i, j for which Conv2D multiplies x[n,c,y,x] with filter[o,c,k,l] in output [n,o,i,j].",
      .operands = {{"dy", "[n, o, oh, ow].", kFloating}, {"filter", "[o, c/groups, kh, kw].", kFloating}},
      .attributes = attributes,
      .infer = InferInputGrad,
      .gradient =
          [](GradientContext& g) {
            const Conv2DOptions options = ConvOptionsOf(g.node());
            const Value dy = g.operand(0), filter = g.operand(1), ddx = g.output_gradient();
            if (g.needs(0)) g.Set(0, Conv2D(ddx, filter, options));
            if (g.needs(1)) g.Set(1, Conv2DFilterGrad(ddx, dy, filter.shape(), options));
          },
      .batch = SamplesOfFirstOperand,
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return ConvFlops(op.shape(1), op.shape(0)); },
      .kind = OpKind::kConv2DInputGrad,
      .same_dtypes = true,
      .mixed_precision = MixedPrecision::kHalf,
  });

  attributes = ConvAttributes();
  attributes.insert(attributes.begin(),
                    {"filter_shape", AttributeType::kShape, "Result shape, [o, c/groups, kh, kw]."});
  registry.Add({
      .name = "Conv2DFilterGrad",
      .doc = "The gradient of Conv2D with respect to the filter: df[o,c,k,l] = sum over n, i, j of dy[n,o,i,j] * x[n, "
             "c, i*stride + k*dilation - top, j*stride + "
             "l*dilation - left].",
      .operands = {{"x", "[n, c, h, w].", kFloating}, {"dy", "[n, o, oh, ow].", kFloating}},
      .attributes = attributes,
      .infer = InferFilterGrad,
      .gradient =
          [](GradientContext& g) {
            const Conv2DOptions options = ConvOptionsOf(g.node());
            const Value x = g.operand(0), dy = g.operand(1), ddf = g.output_gradient();
            if (g.needs(0)) g.Set(0, Conv2DInputGrad(dy, ddf, x.shape(), options));
            if (g.needs(1)) g.Set(1, Conv2D(x, ddf, options));
          },
      .batch = SummedOverSamples,
      .flops = [](const OpView& op,
                  absl::Span<const TensorType> outputs) { return ConvFlops(outputs[0].shape, op.shape(1)); },
      .kind = OpKind::kConv2DFilterGrad,
      .same_dtypes = true,
      .mixed_precision = MixedPrecision::kHalf,
  });
}

Value Conv2D(Operand x, Operand filter, Conv2DOptions options) { return AddConv({x, filter}, options); }
Value Conv2D(Operand x, Operand filter, Operand bias, Conv2DOptions options) {
  return AddConv({x, filter, bias}, options);
}

Value Conv2DInputGrad(Operand dy, Operand filter, Shape input_shape, Conv2DOptions options) {
  return AddOp("Conv2DInputGrad", {dy, filter},
               {{"input_shape", std::move(input_shape)},
                {"stride", options.stride},
                {"padding", FourPaddings(options.padding)},
                {"dilation", options.dilation},
                {"groups", options.groups}});
}

Value Conv2DFilterGrad(Operand x, Operand dy, Shape filter_shape, Conv2DOptions options) {
  return AddOp("Conv2DFilterGrad", {x, dy},
               {{"filter_shape", std::move(filter_shape)},
                {"stride", options.stride},
                {"padding", FourPaddings(options.padding)},
                {"dilation", options.dilation},
                {"groups", options.groups}});
}

Value ConvTranspose2D(Operand x, Operand filter, ConvTranspose2DOptions options) {
  if (!x.is_value()) return NeedsValue("ConvTranspose2D", x);
  if (!filter.is_value()) return NeedsValue("ConvTranspose2D", filter);
  Integers padding = FourPaddings(options.padding);
  if (x.rank() != 4 || filter.rank() != 4) {
    return BuilderError("ConvTranspose2D", {x, filter},
                        "x has to be [batch, channels, height, width] and the filter [channels, output "
                        "channels/groups, height, width]");
  }
  if (options.stride.size() != 2 || options.dilation.size() != 2 || options.output_padding.size() != 2 ||
      padding.size() != 4) {
    return BuilderError("ConvTranspose2D", {x, filter},
                        "stride, dilation and output_padding have to be two numbers, padding two or four");
  }
  // The input shape of the Conv2D whose transpose this is, and the rows and columns after it that
  // no filter tap reaches.
  Shape shape = {x.shape()[0], filter.shape()[1] * Dim(options.groups)};
  int64_t unreached[2] = {0, 0};
  for (int side = 0; side < 2; ++side) {
    const int64_t extra = options.output_padding[side];
    if (extra < 0 || extra >= std::max(options.stride[side], options.dilation[side])) {
      return BuilderError("ConvTranspose2D", {x, filter},
                          absl::StrCat("the output padding ", extra, " for the ", kConvSides[side],
                                       " has to be in [0, max(stride, dilation))"));
    }
    if (options.stride[side] < 1) continue;  // Conv2DInputGrad reports the error.
    // For each stride of output padding, the convolution's windows would take one more step. So the
    // padding after the result shrinks by this amount, and zeros follow if it is too small.
    const int64_t steps = extra - extra % options.stride[side];
    int64_t& behind = padding[2 * side + 1];
    unreached[side] = std::max<int64_t>(steps - std::max<int64_t>(behind, 0), 0);
    behind -= steps - unreached[side];
    shape.Append((x.shape()[2 + side] - Dim(1)) * Dim(options.stride[side]) -
                 (Dim(padding[2 * side]) + Dim(padding[2 * side + 1])) +
                 Dim(options.dilation[side]) * (filter.shape()[2 + side] - Dim(1)) + Dim(1 + extra - steps));
  }
  const Value y = Conv2DInputGrad(
      x, filter, shape,
      {.stride = options.stride, .padding = padding, .dilation = options.dilation, .groups = options.groups});
  if (unreached[0] == 0 && unreached[1] == 0) return y;
  return Pad(Operand(y), {.low = {0, 0, 0, 0}, .high = {0, 0, unreached[0], unreached[1]}});
}

Value ConvTranspose2D(Operand x, Operand filter, Operand bias, ConvTranspose2DOptions options) {
  const Value y = ConvTranspose2D(x, filter, std::move(options));
  if (!y.valid() || !AllValid("ConvTranspose2D", {x, bias})) return Invalid(x);
  if (!(bias.shape() == Shape{y.shape()[1]})) {
    return BuilderError("ConvTranspose2D", {x, filter, bias},
                        absl::StrCat("the bias has to have shape [", y.shape()[1].ToString(), "]"));
  }
  return Add(Operand(y), Reshape(bias, {y.shape()[1], 1, 1}));
}

}  // namespace gradweave
