#include "gradweave/frontend/quantization/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/frontend/quantization/calibration.h"
#include "gradweave/frontend/quantization/layers.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/conv_shape.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/quantized.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"

namespace gradweave {
namespace {

constexpr double kLargestWeight = 127, kLargestSum = 2147483647;

Pool2DOptions OptionsOfPool(const Node& node) {
  return {.window = node.attribute<Integers>("window"),
          .stride = node.attribute<Integers>("stride"),
          .padding = node.attribute<Integers>("padding")};
}

// The integers of a layer: weights, scales of the sums and bias.
struct IntegerWeights {
  std::vector<int8_t> weights;
  std::vector<float> scale;
  std::vector<int32_t> bias;
};

// The layers of a model, and their quantizers.
class Quantization {
 public:
  Quantization(Model model, const QuantizeOptions& options) : model_(std::move(model)), options_(options) {}

  // Keeps the chosen outputs, finds the layers and calibrates them.
  absl::Status Prepare(const std::vector<NamedTensors>& samples);
  // Finds out which layers can be quantized, and with what error.
  absl::StatusOr<std::vector<QuantizedLayer>> Judge(const std::vector<NamedTensors>& samples);
  absl::StatusOr<Model> Replace(const std::vector<QuantizedLayer>& judged);
  absl::StatusOr<Graph> AddFakes();

 private:
  absl::Status KeepOutputs();
  // The value whose numbers the port has.
  Port Root(Port port) const;
  const Quantizer& QuantizerOf(Port port) const { return quantizers_.at(Root(port)); }
  // Returns why the layer has to stay in float32, or "".
  std::string Obstacle(const ProductLayer& layer) const;
  IntegerWeights WeightsOf(const ProductLayer& layer, const Quantizer& x) const;
  // Adds the layer with integers. q is its quantized input.
  Value AddLayer(Scope& scope, const ProductLayer& layer, Value q, const std::optional<Quantizer>& result) const;
  // Finds the values that quantized layers alone need, perhaps moved; these become integers.
  absl::flat_hash_map<Port, bool> FindIntegers(const absl::flat_hash_map<NodeId, const ProductLayer*>& products) const;

