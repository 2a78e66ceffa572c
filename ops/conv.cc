#include "gradweave/ops/conv.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

constexpr const char* kSides[] = {"height", "width"};

Conv2DOptions OptionsOf(const Node& node) {
  return {.stride = node.attribute<Integers>("stride"),
          .padding = node.attribute<Integers>("padding"),
          .dilation = node.attribute<Integers>("dilation"),
          .groups = node.attribute<int64_t>("groups")};
}

absl::Status CheckAttributes(const OpView& op) {
  const Integers& stride = op.attribute<Integers>("stride");
  const Integers& padding = op.attribute<Integers>("padding");
  const Integers& dilation = op.attribute<Integers>("dilation");
  if (stride.size() != 2 || stride[0] < 1 || stride[1] < 1)
    return op.Error("the stride has to be two numbers of at least 1, for height and width");
  if (dilation.size() != 2 || dilation[0] < 1 || dilation[1] < 1) {
    return op.Error("the dilation has to be two numbers of at least 1, for height and width");
  }
  if (padding.size() != 4) return op.Error("the padding has to be four numbers: top, bottom, left, right");
  for (int64_t amount : padding) {
    if (amount < 0)
      return op.Error("the padding ", ToString(AttributeValue(padding)), " has a negative number; SliceAxis crops");
  }
  // Sums and products of these numbers and the sizes cannot overflow.
  for (const Integers* numbers : {&stride, &padding, &dilation}) {
    if (*std::max_element(numbers->begin(), numbers->end()) >= int64_t{1} << 31) {
      return op.Error("stride, padding and dilation have to be below 2^31");
    }
  }
  if (op.attribute<int64_t>("groups") < 1)
    return op.Error("groups is ", op.attribute<int64_t>("groups"), " and has to be at least 1");
  return absl::OkStatus();
}

// Returns the shape of Conv2D's result, [n, o, oh, ow].
absl::StatusOr<Shape> OutputShape(const OpView& op, const Shape& x, const Shape& filter) {
  GW_RETURN_IF_ERROR(CheckAttributes(op));
  if (x.rank() != 4) return op.Error("x has to be [batch, channels, height, width], and has shape ", x.ToString());
  if (filter.rank() != 4) {
    return op.Error("the filter has to be [output channels, channels/groups, height, width], and has shape ",
                    filter.ToString());
  }
  const int64_t groups = op.attribute<int64_t>("groups");
  if (!(filter[1] * Dim(groups) == x[1])) {
    return op.Error("x has ", x[1].ToString(), " channels, and the filter is for ",
                    (filter[1] * Dim(groups)).ToString(), " (", filter[1].ToString(), " in each of ", groups,
                    " groups)");
  }
  if (filter[0].is_known() && filter[0].size() % groups != 0) {
    return op.Error("the ", filter[0].ToString(), " output channels cannot be divided into ", groups, " groups");
  }
  Shape result = {x[0], filter[0]};
  for (int side = 0; side < 2; ++side) {
    const Integers& padding = op.attribute<Integers>("padding");
    const Dim padded = x[2 + side] + Dim(padding[2 * side]) + Dim(padding[2 * side + 1]);
    const Dim reach = (filter[2 + side] - Dim(1)) * Dim(op.attribute<Integers>("dilation")[side]) + Dim(1);
    if (filter[2 + side] == Dim(0)) return op.Error("the filter's ", kSides[side], " is 0");
    if (padded.is_known() && reach.is_known() && reach.size() > padded.size()) {
      return op.Error("the filter covers a ", kSides[side], " of ", reach.ToString(), ", and x with its padding has ",
                      padded.ToString(), "; a smaller filter or more padding fits");
    }
    result.Append(FloorDivide(padded - reach, op.attribute<Integers>("stride")[side]) + Dim(1));
  }
  return result;
}

absl::StatusOr<TensorTypes> InferConv2D(const OpView& op) {
  GW_ASSIGN_OR_RETURN(Shape shape, OutputShape(op, op.shape(0), op.shape(1)));
  if (op.num_operands() == 3 && !(op.shape(2) == Shape{op.shape(1)[0]})) {
    return op.Error("the bias has to have shape [", op.shape(1)[0].ToString(), "], one number for each output channel");
  }
  return TensorTypes{{op.dtype(0), std::move(shape)}};
}

absl::StatusOr<TensorTypes> InferInputGrad(const OpView& op) {
  const Shape& shape = op.attribute<Shape>("input_shape");
  GW_ASSIGN_OR_RETURN(Shape expected, OutputShape(op, shape, op.shape(1)));
  if (!(expected == op.shape(0)))
    return op.Error("dy has to have shape ", expected.ToString(), " for an input of shape ", shape.ToString());
  return TensorTypes{{op.dtype(0), shape}};
}

absl::StatusOr<TensorTypes> InferFilterGrad(const OpView& op) {
  const Shape& shape = op.attribute<Shape>("filter_shape");
  GW_ASSIGN_OR_RETURN(Shape expected, OutputShape(op, op.shape(0), shape));
  if (!(expected == op.shape(1)))
    return op.Error("dy has to have shape ", expected.ToString(), " for a filter of shape ", shape.ToString());
  return TensorTypes{{op.dtype(0), shape}};
}

// Counts two operations for each pair of a filter weight and an output element.
double ConvFlops(const Shape& filter, const Shape& output) {
  const double per_output = 2.0 * filter[1].size() * filter[2].size() * filter[3].size();
  return per_output * output.num_elements().size();
}

// The batch is axis 0 of the first operand. No other operand may have a batch.
BatchAxes SamplesOfFirstOperand(const OpView&, absl::Span<const BatchAxis> operands) {
  for (size_t i = 1; i < operands.size(); ++i) {
    if (operands[i].kind != BatchAxis::kAbsent) return {{BatchAxis::kMixed, 0}};
  }
  if (operands[0].kind == BatchAxis::kAbsent || operands[0] == BatchAxis::Axis(0)) return {operands[0]};
  return {{BatchAxis::kMixed, 0}};
}

// The shape attribute contains the size of the whole batch. That is fine for part of a batch,
// because kernels take sizes from the operands.
BatchAxes SummedOverSamples(const OpView&, absl::Span<const BatchAxis> operands) {
  if (operands[0].kind == BatchAxis::kAbsent && operands[1].kind == BatchAxis::kAbsent) return {BatchAxis{}};
  const bool both = operands[0] == BatchAxis::Axis(0) && operands[1] == BatchAxis::Axis(0);
  return {BatchAxis{both ? BatchAxis::kSummed : BatchAxis::kMixed, 0}};
}

std::vector<AttributeDefinition> ConvAttributes() {
  return {{"stride", AttributeType::kIntegers, "Height, width; at least 1.", Integers{1, 1}},
          {"padding", AttributeType::kIntegers, "Zeros at top, bottom, left, right; at least 0.", Integers{0, 0, 0, 0}},
          {"dilation", AttributeType::kIntegers,
           "Distance between neighbouring filter taps, height, width; at least 1.", Integers{1, 1}},
          {"groups", AttributeType::kInteger, "Must divide both channel counts.", int64_t{1}}};
}

// Expands {height, width} to four numbers.
Integers FourPaddings(const Integers& padding) {
  return padding.size() == 2 ? Integers{padding[0], padding[0], padding[1], padding[1]} : padding;
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
            const Conv2DOptions options = OptionsOf(g.node());
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
            const Conv2DOptions options = OptionsOf(g.node());
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
            const Conv2DOptions options = OptionsOf(g.node());
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
                          absl::StrCat("the output padding ", extra, " for the ", kSides[side],
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
