// gradweave run: computes outputs of a model.
#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "gradweave/frontend/command/inputs.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/data/npy.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::string, output_dir, "",
          "Writes each output to a file of numpy, <output>.npy, in this folder, which is made if it is missing.");

namespace gradweave::command {
namespace {

constexpr int64_t kMostRows = 10, kMostColumns = 10, kMostClasses = 3;

// A result, with the name of its output.
struct Result {
  std::string name;
  Tensor value;
};

// The first rows along the last axis; the other axes are one.
std::string RowsText(const Tensor& value) {
  const int64_t columns = value.rank() == 0 ? 1 : value.size(value.rank() - 1);
  const int64_t rows = columns == 0 ? 0 : value.num_elements() / columns;
  const std::vector<double> numbers = value.ToDoubles();
  TextTable table(std::vector<std::string>(std::min(columns, kMostColumns) + 1, ">"));
  for (int64_t row = 0; row < std::min(rows, kMostRows); ++row) {
    std::vector<std::string> cells;
    for (int64_t column = 0; column < std::min(columns, kMostColumns); ++column) {
      cells.push_back(absl::StrFormat("%.6g", numbers[row * columns + column]));
    }
    if (columns > kMostColumns) cells.push_back("...");
    table.AddRow(std::move(cells));
  }
  return absl::StrCat(table.ToString(2), rows > kMostRows ? absl::StrCat("  ... ", rows, " rows\n") : "");
}

// The likeliest classes of each row.
std::string ClassesText(const Tensor& value, const std::vector<std::string>& classes) {
  const int64_t columns = value.size(value.rank() - 1), rows = value.num_elements() / columns;
  const std::vector<double> numbers = value.ToDoubles();
  TextTable table({">", "", "", ""});
  for (int64_t row = 0; row < std::min(rows, kMostRows); ++row) {
    const double* const of_row = numbers.data() + row * columns;
    std::vector<int64_t> order(columns);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return of_row[a] > of_row[b]; });
    std::vector<std::string> cells = {absl::StrCat(row)};
    for (int64_t i = 0; i < std::min(columns, kMostClasses); ++i) {
      cells.push_back(absl::StrFormat("%s %.4g", PrintableText(classes[order[i]]), of_row[order[i]]));
    }
    table.AddRow(std::move(cells));
  }
  return absl::StrCat(table.ToString(2), rows > kMostRows ? absl::StrCat("  ... ", rows, " rows\n") : "");
}

// Names of files for the results: names of outputs have slashes.
absl::StatusOr<std::vector<std::string>> FileNames(const std::vector<Result>& results) {
  std::vector<std::string> names;
  std::set<std::string> all;
  for (const Result& result : results) {
    names.push_back(absl::StrReplaceAll(result.name, {{"/", "_"}}));
    if (names.back() == "." || names.back() == ".." || names.back().find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("output '", PrintableText(result.name), "' has no name of a file; -o FILE.npz takes any name"));
    }
    if (!all.insert(names.back()).second) {
      return absl::InvalidArgumentError(absl::StrCat("two outputs would be ", PrintableText(names.back()),
                                                     ".npy; choose one with --outputs, or write -o FILE.npz"));
    }
  }
  return names;
}

absl::Status WriteResults(const std::vector<Result>& results, const std::string& folder, const std::string& archive,
                          std::ostream& out) {
  TextTable table({"", "", ""});
  if (!folder.empty()) {
    GW_ASSIGN_OR_RETURN(const std::vector<std::string> names, FileNames(results));
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) {
      return absl::ErrnoToStatus(error.value(), absl::StrCat(folder, ": the folder cannot be made"));
    }
    for (size_t i = 0; i < results.size(); ++i) {
      const std::string path = absl::StrCat(folder, "/", names[i], ".npy");
      GW_RETURN_IF_ERROR(data::WriteNpy(path, results[i].value));
      table.AddRow({PrintableText(results[i].name), results[i].value.type().ToString(), path});
    }
  }
  if (!archive.empty()) {
    std::vector<data::NamedArray> arrays;
    for (const Result& result : results) arrays.emplace_back(result.name, result.value);
    GW_RETURN_IF_ERROR(data::WriteNpz(archive, arrays));
    for (const Result& result : results) {
      table.AddRow({PrintableText(result.name), result.value.type().ToString(), archive});
    }
  }
  out << table.ToString();
  return absl::OkStatus();
}

