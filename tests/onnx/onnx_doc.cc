// docs/onnx.md, from the table of ops and the results of the test cases.
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/frontend/onnx/importer.h"
#include "tests/onnx/cases.h"

namespace gradweave::onnx {
namespace {

constexpr char kBegin[] = R"(# ONNX

`gw::onnx::Import` (`frontend/onnx/import.h`) reads an ONNX file and returns a graph with variables.
A program that includes it depends on `//frontend/onnx` beside `//:gradweave`:

    GW_ASSIGN_OR_RETURN(gw::onnx::ImportedModel net, gw::onnx::Import("lenet.onnx"));
    gw::Value loss = gw::Mean(gw::SparseSoftmaxCrossEntropy(net.Output("logits"), label));
    gw::Update step = gw::optim::Adam{}.Minimize(loss);
    GW_ASSIGN_OR_RETURN(gw::Session session, gw::CreateSession(net.model));

- Floating initializers become variables with the same names. They are trainable unless
  `ImportOptions` says otherwise; the statistics of BatchNormalization are not trainable. Other
  initializers are constants.
- Sizes that the file leaves open are symbols, so a model with a dynamic batch runs and trains with
  any batch. The import tracks integers that nodes compute from sizes (Shape, Gather, Concat, Slice,
  arithmetic) as dimensions: `Reshape(x, [Shape(x)[0], -1])` needs no value.
- If nodes work for some sizes only, the input gets these sizes. Two names of sizes that have to be
  equal become one symbol, and a height that has to be a multiple of 32 becomes `32*height_32`.
  Other sizes are an error of the run.
- If a shape depends on the value of an input, `ImportOptions::fixed` has to give this value. If a
  branch or a shape needs a number for an open size, `ImportOptions::shapes` has to give it. The
  error names these inputs. Values that are computed from constants alone are computed during the
  import.
- Functions of the model are expanded. LSTM, GRU, RNN, Loop and Scan become loops of the engine, for
  any number of steps. A Loop whose number of rounds depends on its own results is unrolled, if this
  number is known. If the condition of an If is known only in a run, the graph computes both
  branches and selects one result.
- An unknown attribute is an error, like an unknown op.
- Dtypes are float16, bfloat16, float32, float64, bool and integers of 8 to 64 bits. Where the
  engine has an op for int32 and int64 alone, other integers are computed in these and wrap around.
  Numbers of 4 bits, floats of 8 bits, strings, sequences of tensors, optional values and sparse
  initializers are not supported.
- Products and convolutions of quantized numbers (QLinearConv, QLinearMatMul, QGemm) become
  quantized layers ([quantization.md](quantization.md)) if their weights are int8 with zero point 0.
- Tensors outside of the file are read only from the model's folder, and never through links.
- All nodes that cannot be imported are listed in one error.
- A session copies the values of variables. `net.model.variables.clear()` then frees the originals,
  so a large model is in memory only once.

`//examples:finetune` imports a model from PyTorch, trains it with its own head or a new one, and
exports it.

`gw::onnx::Runner` (`frontend/onnx/runner.h`) runs a file as it is. It imports the file again for
each combination of sizes and values that the graph depends on, and keeps the graphs:

    gw::onnx::Runner runner("silero_vad.onnx");
    GW_ASSIGN_OR_RETURN(auto outputs, runner.Run({{"input", samples}, {"state", h}, {"sr", rate}}));

`tests/onnx/real_models.py` downloads packages from PyPI, runs the models in them and compares them
with ONNX Runtime: outputs, time, memory, and gradients with central differences.

`gw::onnx::Export` (`frontend/onnx/export.h`) writes the nodes that named values need, and the
values of variables, at opset 17 to 20. It also exports gradients, gradients of gradients and
training steps:

