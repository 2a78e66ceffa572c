// Model files: a graph and the values of its variables.
#ifndef GRADWEAVE_RUNTIME_MODEL_FILE_CHECKPOINT_H_
#define GRADWEAVE_RUNTIME_MODEL_FILE_CHECKPOINT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Tensors by name, in order.
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// The contents of a model file.
struct Model {
  Graph graph;
  // Variables with their values, by name.
  NamedTensors variables;
  uint64_t seed = 0;
  uint64_t run_number = 1;
  // Tensors that a program stores with the model, by any names, such as the progress of a training.
  NamedTensors extra;
};

// Returns a copy of the session's graph, values, seed and run number. Saving the copy may take
// place on another thread while the session runs. Returns the errors of Session::GetVariable.
absl::StatusOr<Model> ModelOf(const Session& session);

// Options of SaveModel.
struct SaveOptions {
  // If true, the file holds the source line where each node was made.
  bool source_locations = false;
  // Upper limit in bytes for values inside the file. If all values together, of variables and
  // constants, are larger, they go to "<path>.<16 hexadecimal digits>.weights" beside it.
  int64_t inline_limit = 4 << 20;
};

// Writes the session's graph with its outputs, and the current values of its variables. Files are
// written under temporary names and synced. Then the model takes its name in one step, and the
// weights of the model that it replaces are removed. So the path always holds one whole model, even
// if the process is killed or others save to the same path. Symbolic links are followed, and a
// replaced file keeps its permissions. Returns an error with the path and the system's reason if a
// file cannot be written, FailedPrecondition if the path is a folder, a pipe or a device, and
// InvalidArgument if the graph without large constants needs 2 GiB.
absl::Status SaveModel(const Session& session, const std::string& path, SaveOptions options = {});
// The same for a model. Also returns InvalidArgument if a variable of the graph has no value, two
// values or a value of another type, and if a value belongs to no variable.
absl::Status SaveModel(const Model& model, const std::string& path, SaveOptions options = {});
// Removes files that killed processes have left while they saved to the path. Saving to the path
// does so too. Returns an error for a path to which SaveModel could not write. Files that cannot be
// removed stay, without an error.
absl::Status RemoveLeftovers(const std::string& path);
// Removes the model and its weights as well. Does nothing if there is none. If the process is
// killed during the call, RemoveLeftovers can remove the remaining files. Returns an error for a
// path to which SaveModel could not write, and the system's error if the model cannot be removed.
absl::Status RemoveModel(const std::string& path);

// Options of LoadModel.
struct LoadOptions {
  // Upper limit in bytes for loading: the contents of the model file and its weights file, and the
  // graph and the values. They are estimated before anything is built.
  int64_t memory_limit = int64_t{8} << 30;
  // If true, the weights file is mapped into memory instead of read. Loading is faster then, and
  // pages that nobody uses take no memory. The file must not change while the model or a tensor of
  // it exists: values would change too, and a file that becomes shorter ends the process (SIGBUS).
  bool map_weights = false;
  // The registry in which the ops are looked up; null means CoreOps().
  const OpRegistry* registry = nullptr;
};

// Reads a model and checks everything in the file before use. While another process saves to the
// path, it returns the old model or the new one, never a mixture. Errors are one line with the
// path: NotFound for a missing file, InvalidArgument for a file that is damaged, truncated, not a
// model or not a regular file, Unimplemented for one that needs a newer Gradweave,
// ResourceExhausted for one that exceeds the memory limit.
absl::StatusOr<Model> LoadModel(const std::string& path, LoadOptions options = {});

// Creates a session that continues where the saved one stopped, with the model's seed, run number
// and variables. These replace the fields of the same meaning in `options`.
absl::StatusOr<Session> CreateSession(const Model& model, SessionOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_CHECKPOINT_H_
