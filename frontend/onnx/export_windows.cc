// The forms in ONNX of convolutions and pools.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

// Gradweave: top, bottom, left, right. ONNX: top, left, bottom, right.
Integers Pads(const Node& node) {
  const Integers& p = node.attribute<Integers>("padding");
  return {p[0], p[2], p[1], p[3]};
}

// The first elements of the two last axes of a value [_, _, height, width].
absl::StatusOr<std::string> Cropped(Exporter& e, const Node& node, const std::string& value, const Dim& height,
                                    const Dim& width) {
  GW_ASSIGN_OR_RETURN(const std::string sizes, e.Sizes(node, {height, width}));
  return e.Add("Slice", {value, e.List({0, 0}), sizes, e.List({2, 3})});
}

absl::Status WriteConv(Exporter& e, const Node& node) {
  e.Place("Conv", node, ConvAttributes(node, e.In(node, 1).shape));
  return absl::OkStatus();
}

// The target of the gradient of a convolution or of sums over windows: the windows, and the shape
// of the input.
struct Windows2D {
  Integers kernel, stride, dilation;
  int64_t groups;
  Shape input;
};

// A ConvTranspose of dy with a result of the input's size. The size does not follow from dy's size:
// output_padding adds the rest. If a size is not known, it adds the maximum, and Slice removes the
// surplus.
absl::StatusOr<std::string> Transpose(Exporter& e, const Node& node, const std::string& dy, const Shape& dy_shape,
                                      const std::string& filter, const Windows2D& windows) {
  if (windows.input.num_elements() == Dim(0)) return e.Spread(node, e.Number(e.In(node, 0).dtype, 0), windows.input);
  const Integers& padding = node.attribute<Integers>("padding");
  Integers rest;
  bool exact = true;
  for (size_t i = 0; i < 2; ++i) {
    const int64_t extent = (windows.kernel[i] - 1) * windows.dilation[i] + 1;
    const Dim missing = windows.input[static_cast<int>(i) + 2] + padding[2 * i] + padding[2 * i + 1] - extent -
                        (dy_shape[static_cast<int>(i) + 2] - 1) * windows.stride[i];
    exact &= missing.is_known() || windows.stride[i] == 1;
    rest.push_back(missing.is_known() ? missing.size() : windows.stride[i] - 1);
  }
  const std::string dx = e.Add("ConvTranspose", {dy, filter},
                               {{"kernel_shape", windows.kernel},
                                {"strides", windows.stride},
                                {"dilations", windows.dilation},
                                {"pads", Pads(node)},
                                {"output_padding", rest},
                                {"group", windows.groups}});
  return exact ? dx : Cropped(e, node, dx, windows.input[2], windows.input[3]);
}

absl::Status WriteConvInputGrad(Exporter& e, const Node& node) {
  const Shape& filter = e.In(node, 1).shape;
  if (!filter[2].is_known() || !filter[3].is_known()) return e.Refuse(node, "the size of its filter is not known");
  GW_ASSIGN_OR_RETURN(std::string dx, Transpose(e, node, e.Name(node, 0), e.In(node, 0).shape, e.Name(node, 1),
                                                {.kernel = {filter[2].size(), filter[3].size()},
                                                 .stride = node.attribute<Integers>("stride"),
                                                 .dilation = node.attribute<Integers>("dilation"),
                                                 .groups = node.attribute<int64_t>("groups"),
                                                 .input = node.outputs[0].shape}));
  e.Set(node, std::move(dx));
  return absl::OkStatus();
}

