#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/frontend/c/handles.h"
#include "gradweave/frontend/c/status.h"
#include "gradweave/frontend/onnx/any_model.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/shape.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave {
namespace {

constexpr const char* kKindNames[] = {"input", "output", "variable"};

bool IsUpdate(const Graph& graph, const std::vector<Port>& ports) {
  for (Port port : ports) {
    if (graph.node(port.node).op->kind != OpKind::kAssign) return false;
  }
  return !ports.empty();
}

absl::Status UnknownName(const Graph& graph, gw_kind kind, absl::string_view name) {
  constexpr size_t kMostNames = 20;
  const Descriptions known = Describe(graph, kind);
  std::vector<std::string> names;
  for (size_t i = 0; i < known.size() && i < kMostNames; ++i) names.push_back(absl::StrCat("'", known[i]->name, "'"));
  if (known.size() > kMostNames) names.push_back(absl::StrCat("and ", known.size() - kMostNames, " more"));
  return absl::NotFoundError(absl::StrCat("the model has no ", kKindNames[kind], " '", name, "'; its ",
                                          kKindNames[kind], "s are ",
                                          names.empty() ? "none" : absl::StrJoin(names, ", ")));
}

absl::Status CheckKind(gw_kind kind) {
  if (kind >= GW_INPUT && kind <= GW_VARIABLE) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("kind ", kind, " is not a gw_kind"));
}

absl::StatusOr<std::unique_ptr<gw_model>> Handle(absl::StatusOr<Model> model) {
  GW_RETURN_IF_ERROR(model.status());
  auto handle = std::make_unique<gw_model>(gw_model{.model = *std::move(model)});
  for (gw_kind kind : {GW_INPUT, GW_OUTPUT, GW_VARIABLE})
    handle->descriptions[kind] = Describe(handle->model.graph, kind);
  return handle;
}

absl::StatusOr<onnx::AnyModelOptions> Convert(const gw_load_options* options) {
  onnx::AnyModelOptions result;
  if (options == nullptr) return result;
  if (options->memory_limit < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory_limit is ", options->memory_limit, " and has to be at least 0; 0 means 8 GiB"));
  }
  if (options->memory_limit != 0) result.memory_limit = options->memory_limit;
  result.map_weights = options->map_weights != 0;
  if (options->num_fixed > 0) GW_RETURN_IF_ERROR(CheckGiven({{"fixed", options->fixed}}));
  for (size_t i = 0; i < options->num_fixed; ++i) {
    const gw_feed& fixed = options->fixed[i];
    GW_RETURN_IF_ERROR(CheckGiven({{"a name in fixed", fixed.name}, {"a tensor in fixed", fixed.tensor}}));
    // The model may live longer than the caller's memory.
    result.fixed.insert_or_assign(fixed.name, fixed.tensor->tensor.Clone());
  }
  if (options->num_shapes > 0) GW_RETURN_IF_ERROR(CheckGiven({{"shapes", options->shapes}}));
  for (size_t i = 0; i < options->num_shapes; ++i) {
    const gw_shape& shape = options->shapes[i];
    GW_RETURN_IF_ERROR(CheckGiven({{"a name in shapes", shape.name}}));
    GW_ASSIGN_OR_RETURN(const absl::Span<const int64_t> sizes, CheckSizes(shape.rank, shape.sizes));
    if (!CheckedNumElements(sizes).has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("in shapes, '", shape.name, "' has a negative size, or too many elements"));
    }
    result.shapes.insert_or_assign(shape.name, Shape(sizes));
  }
  return result;
}

// Adds the gradients to a graph, which is of no use after an error.
absl::Status AddGradients(Graph& graph, absl::string_view loss, const std::vector<Value>& wrt,
                          absl::string_view prefix) {
  GW_ASSIGN_OR_RETURN(const NamedOutput output, FindOutput(graph, loss));
  if (output.is_update)
    return absl::InvalidArgumentError(absl::StrCat("output '", loss, "' is an update and has no gradient"));
  const std::vector<Value> gradients = Gradients({output.values}, wrt);
  GW_RETURN_IF_ERROR(graph.status());
  for (size_t i = 0; i < wrt.size(); ++i) {
    const std::string name = absl::StrCat(prefix, wrt[i].node().name);
    if (graph.outputs().contains(name))
      return absl::AlreadyExistsError(
          absl::StrCat("the model has an output '", name, "' already: give another prefix"));
    graph.SetOutput(name, {gradients[i]});
  }
  return graph.status();
}

}  // namespace

