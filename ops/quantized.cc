#include "gradweave/ops/quantized.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/conv_shape.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/registry.h"

namespace gradweave {
namespace {

constexpr DTypeSet kBytes = {kInt8, kUint8};

struct IntegerRange {
  int64_t low, high;
  bool Contains(int64_t x) const { return low <= x && x <= high; }
};

// Returns the integers of the dtype, or nullopt if it is neither int8 nor uint8.
std::optional<IntegerRange> IntegersOf(DType dtype) {
  if (dtype == kInt8) return IntegerRange{-128, 127};
  if (dtype == kUint8) return IntegerRange{0, 255};
  return std::nullopt;
}

std::vector<AttributeDefinition> ResultAttributes() {
  return {{"x_zero", AttributeType::kInteger, "The integer of x that stands for 0.", int64_t{0}},
          {"dtype", AttributeType::kDType, "Result dtype: float32, int8 or uint8.", kFloat32},
          {"zero", AttributeType::kInteger, "The integer of the result that stands for 0; 0 for float32.", int64_t{0}},
          {"relu", AttributeType::kBool, "True to make negative sums 0.", false}};
}

// Checks what does not depend on the shape of the weights, and returns the result's type.
absl::StatusOr<TensorTypes> ResultType(const OpView& op, const Dim& channels, Shape shape) {
  for (int i : {2, 3}) {
    if (op.shape(i) == Shape{channels}) continue;
    return op.Error(op.op().operands[i].name, " has to have shape [", channels.ToString(),
                    "], one number for each output channel, and has shape ", op.shape(i).ToString());
  }
  const int64_t x_zero = op.attribute<int64_t>("x_zero"), zero = op.attribute<int64_t>("zero");
  if (!IntegersOf(op.dtype(0))->Contains(x_zero))
    return op.Error("x_zero is ", x_zero, ", which is no number of ", DTypeName(op.dtype(0)));
  const DType dtype = op.attribute<DType>("dtype");
  const std::optional<IntegerRange> range = IntegersOf(dtype);
  if (!range.has_value() && dtype != kFloat32)
    return op.Error("the result may be float32, int8 or uint8, not ", DTypeName(dtype), "; Cast converts it");
  if (range.has_value() ? !range->Contains(zero) : zero != 0)
    return op.Error("zero is ", zero, ", which is no zero point of ", DTypeName(dtype));
  return TensorTypes{{dtype, std::move(shape)}};
}

absl::StatusOr<TensorTypes> InferQuantizedMatMul(const OpView& op) {
  if (op.shape(0).rank() < 1 || op.shape(1).rank() != 2) {
    return op.Error("x has to be [..., k] and the weights [k, n]; they have shapes ", op.shape(0).ToString(), " and ",
                    op.shape(1).ToString());
  }
  Shape shape = op.shape(0);
  const int last = shape.rank() - 1;
  if (!(shape[last] == op.shape(1)[0])) {
    return op.Error("x has ", shape[last].ToString(), " columns and the weights have ", op.shape(1)[0].ToString(),
                    " rows; they have to be equal");
  }
  shape[last] = op.shape(1)[1];
  return ResultType(op, op.shape(1)[1], std::move(shape));
}

absl::StatusOr<TensorTypes> InferQuantizedConv2D(const OpView& op) {
  GW_ASSIGN_OR_RETURN(Shape shape, ConvOutputShape(op, op.shape(0), op.shape(1)));
  return ResultType(op, op.shape(1)[0], std::move(shape));
}

// The batch may be any axis of x but the last one.
absl::InlinedVector<BatchAxis, 2> QuantizedMatMulBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  for (size_t i = 1; i < operands.size(); ++i) {
    if (operands[i].kind != BatchAxis::kAbsent) return {{BatchAxis::kMixed, 0}};
  }
  const bool last = operands[0].kind == BatchAxis::kAxis && operands[0].axis == op.shape(0).rank() - 1;
  return {last ? BatchAxis{BatchAxis::kMixed, 0} : operands[0]};
}

constexpr char kFormula[] =
    " v = s*scale is a float32, or its positive part with relu. The result is v; or the integer nearest to v, to even "
    "if two are equally near, plus zero, saturated.";

}  // namespace