// The outputs to compute: the outputs in --outputs, or all outputs whose inputs are fed.
absl::StatusOr<std::vector<NamedOutput>> ChosenOutputs(Graph& graph, absl::Span<const Feed> feeds) {
  const std::vector<std::string> names = absl::GetFlag(FLAGS_outputs);
  std::vector<NamedOutput> outputs;
  if (!names.empty()) {
    GW_ASSIGN_OR_RETURN(outputs, SelectOutputs(graph, names));
    for (const NamedOutput& output : outputs) {
      GW_RETURN_IF_ERROR(MissingInput(graph, output, feeds));
      if (output.is_update) {
        return absl::InvalidArgumentError(absl::StrCat("output '", PrintableText(output.name),
                                                       "' is an update, which has no values; gradweave train trains"));
      }
    }
    return outputs;
  }
  for (const NamedOutput& output : OutputsOf(graph)) {
    if (!output.is_update && HasAll(feeds, output.inputs)) outputs.push_back(output);
  }
  if (!outputs.empty()) return outputs;
  for (const NamedOutput& output : OutputsOf(graph)) {
    if (!output.is_update) GW_RETURN_IF_ERROR(MissingInput(graph, output, feeds));
  }
  return absl::InvalidArgumentError("the model has no output with values");
}

absl::StatusOr<int> RunRun(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string folder = absl::GetFlag(FLAGS_output_dir), archive = absl::GetFlag(FLAGS_output);
  GW_ASSIGN_OR_RETURN(const SessionOptions options, SessionFlags());
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  Graph& graph = source.model.graph;
  std::vector<std::string> notes;
  GW_ASSIGN_OR_RETURN(std::vector<Feed> feeds, FeedsByFlags(graph, notes));
  GW_ASSIGN_OR_RETURN(const std::vector<NamedOutput> outputs, ChosenOutputs(graph, feeds));
  if (!archive.empty()) GW_RETURN_IF_ERROR(CheckWritable(archive));
  GW_ASSIGN_OR_RETURN(Session session, CreateSession(source.model, options));
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> tensors, session.Run(feeds, FetchesOf(outputs)));

  std::vector<Result> results;
  for (const NamedOutput& output : outputs) {
    for (size_t i = 0; i < output.values.size(); ++i) {
      results.push_back(
          {output.values.size() == 1 ? output.name : absl::StrCat(output.name, "_", i), tensors[results.size()]});
    }
  }
  for (const std::string& note : notes) out << note << "\n";
  if (!folder.empty() || !archive.empty()) {
    GW_RETURN_IF_ERROR(WriteResults(results, folder, archive, out));
    return 0;
  }
  const std::vector<std::string> classes = ClassNamesOf(source.model);
  for (const Result& result : results) {
    const Tensor& value = result.value;
    out << PrintableText(result.name) << "  " << value.type().ToString() << "\n";
    const bool has_classes = !classes.empty() && value.rank() > 0 && value.num_elements() > 0 &&
                             value.size(value.rank() - 1) == static_cast<int64_t>(classes.size());
    out << (has_classes ? ClassesText(value, classes) : RowsText(value));
  }
  return 0;
}

}  // namespace

Subcommand Run() {
  return {.name = "run",
          .arguments = "MODEL",
          .summary = "Computes outputs of a model from files of numpy or PNG images",
          .details =
              "It computes all outputs whose inputs are given, and prints their first numbers, or the likeliest\n"
              "classes if the model has names of classes. Bytes for a floating input are scaled to [0, 1], as in\n"
              "training; an image is resized to the input's height and width.",
          .flags = {{"input", "NAME=FILE"},
                    {"random"},
                    {"shape", "NAME=SIZES"},
                    {"outputs", "NAMES"},
                    {"output_dir", "FOLDER"},
                    {"output", "FILE.npz"},
                    {"device", "DEVICE"},
                    {"threads", "NUMBER"},
                    {"seed", "NUMBER"}},
          .fewest = 1,
          .most = 1,
          .run = RunRun};
}

}  // namespace gradweave::command