  Model model_;
  const QuantizeOptions& options_;
  Uses uses_;
  std::vector<ProductLayer> layers_;
  absl::flat_hash_map<Port, Quantizer> quantizers_;  // The quantizers of roots.
};

absl::Status Quantization::KeepOutputs() {
  Graph& graph = model_.graph;
  std::vector<std::pair<std::string, std::vector<Port>>> kept;
  for (const std::string& name : options_.outputs) {
    const auto found = graph.outputs().find(name);
    if (found == graph.outputs().end())
      return absl::InvalidArgumentError(absl::StrCat("Quantize: the model has no output '", name, "'"));
    kept.push_back(*found);
  }
  if (options_.outputs.empty()) {
    std::vector<bool> depends_on_assignment(graph.num_nodes(), false);
    for (const Node& node : graph.nodes()) {
      const auto depends = [&](Port input) { return depends_on_assignment[input.node]; };
      depends_on_assignment[node.id] =
          node.op->kind == OpKind::kAssign || std::any_of(node.inputs.begin(), node.inputs.end(), depends);
    }
    for (const auto& output : graph.outputs()) {
      const auto depends = [&](Port port) { return depends_on_assignment[port.node]; };
      if (std::none_of(output.second.begin(), output.second.end(), depends)) kept.push_back(output);
    }
  }
  if (kept.empty()) {
    return absl::InvalidArgumentError(
        "Quantize: the model has no output but such as assign variables; Graph::SetOutput names one");
  }
  graph.ClearOutputs();
  for (const auto& [name, ports] : kept) {
    std::vector<Value> values;
    for (Port port : ports) values.push_back(graph.value(port));
    graph.SetOutput(name, values);
  }
  return absl::OkStatus();
}

Port Quantization::Root(Port port) const {
  while (PassesIntegers(model_.graph.node(port.node), uses_)) port = model_.graph.node(port.node).inputs[0];
  return port;
}

absl::Status Quantization::Prepare(const std::vector<NamedTensors>& samples) {
  if (!(options_.percentile > 0 && options_.percentile <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Quantize: percentile is ", options_.percentile, " and has to be in (0, 100]"));
  }
  if (!(options_.greatest_error >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Quantize: greatest_error is ", options_.greatest_error, " and has to be at least 0"));
  }
  GW_RETURN_IF_ERROR(KeepOutputs());
  uses_ = FindUses(model_.graph);
  GW_ASSIGN_OR_RETURN(Session session, CreateSession(model_, {.threads = options_.threads}));
  GW_ASSIGN_OR_RETURN(layers_, FindProductLayers(model_.graph, session));
  std::vector<Value> roots;
  for (const ProductLayer& layer : layers_) {
    const Value root = model_.graph.value(Root(layer.x));
    if (std::find(roots.begin(), roots.end(), root) == roots.end()) roots.push_back(root);
  }
  GW_ASSIGN_OR_RETURN(const std::vector<Quantizer> quantizers,
                      Calibrate(session, model_.graph, roots, samples, options_));
  for (size_t i = 0; i < roots.size(); ++i) quantizers_.emplace(roots[i].port(), quantizers[i]);
  return absl::OkStatus();
}

std::string Quantization::Obstacle(const ProductLayer& layer) const {
  const auto is_finite = [](double x) { return std::isfinite(x); };
  if (std::find(options_.keep.begin(), options_.keep.end(), layer.name) != options_.keep.end())
    return "the options keep it";
  if (!(QuantizerOf(layer.x).scale > 0)) return "its input is 0 in all samples";
  if (!std::all_of(layer.weights.begin(), layer.weights.end(), is_finite) ||
      !std::all_of(layer.bias.begin(), layer.bias.end(), is_finite)) {
    return "its folded weights are not finite";
  }
  const double terms =
      static_cast<double>(layer.weights.size()) / static_cast<double>(std::max<int64_t>(layer.channels(), 1));
  if (terms * 255 * kLargestWeight > kLargestSum / 2)
    return absl::StrCat("sums of ", terms, " products may exceed int32");
  return "";
}

IntegerWeights Quantization::WeightsOf(const ProductLayer& layer, const Quantizer& x) const {
  std::vector<double> largest(layer.channels(), 0);
  for (size_t i = 0; i < layer.weights.size(); ++i) {
    double& of_channel = largest[layer.ChannelOf(static_cast<int64_t>(i))];
    of_channel = std::max(of_channel, std::abs(layer.weights[i]));
  }
  if (!options_.per_channel) largest.assign(largest.size(), *std::max_element(largest.begin(), largest.end()));
  IntegerWeights result;
  std::vector<double> scale;
  for (int64_t c = 0; c < layer.channels(); ++c) {
    // The bias has to fit as well. A channel of zeros may have any scale.
    const double least = std::abs(layer.bias[c]) / (static_cast<double>(x.scale) * kLargestSum / 2);
    const double wanted = std::max(largest[c] / kLargestWeight, least);
    scale.push_back(wanted > 0 ? wanted : 1);
    const double of_sum = scale[c] * static_cast<double>(x.scale);
    result.scale.push_back(static_cast<float>(of_sum));
    result.bias.push_back(static_cast<int32_t>(std::llround(layer.bias[c] / of_sum)));
  }
  for (size_t i = 0; i < layer.weights.size(); ++i) {
    const double number = layer.weights[i] / scale[layer.ChannelOf(static_cast<int64_t>(i))];
    result.weights.push_back(static_cast<int8_t>(std::clamp(std::nearbyint(number), -kLargestWeight, kLargestWeight)));
  }
  return result;
}

Value Quantization::AddLayer(Scope& scope, const ProductLayer& layer, Value q,
                             const std::optional<Quantizer>& result) const {
  const Quantizer& x = QuantizerOf(layer.x);
  IntegerWeights integers = WeightsOf(layer, x);
  QuantizedResult form = {.relu = layer.relu};
  if (result.has_value()) {
    form.dtype = result->dtype;
    form.zero = result->zero;
    for (float& scale : integers.scale) scale /= result->scale;
  }
  const int64_t channels[] = {layer.channels()};
  const Value weights = scope.Constant(Tensor::Of<int8_t>(layer.sizes, integers.weights));
  const Value scale = scope.Constant(Tensor::Of<float>(channels, integers.scale));
  const Value bias = scope.Constant(Tensor::Of<int32_t>(channels, integers.bias));
  if (!layer.is_conv()) return QuantizedMatMul(q, weights, scale, bias, x.zero, form);
  return QuantizedConv2D(q, weights, scale, bias, x.zero, ConvOptionsOf(model_.graph.node(layer.product())), form);
}

absl::StatusOr<std::vector<QuantizedLayer>> Quantization::Judge(const std::vector<NamedTensors>& samples) {
  std::vector<QuantizedLayer> judged;
  // Each layer that can be quantized gets a quantized copy, whose input is the float32 one.
  Model both = model_;
  Scope scope(both.graph);
  std::vector<Fetch> fetches;
  std::vector<size_t> measured;
  for (const ProductLayer& layer : layers_) {
    QuantizedLayer& row = judged.emplace_back();
    row.name = layer.name;
    row.op = model_.graph.node(layer.product()).op->name;
    row.reason = Obstacle(layer);
    if (!row.reason.empty()) continue;
    const Quantizer& x = QuantizerOf(layer.x);
    const Value y = both.graph.value(layer.y());
    const Value q = gradweave::Quantize(both.graph.value(layer.x), x.scale, x.zero, x.dtype);
    const Value difference = Sub(AddLayer(scope, layer, q, std::nullopt), y);
    measured.push_back(judged.size() - 1);
    fetches.push_back(Sum(Square(difference)));
    fetches.push_back(Sum(Square(y)));
  }
  GW_ASSIGN_OR_RETURN(Session session, CreateSession(both, {.threads = options_.threads}));
  std::vector<double> sums(fetches.size(), 0);
  for (const NamedTensors& sample : samples) {
    GW_ASSIGN_OR_RETURN(const std::vector<Feed> feeds, FeedsOf(both.graph, sample));
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(feeds, fetches));
    for (size_t i = 0; i < results.size(); ++i) sums[i] += results[i].ToDouble();
  }
  for (size_t i = 0; i < measured.size(); ++i) {
    QuantizedLayer& row = judged[measured[i]];
    const double wrong = sums[2 * i], all = sums[2 * i + 1];
    row.error = wrong == 0 ? 0 : std::sqrt(wrong / all);
    row.quantized = row.error <= options_.greatest_error;
    if (!row.quantized) row.reason = absl::StrFormat("its error is above %g", options_.greatest_error);
  }
  return judged;
}

absl::flat_hash_map<Port, bool> Quantization::FindIntegers(
    const absl::flat_hash_map<NodeId, const ProductLayer*>& products) const {
  const Graph& graph = model_.graph;
  absl::flat_hash_map<Port, bool> integers;
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    for (Port port : graph.node(id).ports()) {
      const auto users = uses_.find(port);
      if (users == uses_.end()) continue;
      integers[port] =
          !users->second.empty() && std::all_of(users->second.begin(), users->second.end(), [&](NodeId user) {
            if (user < 0) return false;
            const Node& node = graph.node(user);
            if (products.contains(user)) return node.inputs[0] == port && node.inputs[1] != port;
            return PassesIntegers(node, uses_) && integers[{user, 0}];
          });
    }
  }
  return integers;
}

absl::StatusOr<Model> Quantization::Replace(const std::vector<QuantizedLayer>& judged) {
  absl::flat_hash_map<NodeId, const ProductLayer*> products, ends, inside;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (!judged[i].quantized) continue;
    products[layers_[i].product()] = &layers_[i];
    for (NodeId node : layers_[i].nodes) inside[node] = &layers_[i];
    ends[layers_[i].nodes.back()] = &layers_[i];
  }
  const absl::flat_hash_map<Port, bool> integers = FindIntegers(products);
  absl::flat_hash_map<Port, Port> moved;      // The inputs of layers in the new graph.
  absl::flat_hash_map<Port, Port> quantized;  // The same as integers, by the port in the new graph.
  GW_ASSIGN_OR_RETURN(
      Graph graph,
      Rewrite(
          model_.graph,
          [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
            const auto found = inside.find(node.id);
            if (found == inside.end()) {
              if (node.op->kind != OpKind::kMaxPool2D) return std::nullopt;
              const DType dtype = result.type(inputs[0]).dtype;
              if (dtype != kInt8 && dtype != kUint8) return std::nullopt;
              // The one of integers has no indices, which nothing uses.
              const Port maxima = MaxPool2D(result.value(inputs[0]), OptionsOfPool(node)).port();
              return Ports{maxima, maxima};
            }
            const ProductLayer& layer = *found->second;
            if (node.id == layer.product()) moved[layer.x] = inputs[0];
            // Only the last node of a layer has a value that others need.
            if (!ends.contains(node.id)) return Ports{inputs[0]};
            Scope scope(result);
            const LocationGuard location(result, model_.graph.node(layer.product()).location);
            const Port x = moved.at(layer.x);
            if (result.type(x).dtype == kFloat32 && !quantized.contains(x)) {
              const Quantizer& quantizer = QuantizerOf(layer.x);
              quantized[x] =
                  gradweave::Quantize(result.value(x), quantizer.scale, quantizer.zero, quantizer.dtype).port();
            }
            const Value q = result.value(result.type(x).dtype == kFloat32 ? quantized.at(x) : x);
            std::optional<Quantizer> form;
            if (integers.at(layer.y())) form = quantizers_.at(layer.y());
            const Value y = AddLayer(scope, layer, q, form);
            GW_RETURN_IF_ERROR(result.status());
            return Ports{y.port()};
          }));
  Model result;
  GW_ASSIGN_OR_RETURN(result.graph, EliminateDeadNodes(graph));
  result.seed = model_.seed;
  result.run_number = model_.run_number;
  for (const auto& variable : model_.variables) {
    if (result.graph.FindNamed(variable.first) >= 0) result.variables.push_back(variable);
  }
  return result;
}

absl::StatusOr<Graph> Quantization::AddFakes() {
  absl::flat_hash_map<NodeId, const ProductLayer*> products;
  for (const ProductLayer& layer : layers_) {
    if (Obstacle(layer).empty()) products[layer.product()] = &layer;
  }
  absl::flat_hash_map<Port, Port> fakes;
  return Rewrite(
      model_.graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        const auto found = products.find(node.id);
        if (found == products.end()) return std::nullopt;
        const ProductLayer& layer = *found->second;
        const LocationGuard location(result, node.location);
        const Quantizer& x = QuantizerOf(layer.x);
        if (!fakes.contains(inputs[0])) {
          fakes[inputs[0]] = FakeQuantize(result.value(inputs[0]), x.scale, x.zero, x.low(), x.high()).port();
        }
        const Value weights = result.value(inputs[1]);
        Integers axes;
        const int channel_axis = layer.is_conv() || node.attribute<bool>("transpose_b") ? 0 : weights.rank() - 1;
        for (int axis = 0; axis < weights.rank(); ++axis) {
          if (axis != channel_axis || !options_.per_channel) axes.push_back(axis);
        }
        // The smallest number keeps a channel of zeros from division by 0.
        const Value scale = Maximum(Div(Max(Abs(weights), {.axes = axes, .keep_dims = true}), kLargestWeight),
                                    static_cast<double>(std::numeric_limits<float>::min()));
        Ports ports(inputs.begin(), inputs.end());
        ports[0] = fakes.at(inputs[0]);
        ports[1] = FakeQuantize(weights, scale, 0, -127, 127).port();
        GW_RETURN_IF_ERROR(result.status());
        GW_ASSIGN_OR_RETURN(const NodeId product, result.AddNodeLike(node, ports));
        return result.node(product).ports();
      });
}

}  // namespace

