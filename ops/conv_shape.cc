#include "gradweave/ops/conv_shape.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

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

}  // namespace

std::vector<AttributeDefinition> ConvAttributes() {
  return {{"stride", AttributeType::kIntegers, "Height, width; at least 1.", Integers{1, 1}},
          {"padding", AttributeType::kIntegers, "Zeros at top, bottom, left, right; at least 0.", Integers{0, 0, 0, 0}},
          {"dilation", AttributeType::kIntegers,
           "Distance between neighbouring filter taps, height, width; at least 1.", Integers{1, 1}},
          {"groups", AttributeType::kInteger, "Must divide both channel counts.", int64_t{1}}};
}

Conv2DOptions ConvOptionsOf(const Node& node) {
  return {.stride = node.attribute<Integers>("stride"),
          .padding = node.attribute<Integers>("padding"),
          .dilation = node.attribute<Integers>("dilation"),
          .groups = node.attribute<int64_t>("groups")};
}

Integers FourPaddings(const Integers& padding) {
  return padding.size() == 2 ? Integers{padding[0], padding[0], padding[1], padding[1]} : padding;
}

absl::StatusOr<Shape> ConvOutputShape(const OpView& op, const Shape& x, const Shape& filter) {
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
    if (filter[2 + side] == Dim(0)) return op.Error("the filter's ", kConvSides[side], " is 0");
    if (padded.is_known() && reach.is_known() && reach.size() > padded.size()) {
      return op.Error("the filter covers a ", kConvSides[side], " of ", reach.ToString(),
                      ", and x with its padding has ", padded.ToString(), "; a smaller filter or more padding fits");
    }
    result.Append(FloorDivide(padded - reach, op.attribute<Integers>("stride")[side]) + Dim(1));
  }
  return result;
}

double ConvFlops(const Shape& filter, const Shape& output) {
  const double per_output = 2.0 * filter[1].size() * filter[2].size() * filter[3].size();
  return per_output * output.num_elements().size();
}

absl::InlinedVector<BatchAxis, 2> SamplesOfFirstOperand(const OpView&, absl::Span<const BatchAxis> operands) {
  for (size_t i = 1; i < operands.size(); ++i) {
    if (operands[i].kind != BatchAxis::kAbsent) return {{BatchAxis::kMixed, 0}};
  }
  if (operands[0].kind == BatchAxis::kAbsent || operands[0] == BatchAxis::Axis(0)) return {operands[0]};
  return {{BatchAxis::kMixed, 0}};
}

}  // namespace gradweave