void RegisterQuantizedOps(OpRegistry& registry) {
  const OperandDefinition scale = {"scale", "[o].", {kFloat32}}, bias = {"bias", "[o].", {kInt32}};
  registry.Add({
      .name = "QuantizedMatMul",
      .doc = absl::StrCat(
          "Product of quantized numbers: s = bias + (x - x_zero) * weights, an int32 that wraps around.", kFormula),
      .operands = {{"x", "[..., k].", kBytes}, {"weights", "[k, o].", {kInt8}}, scale, bias},
      .attributes = ResultAttributes(),
      .infer = InferQuantizedMatMul,
      .batch = QuantizedMatMulBatch,
      .flops =
          [](const OpView& op, absl::Span<const TensorType> outputs) {
            return 2.0 * outputs[0].shape.num_elements().size() * op.shape(1)[0].size();
          },
  });

  registry.Add({
      .name = "Quantize",
      .doc = "x/scale rounded to the nearest integer, to even if two are equally near, plus zero, saturated. NaN "
             "becomes 0.",
      .operands = {{"x", "Any shape.", {kFloat32}}, {"scale", "[].", {kFloat32}}},
      .attributes = {{"zero", AttributeType::kInteger, "The integer that stands for 0.", int64_t{0}},
                     {"dtype", AttributeType::kDType, "Result dtype: int8 or uint8."}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        if (op.shape(1).rank() != 0) return op.Error("the scale has to be one number, of shape []");
        const DType dtype = op.attribute<DType>("dtype");
        const std::optional<IntegerRange> range = IntegersOf(dtype);
        const int64_t zero = op.attribute<int64_t>("zero");
        if (!range.has_value()) return op.Error("the result may be int8 or uint8, not ", DTypeName(dtype));
        if (!range->Contains(zero)) return op.Error("zero is ", zero, ", which is no number of ", DTypeName(dtype));
        return TensorTypes{{dtype, op.shape(0)}};
      },
      .batch =
          [](const OpView&, absl::Span<const BatchAxis> operands) {
            const bool scaled = operands[1].kind == BatchAxis::kAbsent;
            return absl::InlinedVector<BatchAxis, 2>{scaled ? operands[0] : BatchAxis{BatchAxis::kMixed, 0}};
          },
  });

  std::vector<AttributeDefinition> attributes = ConvAttributes();
  for (AttributeDefinition& attribute : ResultAttributes()) attributes.push_back(std::move(attribute));
  registry.Add({
      .name = "QuantizedConv2D",
      .doc = absl::StrCat("Convolution of quantized numbers: s = bias + Conv2D(x - x_zero, filter), an int32 that "
                          "wraps around. Padding stands for 0.",
                          kFormula),
      .operands = {{"x", "[n, c, h, w].", kBytes}, {"filter", "[o, c/groups, kh, kw].", {kInt8}}, scale, bias},
      .attributes = attributes,
      .infer = InferQuantizedConv2D,
      .batch = SamplesOfFirstOperand,
      .flops = [](const OpView& op,
                  absl::Span<const TensorType> outputs) { return ConvFlops(op.shape(1), outputs[0].shape); },
  });
}

Value QuantizedMatMul(Operand x, Operand weights, Operand scale, Operand bias, int64_t x_zero, QuantizedResult result) {
  return AddOp("QuantizedMatMul", {x, weights, scale, bias},
               {{"x_zero", x_zero}, {"dtype", result.dtype}, {"zero", result.zero}, {"relu", result.relu}});
}

Value QuantizedConv2D(Operand x, Operand filter, Operand scale, Operand bias, int64_t x_zero, Conv2DOptions options,
                      QuantizedResult result) {
  return AddOp("QuantizedConv2D", {x, filter, scale, bias},
               {{"stride", options.stride},
                {"padding", FourPaddings(options.padding)},
                {"dilation", options.dilation},
                {"groups", options.groups},
                {"x_zero", x_zero},
                {"dtype", result.dtype},
                {"zero", result.zero},
                {"relu", result.relu}});
}

Value Quantize(Operand x, Operand scale, int64_t zero, DType dtype) {
  if (!AllValid("Quantize", {x, scale})) return Invalid(x);
  const std::optional<IntegerRange> range = IntegersOf(dtype);
  if (!range.has_value() || !range->Contains(zero)) {
    return BuilderError("Quantize", {x, scale},
                        absl::StrCat("the dtype has to be int8 or uint8 and contain the zero point; they are ",
                                     DTypeName(dtype), " and ", zero));
  }
  const CallLocation location(x);
  if (x.is_value() && x.dtype() == kFloat32 && scale.rank() == 0) {
    const double number_of_scale[] = {scale.number()};
    const Value number = scale.is_number() ? Numbers(x, {}, number_of_scale) : scale.value();
    if (number.dtype() == kFloat32) return AddOp("Quantize", {x, number}, {{"zero", zero}, {"dtype", dtype}});
  }
  const Value q = Round(Div(x, scale));
  return Cast(zero == 0 ? q : Add(q, zero), dtype);
}

Value Dequantize(Operand q, Operand scale, int64_t zero) {
  if (!AllValid("Dequantize", {q, scale})) return Invalid(q);
  const CallLocation location(q);
  const Value number = Cast(q, scale.is_number() ? kFloat32 : scale.dtype());
  return Mul(zero == 0 ? number : Sub(number, zero), scale);
}

Value FakeQuantize(Operand x, Operand scale, int64_t zero, int64_t low, int64_t high) {
  if (!AllValid("FakeQuantize", {x, scale})) return Invalid(x);
  if (low > zero || zero > high) {
    return BuilderError("FakeQuantize", {x, scale},
                        absl::StrCat("low <= zero <= high has to hold; they are ", low, ", ", zero, " and ", high));
  }
  const CallLocation location(x);
  const Value step = scale.is_number() ? Value() : StopGradient(scale);
  const Operand divisor = scale.is_number() ? scale : Operand(step);
  const Value quotient = Div(x, divisor);
  // The sum is exact, and the rounding has no part in the gradient.
  const Value rounded = Add(quotient, StopGradient(Sub(Round(quotient), quotient)));
  return Mul(Clip(rounded, low - zero, high - zero), divisor);
}

}  // namespace gradweave