// A convolution of the transposed x [c, n, h, w] with the transposed dy [o, n, oh, ow] as the
// filter: strides and dilations change places. Groups stay groups: x is [c/groups, groups*n, h, w].
absl::Status WriteConvFilterGrad(Exporter& e, const Node& node) {
  const Shape &x = e.In(node, 0).shape, &dy = e.In(node, 1).shape, &filter = node.outputs[0].shape;
  const int64_t groups = node.attribute<int64_t>("groups");
  std::string image = e.Name(node, 0);
  if (groups == 1) {
    image = e.Transposed(image, {1, 0, 2, 3});
  } else {
    GW_ASSIGN_OR_RETURN(image, e.Reshaped(node, image, {x[0], groups, filter[1], x[2], x[3]}));
    GW_ASSIGN_OR_RETURN(image,
                        e.Reshaped(node, e.Transposed(image, {2, 1, 0, 3, 4}), {filter[1], x[0] * groups, x[2], x[3]}));
  }
  const Integers &stride = node.attribute<Integers>("stride"), &dilation = node.attribute<Integers>("dilation"),
                 &padding = node.attribute<Integers>("padding");
  std::vector<OnnxAttribute> attributes = {
      {"strides", dilation}, {"dilations", stride}, {"pads", Pads(node)}, {"group", groups}};
  if (dy[2].is_known() && dy[3].is_known())
    attributes.push_back({"kernel_shape", Integers{dy[2].size(), dy[3].size()}});
  std::string gradient = e.Add("Conv", {image, e.Transposed(e.Name(node, 1), {1, 0, 2, 3})}, std::move(attributes));
  // The last window of the forward convolution may end before the image does.
  bool exact = true;
  for (size_t i = 0; i < 2; ++i) {
    const auto axis = static_cast<int>(i) + 2;
    const Dim size =
        FloorDivide(x[axis] + padding[2 * i] + padding[2 * i + 1] - (dy[axis] - 1) * stride[i] - 1, dilation[i]) + 1;
    exact &= size == filter[axis];
  }
  if (!exact) {
    GW_ASSIGN_OR_RETURN(gradient, Cropped(e, node, gradient, filter[2], filter[3]));
  }
  e.Set(node, e.Transposed(gradient, {1, 0, 2, 3}));
  return absl::OkStatus();
}

absl::Status WriteAvgPool(Exporter& e, const Node& node) {
  std::vector<OnnxAttribute> attributes = PoolAttributes(node);
  attributes.push_back({"count_include_pad", int64_t{node.attribute<bool>("count_padding") ? 1 : 0}});
  e.Place("AveragePool", node, std::move(attributes));
  return absl::OkStatus();
}

// Each dy, divided by the number of elements that its window counts, is added to all elements of
// the window.
absl::Status WriteAvgPoolGrad(Exporter& e, const Node& node) {
  const Integers &window = node.attribute<Integers>("window"), &padding = node.attribute<Integers>("padding");
  const TensorType& dy = e.In(node, 0);
  const Shape& input = node.outputs[0].shape;
  if (!dy.shape[1].is_known()) return e.Refuse(node, "the number of its channels is not known");
  const double area = static_cast<double>(window[0] * window[1]);
  std::string count = e.Number(dy.dtype, area);
  const bool has_padding = std::any_of(padding.begin(), padding.end(), [](int64_t n) { return n != 0; });
  if (has_padding && !node.attribute<bool>("count_padding")) {
    // The mean of ones with a padding of zeros, which it counts.
    GW_ASSIGN_OR_RETURN(const std::string ones, e.Spread(node, e.Number(dy.dtype, 1), {1, 1, input[2], input[3]}));
    std::vector<OnnxAttribute> attributes = PoolAttributes(node);
    attributes.push_back({"count_include_pad", int64_t{1}});
    count = e.Add("Mul", {e.Add("AveragePool", {ones}, std::move(attributes)), count});
  }
  const int64_t channels = dy.shape[1].size();
  GW_ASSIGN_OR_RETURN(const std::string ones,
                      e.Spread(node, e.Number(dy.dtype, 1), {channels, 1, window[0], window[1]}));
  GW_ASSIGN_OR_RETURN(std::string dx, Transpose(e, node, e.Add("Div", {e.Name(node, 0), count}), dy.shape, ones,
                                                {.kernel = window,
                                                 .stride = node.attribute<Integers>("stride"),
                                                 .dilation = {1, 1},
                                                 .groups = channels,
                                                 .input = input}));
  e.Set(node, std::move(dx));
  return absl::OkStatus();
}

