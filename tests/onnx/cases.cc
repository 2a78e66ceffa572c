#include "tests/onnx/cases.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::onnx {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> Bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

// Ops whose operands or results are sequences, optional values or strings by ONNX's definition: no
// dtype of tensors.
const std::set<std::string>& OpsWithoutTensors() {
  static const auto* const kOps = new std::set<std::string>{
      "ConcatFromSequence", "Optional",        "OptionalGetElement", "OptionalHasElement", "SequenceAt",
      "SequenceConstruct",  "SequenceEmpty",   "SequenceErase",      "SequenceInsert",     "SequenceLength",
      "SequenceMap",        "SplitToSequence", "StringNormalizer"};
  return *kOps;
}

const std::set<std::string>& Domains() {
  static const auto* const kDomains = [] {
    auto* domains = new std::set<std::string>{"", "ai.onnx"};
    for (const absl::Span<const OpRow> rows : AllRows()) {
      for (const OpRow& row : rows) domains->insert(row.domain);
    }
    return domains;
  }();
  return *kDomains;
}

std::string DTypeProblem(int64_t dtype) {
  const absl::StatusOr<DType> known = DTypeFromOnnx(dtype);
  return known.ok() ? "" : std::string(known.status().message());
}

std::string ValuesProblem(const google::protobuf::RepeatedPtrField<proto::ValueInfo>& values) {
  for (const proto::ValueInfo& value : values) {
    if (!value.type().has_tensor_type()) return "sequences and optional values are not supported";
    if (std::string problem = DTypeProblem(value.type().tensor_type().elem_type()); !problem.empty()) return problem;
  }
  return "";
}

std::string NodesProblem(const google::protobuf::RepeatedPtrField<proto::Node>& nodes, const proto::Model& model) {
  for (const proto::Node& node : nodes) {
    if (OpsWithoutTensors().contains(node.op_type()))
      return absl::StrCat(node.op_type(), " has a sequence or a string");
    const bool is_function = std::any_of(
        model.functions().begin(), model.functions().end(),
        [&](const proto::Function& f) { return f.name() == node.op_type() && f.domain() == node.domain(); });
    if (!is_function && !Domains().contains(node.domain())) return absl::StrCat("domain ", node.domain());
    for (const proto::Attribute& attribute : node.attribute()) {
      std::string problem;
      if (node.op_type() == "Cast" && attribute.name() == "to" && attribute.has_i())
        problem = DTypeProblem(attribute.i());
      if (attribute.has_t()) problem = DTypeProblem(attribute.t().data_type());
      if (attribute.has_g()) problem = NodesProblem(attribute.g().node(), model);
      if (attribute.name() == "value_string" || attribute.name() == "value_strings")
        problem = "the dtype string is not supported";
      if (!problem.empty()) return problem;
    }
  }
  return "";
}

}  // namespace

absl::StatusOr<proto::Model> ReadModel(const std::string& path) {
  GW_ASSIGN_OR_RETURN(const std::string bytes, Bytes(path));
  proto::Model model;
  if (!model.ParseFromString(bytes)) return absl::InvalidArgumentError(absl::StrCat(path, ": no ONNX model"));
  return model;
}

absl::StatusOr<CaseData> ReadData(const std::string& folder) {
  CaseData data;
  for (auto [list, prefix] : {std::make_pair(&data.inputs, "input_"), std::make_pair(&data.outputs, "output_")}) {
    for (int i = 0;; ++i) {
      const std::string path = absl::StrCat(folder, "/", prefix, i, ".pb");
      if (!fs::exists(path)) break;
      GW_ASSIGN_OR_RETURN(const std::string bytes, Bytes(path));
      proto::Tensor message;
      if (!message.ParseFromString(bytes)) return absl::InvalidArgumentError(absl::StrCat(path, ": no tensor"));
      int64_t room = int64_t{1} << 32;
      GW_ASSIGN_OR_RETURN(Tensor tensor, ReadTensor(message, "", room));
      list->push_back(std::move(tensor));
    }
  }
  return data;
}

std::string OutOfScope(const proto::Model& model) {
  std::string problem = ValuesProblem(model.graph().input());
  if (problem.empty()) problem = ValuesProblem(model.graph().output());
  for (const proto::Tensor& initializer : model.graph().initializer()) {
    if (problem.empty()) problem = DTypeProblem(initializer.data_type());
  }
  if (problem.empty()) problem = NodesProblem(model.graph().node(), model);
  for (const proto::Function& function : model.functions()) {
    if (problem.empty()) problem = NodesProblem(function.node(), model);
  }
  return problem;
}

absl::StatusOr<ImportedModel> ImportCase(const std::string& path, const proto::Model& model, const CaseData& data,
                                         std::vector<std::pair<std::string, Tensor>>& fed) {
  std::map<std::string, Tensor> values;
  std::set<std::string> initializers;
  for (const proto::Tensor& initializer : model.graph().initializer()) initializers.insert(initializer.name());
  size_t next = 0;
  for (const proto::ValueInfo& input : model.graph().input()) {
    if (initializers.contains(input.name()) && data.inputs.size() < static_cast<size_t>(model.graph().input_size()))
      continue;
    if (next < data.inputs.size()) values[input.name()] = data.inputs[next++];
  }
  ImportOptions options;
  for (;;) {
    absl::StatusOr<ImportedModel> imported = Import(path, options);
    if (imported.ok()) {
      for (const std::string& name : imported->inputs) {
        if (!values.contains(name)) return absl::NotFoundError(absl::StrCat("no data for input '", name, "'"));
        fed.emplace_back(name, values[name]);
      }
      return imported;
    }
    const absl::optional<absl::Cord> needed = imported.status().GetPayload(kNeededInputs);
    if (!needed.has_value()) return imported;
    for (const absl::string_view name : absl::StrSplit(std::string(*needed), '\n')) {
      if (!values.contains(std::string(name)) || options.fixed.contains(std::string(name))) return imported;
      options.fixed[std::string(name)] = values[std::string(name)];
    }
  }
}

