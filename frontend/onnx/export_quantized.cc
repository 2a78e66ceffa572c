// The forms in ONNX of quantized products and convolutions.
#include <cstdint>
#include <string>
#include <utility>

#include "gradweave/frontend/onnx/exporter.h"

namespace gradweave::onnx {
namespace {

std::string ZeroOfX(Exporter& e, const Node& node) {
  return e.Number(e.In(node, 0).dtype, static_cast<double>(node.attribute<int64_t>("x_zero")));
}

// Sets the result from the sums of products. Scale and bias lack the axes `axes` behind their own.
void WriteResult(Exporter& e, const Node& node, std::string sums, const Integers& axes) {
  const auto along_channels = [&](int i) { return axes.empty() ? e.Name(node, i) : e.WithAxes(e.Name(node, i), axes); };
  sums = e.CastTo(e.Add("Add", {sums, along_channels(3)}), kFloat32);
  std::string y = e.Add("Mul", {sums, along_channels(2)});
  if (node.attribute<bool>("relu")) y = e.Add("Relu", {y});
  if (const DType dtype = node.outputs[0].dtype; dtype != kFloat32) {
    const double low = dtype == kInt8 ? -128 : 0, zero = static_cast<double>(node.attribute<int64_t>("zero"));
    y = e.Add("Add", {e.Add("Round", {y}), e.Number(kFloat32, zero)});
    y = e.CastTo(e.Add("Clip", {y, e.Number(kFloat32, low), e.Number(kFloat32, low + 255)}), dtype);
  }
  e.Set(node, std::move(y));
}

absl::Status WriteMatMul(Exporter& e, const Node& node) {
  WriteResult(e, node, e.Add("MatMulInteger", {e.Name(node, 0), e.Name(node, 1), ZeroOfX(e, node)}), {});
  return absl::OkStatus();
}

absl::Status WriteConv(Exporter& e, const Node& node) {
  WriteResult(e, node,
              e.Add("ConvInteger", {e.Name(node, 0), e.Name(node, 1), ZeroOfX(e, node)},
                    ConvAttributes(node, e.In(node, 1).shape)),
              {1, 2});
  return absl::OkStatus();
}

absl::Status WriteQuantize(Exporter& e, const Node& node) {
  const std::string zero = e.Number(node.outputs[0].dtype, static_cast<double>(node.attribute<int64_t>("zero")));
  e.Set(node, e.Add("QuantizeLinear", {e.Name(node, 0), e.Name(node, 1), zero}));
  return absl::OkStatus();
}

absl::Status WriteMaxPool(Exporter& e, const Node& node) {
  e.Place("MaxPool", node, PoolAttributes(node));
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"Quantize", "QuantizeLinear", WriteQuantize},
    {"QuantizedConv2D", "ConvInteger, scaled and rounded", WriteConv},
    {"QuantizedMatMul", "MatMulInteger, scaled and rounded", WriteMatMul},
    {"QuantizedMaxPool2D", "MaxPool", WriteMaxPool},
};

}  // namespace

absl::Span<const ExportRow> QuantizedForms() { return kRows; }

}  // namespace gradweave::onnx
