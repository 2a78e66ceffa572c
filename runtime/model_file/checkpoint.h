// Model files: a graph with the values of its variables.
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

struct SaveOptions {
  bool source_locations = false;  // Whether the file says where in the program each node was made.
  int64_t inline_limit =
      4 << 20;  // Bytes of all values together that stay inside the file; more go to "<path>.weights" beside it.
};

// Writes the session's graph, its outputs and the current values of its variables. Each file is written under a
// temporary name, synced and renamed, so that the path holds either the old file or the new one. Errors name the path
// and the system's reason.
absl::Status SaveModel(const Session& session, const std::string& path, SaveOptions options = {});

struct LoadOptions {
  int64_t memory_limit = int64_t{8} << 30;  // Bytes that the file's contents may take.
  const OpRegistry* registry = nullptr;     // Where the ops come from; CoreOps() where null.
};

// What a file holds.
struct Model {
  Graph graph;
  std::vector<std::pair<std::string, Tensor>>
      variables;  // Values by name. Those of a weights file are mapped into memory.
  uint64_t seed = 0;
  uint64_t run_number = 1;
};

// Reads a model. Nothing in the file is believed before it is checked; errors are one line with the path: NotFound,
// InvalidArgument for a file that is damaged, truncated or no model, Unimplemented for one that needs a newer
// Gradweave, ResourceExhausted for one that is larger than the limit.
absl::StatusOr<Model> LoadModel(const std::string& path, LoadOptions options = {});

// A session that goes on where the saved one stopped; the seed is that of the model.
absl::StatusOr<Session> CreateSession(const Model& model, SessionOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_CHECKPOINT_H_
