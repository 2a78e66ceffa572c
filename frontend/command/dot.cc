// gradweave dot: draws the graph of a model.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/command/drawing.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/session_flags.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(int32_t, max_nodes, 200, "Folds scopes, gradients and updates of larger graphs; in [1, 1000000].");

extern char** environ;

namespace gradweave::command {
namespace {

// Has Graphviz's program draw the text in the format, "svg". The picture takes its name when it is
// whole.
absl::Status DrawWithGraphviz(const std::string& text, const std::string& format, const std::string& path) {
  // Others who may write to the path's folder cannot put links into this one.
  std::string folder = absl::StrCat(path, ".XXXXXX");
  if (mkdtemp(folder.data()) == nullptr)
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": the file cannot be written"));
  const absl::Cleanup remover = [folder] {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  };
  const std::string source = folder + "/source.dot", picture = folder + "/picture";
  GW_RETURN_IF_ERROR(WriteText(source, text));
  const std::string of_format = absl::StrCat("-T", format);
  const char* const arguments[] = {"dot", of_format.c_str(), "-o", picture.c_str(), source.c_str(), nullptr};
  pid_t process = 0;
  int status = posix_spawnp(&process, "dot", nullptr, nullptr, const_cast<char* const*>(arguments), environ);
  const bool started = status == 0;
  if (started) {
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
  }
  const bool drawn = started && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  const bool named = drawn && std::rename(picture.c_str(), path.c_str()) == 0;
  if (named) return absl::OkStatus();
  // A child that cannot start dot ends with 127.
  if (!started || (WIFEXITED(status) && WEXITSTATUS(status) == 127)) {
    return absl::NotFoundError(absl::StrCat(path, ": ", format,
                                            " needs Graphviz's program dot, which is not here; apt-get install "
                                            "graphviz, or write a file .dot"));
  }
  return absl::UnavailableError(absl::StrCat(path, ": Graphviz's program dot has failed"));
}

absl::StatusOr<int> RunDot(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string path = absl::GetFlag(FLAGS_output);
  const int max_nodes = absl::GetFlag(FLAGS_max_nodes);
  GW_RETURN_IF_ERROR(CheckRange("max_nodes", max_nodes, 1, 1'000'000, "[1, 1000000]"));
  GW_RETURN_IF_ERROR(CheckWritable(path));
  const std::string format = EndOf(path);
  if (format != "dot" && format != "svg" && format != "png" && format != "pdf") {
    return UsageError(absl::StrCat("-o ", path, ": a file .dot, .svg, .png or .pdf is expected"));
  }
  GW_ASSIGN_OR_RETURN(ModelSource source, OpenModel(arguments[0]));
  Graph& graph = source.model.graph;
  if (graph.outputs().empty())
    return absl::InvalidArgumentError("the model has no output, so there is nothing to draw");
  if (const std::vector<std::string> names = absl::GetFlag(FLAGS_outputs); !names.empty()) {
    GW_ASSIGN_OR_RETURN(const std::vector<NamedOutput> outputs, SelectOutputs(graph, names));
    graph.ClearOutputs();
    for (const NamedOutput& output : outputs) graph.SetOutput(output.name, output.values);
  }
  const std::string text = DrawGraph(graph, arguments[0], max_nodes);
  GW_RETURN_IF_ERROR(format == "dot" ? WriteText(path, text) : DrawWithGraphviz(text, format, path));
  out << path << "\n";
  return 0;
}

}  // namespace

Subcommand Dot() {
  return {.name = "dot",
          .arguments = "MODEL",
          .summary = "Draws the graph as a picture, or as text of Graphviz's dot language",
          .details =
              "The name's end says what it writes: .svg, .png and .pdf need Graphviz's program dot, .dot does\n"
              "not. Forward pass, gradients and update have colours, and scopes are clusters.",
          .flags = {{"output", "FILE"}, {"max_nodes", "NUMBER"}, {"outputs", "NAMES"}},
          .fewest = 1,
          .most = 1,
          .run = RunDot};
}

}  // namespace gradweave::command
