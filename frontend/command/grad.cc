// gradweave grad: adds gradients to a model.
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/model_writer.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/updates.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::vector<std::string>, wrt, {"trainable"},
          "The variables and inputs with respect to which to differentiate, or `trainable` for all trainable variables "
          "that the output depends on.");

namespace gradweave::command {
namespace {

// The floating variables and inputs of these names.
absl::StatusOr<std::vector<Value>> ValuesOf(Graph& graph, const Value& loss, const std::vector<std::string>& names) {
  if (names == std::vector<std::string>{"trainable"}) {
    std::vector<Value> values = optim::TrainableVariables(graph, loss);
    if (!values.empty()) return values;
    return absl::InvalidArgumentError("the output depends on no trainable variable; --wrt names inputs and variables");
  }
  std::vector<std::string> known = NamesOf(graph, OpKind::kVariable);
  for (std::string& name : NamesOf(graph, OpKind::kInput)) known.push_back(std::move(name));
  std::vector<Value> values;
  for (const std::string& name : names) {
    const NodeId id = graph.FindNamed(name);
    if (id < 0) {
      return absl::NotFoundError(
          absl::StrCat("the model has no variable or input '", PrintableText(name), "'", DidYouMean(name, known)));
    }
    values.push_back(graph.value(id));
    if (!IsFloating(values.back().dtype())) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", PrintableText(name), "' is ", values.back().type().ToString(), ", which has no gradient"));
    }
  }
  return values;
}

absl::StatusOr<int> RunGrad(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string path = absl::GetFlag(FLAGS_output), of = absl::GetFlag(FLAGS_loss);
  if (of.empty()) return UsageError("--loss=NAME is expected, the output to differentiate");
  GW_RETURN_IF_ERROR(CheckWritable(path));
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  Graph& graph = source.model.graph;
  GW_ASSIGN_OR_RETURN(const std::vector<NamedOutput> outputs, SelectOutputs(graph, {of}));
  const std::vector<Value>& ys = outputs[0].values;
  if (ys.size() != 1 || outputs[0].is_update || !IsFloating(ys[0].dtype())) {
    return absl::InvalidArgumentError(absl::StrCat("output '", PrintableText(of), "' is not a single floating value"));
  }
  GW_ASSIGN_OR_RETURN(const std::vector<Value> xs, ValuesOf(graph, ys[0], absl::GetFlag(FLAGS_wrt)));
  const int nodes = graph.num_nodes();
  const std::vector<Value> gradients = Gradients(ys, xs, {}, {.unreachable = GradientOptions::kError});
  GW_RETURN_IF_ERROR(graph.status());
  TextTable table({"", ""});
  for (size_t i = 0; i < xs.size(); ++i) {
    const std::string name = absl::StrCat("grad/", xs[i].node().name);
    graph.SetOutput(name, {gradients[i]});
    table.AddRow({PrintableText(name), gradients[i].type().ToString()});
  }
  GW_RETURN_IF_ERROR(WriteModel(source.model, path));
  out << path << ": " << Counted(graph.num_nodes() - nodes, "node") << " more, and the outputs\n" << table.ToString(2);
  return 0;
}

}  // namespace

Subcommand Grad() {
  return {.name = "grad",
          .arguments = "MODEL",
          .summary = "Adds the gradient of an output to a model, as more graph",
          .details =
              "The new model has the outputs of the old one, and an output grad/NAME for each variable or input.\n"
              "A FILE that ends in .onnx becomes an ONNX model, without updates.",
          .flags = {{"loss", "NAME", "The output to differentiate; if it has several elements, their sum."},
                    {"wrt", "NAMES"},
                    {"output", "FILE"}},
          .fewest = 1,
          .most = 1,
          .run = RunGrad};
}

}  // namespace gradweave::command