Descriptions Describe(const Graph& graph, gw_kind kind) {
  Descriptions result;
  const auto add = [&](std::string name, const TensorType& type, bool trainable, bool is_update) {
    result.push_back(std::make_unique<Description>(std::move(name), type, trainable, is_update));
  };
  if (kind == GW_OUTPUT) {
    for (const auto& [name, ports] : graph.outputs()) {
      if (IsUpdate(graph, ports)) {
        add(name, TensorType(), false, true);
        continue;
      }
      for (size_t i = 0; i < ports.size(); ++i)
        add(ports.size() == 1 ? name : absl::StrCat(name, ":", i), graph.type(ports[i]), false, false);
    }
    return result;
  }
  for (const Node& node : graph.nodes()) {
    const bool is_variable = node.op->kind == OpKind::kVariable;
    if (kind == GW_VARIABLE ? is_variable : node.op->kind == OpKind::kInput)
      add(node.name, node.outputs[0], is_variable && node.attribute<bool>("trainable"), false);
  }
  return result;
}

Description::Description(std::string name, const TensorType& type, bool trainable, bool is_update)
    : name(std::move(name)), dtype(type.dtype), trainable(trainable), is_update(is_update) {
  for (const Dim& dim : type.shape) {
    sizes.push_back(dim.is_known() ? dim.size() : -1);
    dimensions.push_back(dim.ToString());
  }
  for (const std::string& dimension : dimensions) dimension_pointers.push_back(dimension.c_str());
}

gw_description Description::View() const {
  return {.name = name.c_str(),
          .dtype = static_cast<gw_dtype>(dtype),
          .rank = static_cast<int32_t>(sizes.size()),
          .sizes = sizes.data(),
          .dimensions = dimension_pointers.data(),
          .trainable = trainable,
          .is_update = is_update};
}

absl::StatusOr<NamedOutput> FindOutput(const Graph& graph, absl::string_view name) {
  Graph* const handle = const_cast<Graph*>(&graph);  // For values to read with; nothing changes the graph.
  const auto& outputs = graph.outputs();
  if (const auto found = outputs.find(name); found != outputs.end()) {
    const std::vector<Port>& ports = found->second;
    NamedOutput result{.is_update = IsUpdate(graph, ports)};
    if (ports.size() == 1 || result.is_update) {
      for (Port port : ports) result.values.push_back(handle->value(port));
      return result;
    }
    return absl::InvalidArgumentError(absl::StrCat("output '", name, "' is a list of ", ports.size(), " values; '",
                                                   name, ":0' is the first of them"));
  }
  const size_t colon = name.rfind(':');
  size_t index = 0;
  if (colon != absl::string_view::npos && absl::SimpleAtoi(name.substr(colon + 1), &index)) {
    const auto list = outputs.find(name.substr(0, colon));
    if (list != outputs.end() && list->second.size() > 1 && index < list->second.size() &&
        !IsUpdate(graph, list->second))
      return NamedOutput{.values = {handle->value(list->second[index])}};
  }
  return UnknownName(graph, GW_OUTPUT, name);
}

absl::StatusOr<Value> FindNode(const Graph& graph, gw_kind kind, absl::string_view name) {
  const NodeId id = graph.FindNamed(name);
  const OpKind op = kind == GW_INPUT ? OpKind::kInput : OpKind::kVariable;
  if (id < 0 || graph.node(id).op->kind != op) return UnknownName(graph, kind, name);
  return const_cast<Graph*>(&graph)->value(id);  // A handle to read with; nothing changes the graph.
}

}  // namespace gradweave

using namespace gradweave;  // NOLINT: the functions below are those of the C interface alone.

