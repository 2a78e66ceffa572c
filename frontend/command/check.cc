// gradweave check: verifies a file of a model.
#include <cmath>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/verify.h"

ABSL_FLAG(int64_t, memory_limit, int64_t{8} << 30,
          "The most bytes that loading may take, estimated before anything is built; in [1, 2^62].");

namespace gradweave::command {
namespace {

// Counts the elements that are NaN or infinite.
int64_t NonFinite(const Tensor& tensor) {
  int64_t count = 0;
  for (const double value : tensor.ToDoubles()) count += std::isfinite(value) ? 0 : 1;
  return count;
}

absl::StatusOr<int> Run(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string& path = arguments[0];
  const int64_t limit = absl::GetFlag(FLAGS_memory_limit);
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("memory_limit", limit, 1, int64_t{1} << 62, "[1, 2^62]"));
  GW_ASSIGN_OR_RETURN(const SessionOptions options, SessionFlags());
  GW_ASSIGN_OR_RETURN(const ModelSource source, OpenModel(path, limit));
  const Model& model = source.model;
  if (const absl::Status status = VerifyGraph(model.graph); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
  }
  int64_t elements = 0;
  for (const auto& [name, value] : model.variables) {
    elements += value.num_elements();
    if (!IsFloating(value.dtype())) continue;
    if (const int64_t count = NonFinite(value); count > 0) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": variable '", PrintableText(name), "', ",
                                                     value.type().ToString(), ", has ", Counted(count, "element"),
                                                     " that are NaN or infinite"));
    }
  }
  // Creating a session checks the parts that a run needs: types of values, initial values, ops.
  GW_RETURN_IF_ERROR(CreateSession(model, options).status());
  TextTable table({"", ""});
  table.AddRow({"format", source.format});
  table.AddRow({"checksums", "right"});
  table.AddRow({"graph", absl::StrCat(Counted(model.graph.num_nodes(), "node"), ", ",
                                      Counted(static_cast<int64_t>(model.graph.outputs().size()), "output"))});
  table.AddRow({"values", absl::StrCat(Counted(static_cast<int64_t>(model.variables.size()), "variable"), ", ",
                                       Counted(elements, "number"), ", all finite")});
  out << path << ": no fault found\n" << table.ToString(2);
  return 0;
}

}  // namespace

Subcommand Check() {
  return {.name = "check",
          .arguments = "MODEL",
          .summary = "Verifies a model's file: format, checksums, graph and values",
          .details =
              "It finds damaged and truncated files, graphs that break a rule, values of a wrong type, values\n"
              "that are NaN or infinite, and models for which a session cannot be made.",
          .flags = {{"memory_limit", "BYTES"}, {"device", "DEVICE"}, {"threads", "NUMBER"}},
          .fewest = 1,
          .most = 1,
          .run = Run};
}

}  // namespace gradweave::command
