// Runs ONNX files whose graph depends on the sizes or values of inputs.
#ifndef GRADWEAVE_FRONTEND_ONNX_RUNNER_H_
#define GRADWEAVE_FRONTEND_ONNX_RUNNER_H_

#include <cstddef>
#include <list>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::onnx {

// Options of Runner.
struct RunnerOptions {
  ImportOptions import = {};
  SessionOptions session = {};
  // The number of graphs to keep, each with a copy of the weights; at least 1. The least recently
  // used one is dropped.
  size_t most_graphs = 8;
};

// Runs a model on inputs of any sizes that it allows. Import gives one graph for all sizes. Some
// nets have none: a branch may depend on a length, or a shape on the value of an input. A Runner
// imports such a file again for each combination of these sizes and values, and keeps the graphs.
// Inputs on which the graph does not depend are fed.
//
//   gw::onnx::Runner runner("silero_vad.onnx");
//   GW_ASSIGN_OR_RETURN(auto outputs, runner.Run({{"input", samples}, {"state", state}, {"sr", rate}}));
//   outputs.at("output");
//
// It does one run at a time.
class Runner {
 public:
  explicit Runner(std::string path, RunnerOptions options = {});

  // Runs the model. All inputs of the file that have no initializer are needed, by name. Returns
  // the outputs by name, NotFound for a missing input, and the errors of Import and Session::Run.
  absl::StatusOr<std::map<std::string, Tensor>> Run(const std::map<std::string, Tensor>& inputs);

  // The number of graphs that are kept.
  size_t num_graphs() const { return graphs_.size(); }

 private:
  struct Compiled {
    std::string key;
    ImportedModel model;
    Session session;
  };

  // The key of a graph for these inputs: the sizes and values that it depends on.
  absl::StatusOr<std::string> KeyOf(const std::map<std::string, Tensor>& inputs) const;
  absl::StatusOr<Compiled*> Find(const std::map<std::string, Tensor>& inputs);

  std::string path_;
  RunnerOptions options_;
  std::set<std::string> values_, shapes_;  // Inputs whose values or sizes determine the graph, as found so far.
  std::list<Compiled> graphs_;             // The latest first.
};

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_RUNNER_H_
