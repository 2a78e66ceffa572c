#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/print.h"
#include "gradweave/graph/verify.h"

namespace gradweave {
namespace {

struct Pass {
  const char* name;
  std::function<absl::StatusOr<Graph>(const Graph&)> run;
};

bool VerifyWanted() {
#ifdef NDEBUG
  static const bool wanted = std::getenv("GRADWEAVE_VERIFY") != nullptr;
  return wanted;
#else
  return true;
#endif
}

// Dumps are a debugging aid, so write errors are ignored.
void Dump(const Graph& graph, absl::string_view folder, int number, absl::string_view pass) {
  const std::string path = absl::StrCat(folder, "/", absl::StrFormat("%02d", number), "_", pass);
  std::ofstream(path + ".txt") << GraphToText(graph);
  std::ofstream(path + ".dot") << GraphToDot(graph);
}

}  // namespace

absl::StatusOr<Graph> RunPipeline(const Graph& graph, const PipelineOptions& options) {
  // Specialize comes first: known sizes let shapes fold and make broadcasts visible. Folding
  // produces the numbers that rules of Simplify match, and those rules make more nodes equal.
  const Pass passes[] = {
      {"specialize", [&](const Graph& g) { return Specialize(g, options.bindings, options.initial_values); }},
      {"simplify", Simplify},
      {"fold_constants", [&](const Graph& g) { return FoldConstants(g, options.evaluate); }},
      {"simplify_folded", Simplify},
      {"flatten_products", FlattenProducts},
      {"eliminate_common_subexpressions", EliminateCommonSubexpressions},
      {"eliminate_dead_nodes", EliminateDeadNodes},
  };
  const char* dump_folder = std::getenv("GRADWEAVE_DUMP");
  int number = 0;
  const Graph* current = &graph;
  Graph next;
  for (const Pass& pass : passes) {
    GW_ASSIGN_OR_RETURN(Graph result, pass.run(*current));
    next = std::move(result);
    current = &next;
    if (dump_folder != nullptr) Dump(next, dump_folder, number++, pass.name);
    if (!VerifyWanted()) continue;
    if (absl::Status status = VerifyGraph(next); !status.ok()) {
      return absl::InternalError(absl::StrCat("the pass ", pass.name, " broke the graph: ", status.message()));
    }
  }
  return next;
}

}  // namespace gradweave