absl::Status Compare(const Tensor& got, const Tensor& expected) {
  if (!(got.type() == expected.type())) {
    return absl::InternalError(absl::StrCat("is ", got.type().ToString(), " in place of ", expected.type().ToString()));
  }
  const std::vector<double> a = got.ToDoubles(), b = expected.ToDoubles();
  const DType dtype = expected.dtype();
  const bool floating = IsReal(dtype);
  // Halves may differ by a unit of their last digit.
  const double relative = dtype == kFloat16 ? 2e-3 : dtype == kBFloat16 ? 1e-2 : 1e-3;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    if (floating && std::abs(a[i] - b[i]) <= 1e-7 + relative * std::abs(b[i]) && std::isfinite(b[i])) continue;
    return absl::InternalError(absl::StrCat("element ", i, " of ", a.size(), " is ", a[i], " in place of ", b[i]));
  }
  return absl::OkStatus();
}

namespace {

// True if a gradient of the floating outputs reaches a floating input.
bool HasGradient(ImportedModel& model) {
  std::vector<Value> xs, ys;
  for (const std::string& name : model.inputs) {
    if (IsFloating(model.Input(name).dtype())) xs.push_back(model.Input(name));
  }
  for (const std::string& name : model.outputs) {
    if (IsFloating(model.Output(name).dtype())) ys.push_back(model.Output(name));
  }
  if (xs.empty() || ys.empty()) return false;
  const std::vector<Value> gradients = Gradients(ys, xs, {}, {.unreachable = GradientOptions::kInvalid});
  return model.model.graph.status().ok() &&
         std::any_of(gradients.begin(), gradients.end(), [](const Value& gradient) { return gradient.valid(); });
}

// ONNX's files of cases have bfloat16 numbers as their bits, in uint16.
Tensor WithDType(const Tensor& tensor, DType dtype) {
  if (tensor.dtype() != kUint16 || dtype != kBFloat16) return tensor;
  auto owner = std::make_shared<Tensor>(tensor);
  return Tensor::View(dtype, tensor.sizes(), owner->mutable_raw_data(), owner);
}

absl::Status RunData(const std::string& folder, const std::string& path, const proto::Model& model,
                     bool& has_gradient) {
  GW_ASSIGN_OR_RETURN(const CaseData data, ReadData(folder));
  std::vector<std::pair<std::string, Tensor>> fed;
  GW_ASSIGN_OR_RETURN(ImportedModel imported, ImportCase(path, model, data, fed));
  GW_ASSIGN_OR_RETURN(Session session, CreateSession(imported.model, {.threads = 1}));
  std::vector<Feed> feeds;
  for (const auto& [name, tensor] : fed) {
    const Value input = imported.Input(name);
    feeds.emplace_back(input, WithDType(tensor, input.dtype()));
  }
  std::vector<Fetch> fetches;
  for (const std::string& name : imported.outputs) fetches.push_back(imported.Output(name));
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(feeds, fetches));
  if (results.size() < data.outputs.size()) return absl::InternalError("there are too few outputs");
  for (size_t i = 0; i < data.outputs.size(); ++i) {
    if (absl::Status status = Compare(results[i], WithDType(data.outputs[i], results[i].dtype())); !status.ok())
      return absl::Status(status.code(), absl::StrCat("output ", i, " ", status.message()));
  }
  has_gradient = HasGradient(imported);
  return absl::OkStatus();
}

}  // namespace

CaseResult RunCase(const std::string& folder) {
  CaseResult result{.name = fs::path(folder).filename()};
  const std::vector<std::string> words = absl::StrSplit(result.name, '_');
  result.family = words.size() > 1 ? absl::AsciiStrToLower(words[1]) : result.name;
  const std::string path = folder + "/model.onnx";
  const absl::StatusOr<proto::Model> model = ReadModel(path);
  if (!model.ok()) {
    result.reason = std::string(model.status().message());
    return result;
  }
  for (const proto::Node& node : model->graph().node())
    result.ops.insert(node.domain().empty() ? node.op_type() : absl::StrCat(node.domain(), ".", node.op_type()));
  result.reason = OutOfScope(*model);
  if (!result.reason.empty()) {
    result.outcome = CaseResult::kOutOfScope;
    return result;
  }
  int sets = 0;
  for (; fs::exists(absl::StrCat(folder, "/test_data_set_", sets)); ++sets) {
    const absl::Status status =
        RunData(absl::StrCat(folder, "/test_data_set_", sets), path, *model, result.has_gradient);
    if (status.ok()) continue;
    result.reason = std::string(status.message());
    return result;
  }
  if (sets == 0) {
    result.reason = "there is no data";
  } else {
    result.outcome = CaseResult::kPassed;
  }
  return result;
}

std::vector<CaseResult> RunSuite(const std::string& folder) {
  std::vector<std::string> folders;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().filename() == "model.onnx") folders.push_back(entry.path().parent_path());
  }
  std::sort(folders.begin(), folders.end());
  std::vector<CaseResult> results;
  for (const std::string& at : folders) results.push_back(RunCase(at));
  return results;
}

}  // namespace gradweave::onnx