gw_status gw_model_load(const char* path, const gw_load_options* options, gw_model** model) {
  return Guard("gw_model_load", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}}));
    *model = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"path", path}}));
    GW_ASSIGN_OR_RETURN(const onnx::AnyModelOptions converted, Convert(options));
    GW_ASSIGN_OR_RETURN(std::unique_ptr<gw_model> handle, Handle(onnx::LoadAnyModel(path, converted)));
    *model = handle.release();
    return absl::OkStatus();
  });
}

gw_status gw_model_load_bytes(const void* bytes, size_t num_bytes, const gw_load_options* options, gw_model** model) {
  return Guard("gw_model_load_bytes", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}}));
    *model = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"bytes", bytes}}));
    GW_ASSIGN_OR_RETURN(const onnx::AnyModelOptions converted, Convert(options));
    const absl::string_view file(static_cast<const char*>(bytes), num_bytes);
    GW_ASSIGN_OR_RETURN(std::unique_ptr<gw_model> handle, Handle(onnx::AnyModelFromBytes(file, converted)));
    *model = handle.release();
    return absl::OkStatus();
  });
}

gw_status gw_model_save(const gw_model* model, const char* path) {
  return Guard("gw_model_save", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}, {"path", path}}));
    return SaveModel(model->model, path);
  });
}

void gw_model_destroy(gw_model* model) { delete model; }

gw_status gw_model_count(const gw_model* model, gw_kind kind, size_t* count) {
  return Guard("gw_model_count", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}, {"count", count}}));
    GW_RETURN_IF_ERROR(CheckKind(kind));
    *count = model->descriptions[kind].size();
    return absl::OkStatus();
  });
}

gw_status gw_model_describe(const gw_model* model, gw_kind kind, size_t index, gw_description* description) {
  return Guard("gw_model_describe", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}, {"description", description}}));
    GW_RETURN_IF_ERROR(CheckKind(kind));
    const Descriptions& known = model->descriptions[kind];
    if (index >= known.size()) {
      return absl::OutOfRangeError(
          absl::StrCat("there is no ", kKindNames[kind], " ", index, ": the model has ", known.size()));
    }
    *description = known[index]->View();
    return absl::OkStatus();
  });
}

gw_status gw_model_find(const gw_model* model, gw_kind kind, const char* name, gw_description* description) {
  return Guard("gw_model_find", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}, {"name", name}, {"description", description}}));
    GW_RETURN_IF_ERROR(CheckKind(kind));
    for (const auto& known : model->descriptions[kind]) {
      if (known->name != name) continue;
      *description = known->View();
      return absl::OkStatus();
    }
    return UnknownName(model->model.graph, kind, name);
  });
}

gw_status gw_model_add_gradients(gw_model* model, const char* loss, const char* const* wrt, size_t num_wrt,
                                 const char* prefix) {
  return Guard("gw_model_add_gradients", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"model", model}, {"loss", loss}, {"prefix", prefix}}));
    if (num_wrt > 0) GW_RETURN_IF_ERROR(CheckGiven({{"wrt", wrt}}));
    // An error stays in a graph, so the copy takes it.
    Graph graph = model->model.graph;
    std::vector<Value> values;
    for (size_t i = 0; i < num_wrt; ++i) {
      GW_RETURN_IF_ERROR(CheckGiven({{"a name in wrt", wrt[i]}}));
      absl::StatusOr<Value> value = FindNode(graph, GW_VARIABLE, wrt[i]);
      if (!value.ok()) value = FindNode(graph, GW_INPUT, wrt[i]);
      if (!value.ok()) {
        return absl::NotFoundError(
            absl::StrCat("the model has no input and no variable '", wrt[i], "'; gw_model_describe lists them"));
      }
      values.push_back(*value);
    }
    for (const auto& variable : model->descriptions[GW_VARIABLE]) {
      if (num_wrt == 0 && variable->trainable) values.push_back(graph.value(graph.FindNamed(variable->name)));
    }
    if (values.empty()) return absl::InvalidArgumentError("the model has no trainable variables: name values in wrt");
    GW_RETURN_IF_ERROR(AddGradients(graph, loss, values, prefix));
    Descriptions outputs = Describe(graph, GW_OUTPUT);
    model->model.graph = std::move(graph);
    model->descriptions[GW_OUTPUT] = std::move(outputs);
    return absl::OkStatus();
  });
}
