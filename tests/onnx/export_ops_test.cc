// Every op of the registry in ONNX: the cases of the op harness with their first and second
// derivatives are exported, imported and run, and give the values of the graph that they came from.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/ops/op_case.h"

namespace gradweave::onnx {
namespace {

// Ops whose files give no equal values here, and why.
struct Exception {
  const char* op;
  const char* why;
};
constexpr Exception kNotExported[] = {
    {"AllGather", "ONNX has no groups of processes"},  {"AllReduce", "ONNX has no groups of processes"},
    {"Broadcast", "ONNX has no groups of processes"},  {"ReduceScatter", "ONNX has no groups of processes"},
    {"ShardIndex", "ONNX has no groups of processes"},
};
// Export puts the ops that define these in their place.
constexpr Exception kExpanded[] = {
    {"ScaledDotProductAttention", "ONNX has it from opset 23 on"},
    {"ScaledDotProductAttentionGrad", "ONNX has no gradients"},
};
constexpr Exception kNotCompared[] = {
    {"RandomNormal", "its numbers are others"},
    {"RandomUniform", "its numbers are others"},
    {"RoundToBFloat16", "Import does not know bfloat16"},
    {"RoundToFloat16", "Import does not know float16"},
    {"While", "Import unrolls loops, and needs to know the number of rounds"},
};
// Cases that ONNX leaves open.
constexpr Exception kOpen[] = {
    {"ArgSort_special", "the order of NaN"},
};
// Parts of Import's errors for files that are right.
constexpr const char* kImportLacks[] = {
    // Import knows the dtypes that all ops compute with.
    "dtype float16 is not",
    "dtype bfloat16 is not",
    "dtype int8 is not",
    "dtype int16 is not",
    "dtype uint16 is not",
    "dtype uint32 is not",
    "dtype uint64 is not",
    "(Scan): the number of steps is a size that only a run knows",
    "is imported for known indices that occur once",  // ScatterND with mul, max and min.
};

template <size_t n>
bool Has(const Exception (&list)[n], absl::string_view name) {
  return std::any_of(list, list + n, [&](const Exception& exception) { return name == exception.op; });
}

// The case as a graph, with outputs for the results and for their first and second derivatives.
struct CaseGraph {
  Graph graph;
  std::vector<Value> inputs;
  NamedValues outputs;

  CaseGraph(const OpCase& row, const std::vector<Tensor>& operands, bool symbolic) {
    Scope scope(graph);
    std::vector<Value> xs;
    for (size_t i = 0; i < operands.size(); ++i) {
      Shape shape = operands[i].shape();
      if (symbolic && shape.rank() > 0 && operands[0].rank() > 0 && shape[0] == operands[0].shape()[0] &&
          shape[0].size() > 1)
        shape[0] = Dim("batch");
      inputs.push_back(scope.Input(absl::StrCat("operand_", i), operands[i].dtype(), shape));
      if (IsFloating(operands[i].dtype()) && row.operands[i].differentiate) xs.push_back(inputs.back());
    }
    std::vector<Value> values = row.build(inputs);
    for (int order = 0; order <= row.derivatives; ++order) {
      std::vector<Value> squares;
      for (size_t i = 0; i < values.size(); ++i) {
        outputs.emplace_back(absl::StrCat("order_", order, "_", i), values[i]);
        if (IsFloating(values[i].dtype())) squares.push_back(Square(values[i]));
      }
      if (order == row.derivatives || xs.empty() || squares.empty()) break;
      values = Gradients(squares, xs);
    }
  }
};

std::set<std::string> OpsOf(const Graph& graph) {
  std::set<std::string> ops;
  for (const Node& node : graph.nodes()) ops.insert(node.op->name);
  return ops;
}

absl::StatusOr<std::vector<Tensor>> RunOutputs(Session& session, const std::vector<Value>& inputs,
                                               const std::vector<Tensor>& operands, const std::vector<Fetch>& outputs) {
  std::vector<Feed> feeds;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].valid()) feeds.emplace_back(inputs[i], operands[i]);
  }
  return session.Run(feeds, outputs);
}

std::string Difference(const Tensor& got, const Tensor& expected, double tolerance) {
  if (!(got.type() == expected.type())) return absl::StrCat(got.type().ToString(), " for ", expected.type().ToString());
  const std::vector<double> a = got.ToDoubles(), b = expected.ToDoubles();
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(b[i]) ? std::isnan(a[i])
                         : a[i] == b[i] || std::abs(a[i] - b[i]) <= tolerance * std::max(1.0, std::abs(b[i])))
      continue;
    return absl::StrCat("element ", i, " is ", a[i], " and not ", b[i]);
  }
  return "";
}

enum class Kind { kFloat64, kFloat32, kSymbolic };

