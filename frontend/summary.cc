#include "gradweave/frontend/summary.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/node_flops.h"

namespace gradweave::nn {
namespace {

std::string Row(absl::string_view layer, absl::string_view shape, absl::string_view parameters,
                absl::string_view flops) {
  return absl::StrFormat("%-20s %-20s %12s %16s\n", layer, shape, parameters, flops);
}

// Formats 1234567 as "1,234,567".
std::string Grouped(double number) {
  std::string text = absl::StrFormat("%.0f", number);
  for (int i = static_cast<int>(text.size()) - 3; i > 0; i -= 3) text.insert(static_cast<size_t>(i), 1, ',');
  return text;
}

}  // namespace

std::vector<LayerSummary> Summarize(const Sequential& model, const Value& input, const DimBindings& sizes) {
  std::vector<LayerSummary> layers;
  NodeId first = input.port().node + 1;
  for (const auto& [name, value] : model.outputs()) {
    if (!value.valid()) break;
    LayerSummary layer{.name = name, .output = value.shape().Substitute(sizes)};
    // The nodes of a layer follow those of the previous layer and end with the layer's output. If
    // the output is older, the layer added no node.
    for (NodeId id = first; id <= value.port().node; ++id) {
      const Node& node = value.graph()->node(id);
      layer.flops += NodeFlops(*value.graph(), node, sizes);
      if (node.op->kind == OpKind::kVariable && node.attribute<bool>("trainable"))
        layer.parameters += node.outputs[0].shape.num_elements().size();
    }
    first = std::max(first, value.port().node + 1);
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::string SummaryTable(const Sequential& model, const Value& input, const DimBindings& sizes) {
  std::string text = Row("layer", "output shape", "parameters", "FLOPs");
  absl::StrAppend(&text, Row("input", input.shape().Substitute(sizes).ToString(), "", ""));
  double parameters = 0, flops = 0;
  for (const LayerSummary& layer : Summarize(model, input, sizes)) {
    absl::StrAppend(&text, Row(layer.name, layer.output.ToString(), Grouped(static_cast<double>(layer.parameters)),
                               Grouped(layer.flops)));
    parameters += static_cast<double>(layer.parameters);
    flops += layer.flops;
  }
  return absl::StrCat(text, Row("total", "", Grouped(parameters), Grouped(flops)));
}

}  // namespace gradweave::nn
