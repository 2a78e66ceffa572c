// Writes docs/ops.md from the op definitions and the cases of the harness. With --check, fails if
// the file is out of date.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "gradweave/ops/registry.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cuda/ops/kernels.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

std::string Cell(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}}); }

std::string Operands(const OpDefinition& op) {
  return absl::StrJoin(op.operands, "<br>", [](std::string* out, const OperandDefinition& operand) {
    absl::StrAppend(out, "`", operand.name, "` ", operand.dtypes == kAnyDType ? "any dtype" : operand.dtypes.ToString(),
                    operand.arity == OperandDefinition::kOptional ? ", optional" : "",
                    operand.arity == OperandDefinition::kVariadic ? ", one or more" : "", ". ", operand.doc);
  });
}

std::string Attributes(const OpDefinition& op) {
  return absl::StrJoin(op.attributes, "<br>", [](std::string* out, const AttributeDefinition& attribute) {
    absl::StrAppend(out, "`", attribute.name, "` ", AttributeTypeName(attribute.type),
                    attribute.default_value.has_value() ? absl::StrCat(" = ", ToString(*attribute.default_value)) : "",
                    ". ", attribute.doc);
  });
}

std::string OpsDocument(bool& all_passed) {
  // Indexed by op: the highest order of derivatives that its cases check. All cases of the op must
  // pass.
  std::map<std::string, int> derivatives;
  for (const OpCase& row : AllOpCases().cases) {
    if (const std::string failure = CheckOpCase(row); !failure.empty()) {
      std::cerr << row.op << " " << row.name << ": " << failure << "\n";
      all_passed = false;
    }
    derivatives[row.op] = std::max(derivatives[row.op], row.derivatives);
  }
  std::string text =
      "# Ops\n\n`bazel run //tests/ops:write_ops_doc` writes this file from the definitions in `ops/` and the "
      "results of the harness in `tests/ops`. A gradient is listed if the harness compared it with central "
      "differences; \"zero\" means that the op is piecewise constant or that its operands carry no derivative. "
      "An operand that may be float32 may be float16 or bfloat16 too. CUDA "
      "tells whether the op has a CUDA kernel; its results agree with the CPU's on the emulated device.\n\n"
      "| op | description | operands | attributes | CPU | CUDA | gradient | second gradient |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
  for (const auto& op : CoreOps().definitions()) {
    const bool held = op->name == "Input" || op->name == "Constant" || op->name == "Variable" || op->name == "Assign" ||
                      op->name == "Copy";
    auto runs = [&](const KernelRegistry& kernels) { return held || kernels.Find(op->name) != nullptr ? "yes" : "no"; };
    const int order = derivatives[op->name];
    const char* none = op->differentiable() ? "zero" : "no";
    absl::StrAppend(&text, "| ", op->name, " | ", Cell(op->doc), " | ", Cell(Operands(*op)), " | ",
                    Cell(Attributes(*op)), " | ", runs(CpuKernels()), " | ", runs(cuda_emulated::CudaKernels()), " | ",
                    order >= 1 ? "yes" : none, " | ", order >= 2 ? "yes" : none, " |\n");
  }
  return text;
}

int Run(bool check, const std::string& path) {
  bool all_passed = true;
  const std::string text = OpsDocument(all_passed);
  if (!all_passed) return 1;
  if (check) {
    std::ifstream in(path);
    std::stringstream contents;
    contents << in.rdbuf();
    if (contents.str() == text) return 0;
    std::cerr << path << " is not up to date; bazel run //tests/ops:write_ops_doc writes it\n";
    return 1;
  }
  std::ofstream out(path);
  out << text;
  return out.flush() ? 0 : 1;
}

}  // namespace
}  // namespace gradweave

int main(int argc, char** argv) {
  const bool check = argc > 1 && std::string(argv[1]) == "--check";
  const char* workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
  return gradweave::Run(check, check || workspace == nullptr ? "docs/ops.md" : absl::StrCat(workspace, "/docs/ops.md"));
}