// ONNX counts indices through the whole tensor, and Gradweave through the image.
absl::Status WriteMaxPool(Exporter& e, const Node& node) {
  const bool indexed = e.Uses(node, 1);
  const Exporter::Names pool = e.AddMany("MaxPool", {e.Name(node, 0)}, indexed ? 2 : 1, PoolAttributes(node));
  e.Set(node, pool[0], 0);
  if (!indexed) return absl::OkStatus();
  const Shape& x = e.In(node, 0).shape;
  GW_ASSIGN_OR_RETURN(const std::string image, e.Size(node, x[2] * x[3]));
  e.Set(node, e.CastTo(e.Add("Mod", {pool[1], image}), node.outputs[1].dtype), 1);
  return absl::OkStatus();
}

// A value [n, c, height, width] as [n, c, height*width].
std::string Flat(Exporter& e, const std::string& value) { return e.Add("Reshape", {value, e.List({0, 0, -1})}); }

absl::Status WriteMaxUnpool(Exporter& e, const Node& node) {
  const Shape& input = node.outputs[0].shape;
  GW_ASSIGN_OR_RETURN(const std::string zeros,
                      e.Spread(node, e.Number(node.outputs[0].dtype, 0), {input[0], input[1], input[2] * input[3]}));
  const std::string sums =
      e.Add("ScatterElements", {zeros, Flat(e, e.CastTo(e.Name(node, 1), kInt64)), Flat(e, e.Name(node, 0))},
            {{"axis", int64_t{2}}, {"reduction", std::string("add")}});
  GW_ASSIGN_OR_RETURN(std::string dx, e.Reshaped(node, sums, input));
  e.Set(node, std::move(dx));
  return absl::OkStatus();
}

absl::Status WriteMaxPoolGather(Exporter& e, const Node& node) {
  const std::string taken = e.Add(
      "GatherElements", {Flat(e, e.Name(node, 0)), Flat(e, e.CastTo(e.Name(node, 1), kInt64))}, {{"axis", int64_t{2}}});
  GW_ASSIGN_OR_RETURN(std::string y, e.Reshaped(node, taken, node.outputs[0].shape));
  e.Set(node, std::move(y));
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"AvgPool2D", "AveragePool", WriteAvgPool},
    {"AvgPool2DGrad", "ConvTranspose with a filter of ones", WriteAvgPoolGrad},
    {"Conv2D", "Conv", WriteConv},
    {"Conv2DFilterGrad", "Conv of the transposed operands", WriteConvFilterGrad},
    {"Conv2DInputGrad", "ConvTranspose", WriteConvInputGrad},
    {"MaxPool2D", "MaxPool", WriteMaxPool},
    {"MaxPool2DGather", "GatherElements", WriteMaxPoolGather},
    {"MaxUnpool2D", "ScatterElements", WriteMaxUnpool},
};

}  // namespace

std::vector<OnnxAttribute> ConvAttributes(const Node& node, const Shape& filter) {
  std::vector<OnnxAttribute> attributes = {{"strides", node.attribute<Integers>("stride")},
                                           {"dilations", node.attribute<Integers>("dilation")},
                                           {"pads", Pads(node)},
                                           {"group", node.attribute<int64_t>("groups")}};
  if (filter[2].is_known() && filter[3].is_known())
    attributes.push_back({"kernel_shape", Integers{filter[2].size(), filter[3].size()}});
  return attributes;
}

std::vector<OnnxAttribute> PoolAttributes(const Node& node) {
  return {{"kernel_shape", node.attribute<Integers>("window")},
          {"strides", node.attribute<Integers>("stride")},
          {"pads", Pads(node)}};
}

absl::Span<const ExportRow> WindowForms() { return kRows; }

}  // namespace gradweave::onnx