    GW_ASSIGN_OR_RETURN(gw::Model model, gw::ModelOf(session));
    GW_RETURN_IF_ERROR(gw::onnx::Export(model, {{"logits", logits}}, "lenet.onnx"));
    GW_RETURN_IF_ERROR(gw::onnx::Export(model, gw::onnx::NewValues(step.assignments), "step.onnx"));

- An op is written as its ONNX op, or as a composition of ONNX's ops; the last table of this page
  has both. If ONNX has no form for a node, the error names the node.
- Loops and branches become Scan, Loop and If.
- Sizes that are symbols stay open in the file, which computes sums, products and quotients of them.
- A variable that the file assigns is an input with a default. The output "new/w" is the new value
  of the variable "w". A program trains with the file if it feeds these outputs to the inputs of the
  next run.
- Random ops give different numbers than in Gradweave.

An exported and imported graph gives the same bits if each op has an ONNX op.
`tests/onnx/export_ops_test.cc` exports and imports the cases of all ops with their first and second
derivatives; `tests/onnx/models/check_export.py` compares the same files with ONNX Runtime.

`bazel run //tests/onnx:conformance` runs ONNX's backend test cases of Debian's package
`libonnx-testdata`, and with `-- --doc` writes this file. `tests/onnx/newest_suite.py` writes the
cases of the newest `onnx` package for it. A case with random numbers fails too, such as Bernoulli
and Dropout in training.

)";

constexpr char kTable[] = R"(
The table gives the first opset of each op. The import follows the rules of each version up to opset
28. "Cases" counts the cases that pass, among the cases with the op and the dtypes above.
"Gradient" is "yes" if a gradient reaches an input in one of them. The ops that an import consists
of are compared with central differences ([ops.md](ops.md)).

| op | from opset | cases | gradient |
| --- | --- | --- | --- |
)";

constexpr char kExportTable[] = R"(
## Ops of Gradweave in ONNX

A composition names the operands a, b and c; attributes are left out.

| op | in ONNX | from opset |
| --- | --- | --- |
)";

std::string ExportTable() {
  std::map<std::string, const ExportRow*> rows;
  for (const absl::Span<const ExportRow> family : AllForms()) {
    for (const ExportRow& row : family) rows[row.op] = &row;
  }
  std::string text = kExportTable;
  for (const auto& [op, row] : rows) {
    const bool refused = row->write == Refused;
    const bool is_code = !refused && absl::string_view(row->form).find(' ') == absl::string_view::npos;
    const bool is_composition = absl::string_view(row->form).find('(') != absl::string_view::npos;
    const char* const quote = is_code || is_composition ? "`" : "";
    absl::StrAppend(&text, "| ", op, " | ", refused ? "no: " : "", quote, row->form, quote, " | ",
                    refused ? "" : absl::StrCat(row->since), " |\n");
  }
  return text;
}

}  // namespace

std::string OnnxDoc(const std::vector<CaseResult>& results) {
  struct Counts {
    int passed = 0, cases = 0;
    bool gradient = false;
  };
  std::map<std::string, Counts> by_op;
  int total[3] = {};
  for (const CaseResult& result : results) {
    ++total[result.outcome];
    if (result.outcome == CaseResult::kOutOfScope) continue;
    for (const std::string& op : result.ops) {
      Counts& counts = by_op[op];
      ++counts.cases;
      if (result.outcome == CaseResult::kPassed) ++counts.passed;
      // In a case of several ops, another one may stop or pass the gradient.
      counts.gradient |= result.has_gradient && result.ops.size() == 1;
    }
  }
  std::map<std::string, int> since;
  for (const absl::Span<const OpRow> rows : AllRows()) {
    for (const OpRow& row : rows) {
      const std::string name = *row.domain == '\0' ? row.name : absl::StrCat(row.domain, ".", row.name);
      const auto found = since.find(name);
      if (found == since.end() || row.since < found->second) since[name] = row.since;
    }
  }
  std::string text =
      absl::StrCat(kBegin, "Of ", total[0] + total[1] + total[2], " cases, ", total[0], " pass, ", total[1],
                   " fail and ", total[2], " are out of scope by their dtypes or domains.\n", kTable);
  for (const auto& [name, opset] : since) {
    const Counts& counts = by_op[name];
    absl::StrAppend(&text, "| ", name, " | ", opset, " | ",
                    counts.cases == 0 ? "none" : absl::StrCat(counts.passed, " of ", counts.cases), " | ",
                    counts.gradient ? "yes" : "", " |\n");
  }
  std::string missing;
  for (const auto& [name, counts] : by_op) {
    if (!since.contains(name)) absl::StrAppend(&missing, missing.empty() ? "" : ", ", name);
  }
  return absl::StrCat(text, "\nOps of these cases that are not imported: ", missing.empty() ? "none" : missing, ".\n",
                      ExportTable());
}

}  // namespace gradweave::onnx