// Exports the case, imports it and compares. Adds the ops of the graph to `covered` if all is well.
// Returns what is wrong. The file stays in the temporary folder, for another runtime
// (models/check_export.py).
std::string CheckCase(const OpCase& row, Kind kind, std::set<std::string>& covered) {
  const std::vector<Tensor> operands = MakeOperands(row, kind == Kind::kFloat64 ? kFloat64 : kFloat32);
  CaseGraph built(row, operands, kind == Kind::kSymbolic);
  if (!built.graph.status().ok()) return kind == Kind::kSymbolic ? "" : std::string(built.graph.status().message());
  const std::set<std::string> ops = OpsOf(built.graph);
  absl::StatusOr<Session> session = Session::Create(built.graph, {.threads = 1, .seed = 5});
  if (!session.ok()) return std::string(session.status().message());
  const absl::StatusOr<Model> model = ModelOf(*session);
  const std::string path = absl::StrCat(::testing::TempDir(), "/", row.op, "_", row.name, ".onnx");
  const int64_t opset = kind == Kind::kFloat64 ? 17 : kind == Kind::kFloat32 ? 18 : 20;
  absl::Status exported = Export(*model, built.outputs, path, {.opset = opset});
  if (absl::StrContains(exported.message(), "has its form from opset 18 on")) {
    exported = Export(*model, built.outputs, path, {.opset = 18});
  }
  const bool refuses = std::any_of(ops.begin(), ops.end(), [](const std::string& op) { return Has(kNotExported, op); });
  if (refuses) return exported.code() == absl::StatusCode::kUnimplemented ? "" : "it was exported";
  if (!exported.ok()) return absl::StrCat("export: ", exported.message());

  std::vector<Fetch> fetches;
  for (const auto& [name, value] : built.outputs) fetches.emplace_back(value);
  const auto expected = RunOutputs(*session, built.inputs, operands, fetches);
  if (!expected.ok()) return std::string(expected.status().message());
  if (kind == Kind::kFloat32) {
    std::vector<data::NamedArray> arrays;
    for (size_t i = 0; i < operands.size(); ++i) arrays.emplace_back(absl::StrCat("operand_", i), operands[i]);
    for (size_t i = 0; i < expected->size(); ++i) arrays.emplace_back(built.outputs[i].first, (*expected)[i]);
    (void)data::WriteNpz(absl::StrCat(::testing::TempDir(), "/", row.op, "_", row.name, ".npz"), arrays);
  }

  absl::StatusOr<ImportedModel> imported = Import(path);
  if (!imported.ok()) {
    const absl::string_view message = imported.status().message();
    const bool known =
        ops.contains("While") || std::any_of(std::begin(kImportLacks), std::end(kImportLacks),
                                             [&](const char* part) { return absl::StrContains(message, part); });
    return known ? "" : absl::StrCat("import: ", message);
  }
  absl::StatusOr<Session> again = CreateSession(imported->model);
  if (!again.ok()) return std::string(again.status().message());
  std::vector<Value> inputs;
  std::vector<Fetch> outputs;
  for (const Value& input : built.inputs) inputs.push_back(imported->Input(input.node().name));
  for (const auto& [name, value] : built.outputs) outputs.emplace_back(imported->Output(name));
  const auto got = RunOutputs(*again, inputs, operands, outputs);
  if (!got.ok()) return absl::StrCat("run: ", got.status().message());
  const bool random = ops.contains("RandomNormal") || ops.contains("RandomUniform");
  for (size_t i = 0; i < got->size(); ++i) {
    const double tolerance = random ? INFINITY : kind == Kind::kFloat64 ? 1e-9 : 2e-4;
    const std::string difference = Difference((*got)[i], (*expected)[i], tolerance);
    if (!difference.empty()) return absl::StrCat(built.outputs[i].first, ": ", difference);
  }
  covered.insert(ops.begin(), ops.end());
  return "";
}

TEST(ExportOps, EveryOpHasAForm) {
  for (const auto& op : CoreOps().definitions()) {
    EXPECT_TRUE(op->is_source() || Has(kExpanded, op->name) || FindForm(op->name) != nullptr) << op->name;
  }
  for (const absl::Span<const ExportRow> family : AllForms()) {
    for (const ExportRow& row : family) EXPECT_NE(CoreOps().Find(row.op), nullptr) << row.op;
  }
}

TEST(ExportOps, ImportGivesTheSameValues) {
  std::set<std::string> covered;
  for (const OpCase& row : AllOpCases().cases) {
    if (Has(kOpen, absl::StrCat(row.op, "_", row.name))) continue;
    for (const Kind kind : {Kind::kFloat64, Kind::kFloat32, Kind::kSymbolic}) {
      if (kind == Kind::kSymbolic && !row.symbolic && !row.symbolic_batch) continue;
      const std::string failure = CheckCase(row, kind, covered);
      EXPECT_EQ(failure, "") << row.op << "_" << row.name << " kind " << static_cast<int>(kind);
    }
  }
  for (const auto& op : CoreOps().definitions()) {
    if (op->is_source() || Has(kNotExported, op->name) || Has(kNotCompared, op->name)) continue;
    EXPECT_TRUE(covered.contains(op->name)) << op->name;
  }
}

}  // namespace
}  // namespace gradweave::onnx