std::string QuantizedModel::ToString() const {
  size_t width = 5;
  for (const QuantizedLayer& layer : layers) width = std::max(width, layer.name.size());
  std::string text = absl::StrFormat("%-*s  %-6s  %8s  result\n", static_cast<int>(width), "layer", "op", "error");
  for (const QuantizedLayer& layer : layers) {
    absl::StrAppendFormat(&text, "%-*s  %-6s  %8.5f  %s\n", static_cast<int>(width), layer.name, layer.op, layer.error,
                          layer.quantized ? "int8" : absl::StrCat("float32: ", layer.reason));
  }
  return text;
}

absl::StatusOr<QuantizedModel> Quantize(const Model& model, const std::vector<NamedTensors>& samples,
                                        const QuantizeOptions& options) {
  Quantization quantization(model, options);
  GW_RETURN_IF_ERROR(quantization.Prepare(samples));
  QuantizedModel result;
  GW_ASSIGN_OR_RETURN(result.layers, quantization.Judge(samples));
  GW_ASSIGN_OR_RETURN(result.model, quantization.Replace(result.layers));
  return result;
}

absl::StatusOr<Graph> FakeQuantized(const Model& model, const std::vector<NamedTensors>& samples,
                                    const QuantizeOptions& options) {
  Quantization quantization(model, options);
  GW_RETURN_IF_ERROR(quantization.Prepare(samples));
  return quantization.AddFakes();
}

}  // namespace gradweave
