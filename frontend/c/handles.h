// The contents of the handles of the C interface.
#ifndef GRADWEAVE_FRONTEND_C_HANDLES_H_
#define GRADWEAVE_FRONTEND_C_HANDLES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/session.h"

struct gw_tensor {
  gradweave::Tensor tensor;
};

namespace gradweave {

// The texts and numbers of a gw_description.
struct Description {
  Description(std::string name, const TensorType& type, bool trainable, bool is_update);
  gw_description View() const;

  std::string name;
  DType dtype;
  std::vector<int64_t> sizes;
  std::vector<std::string> dimensions;
  std::vector<const char*> dimension_pointers;
  bool trainable, is_update;
};

// The inputs, outputs or variables of a graph.
using Descriptions = std::vector<std::unique_ptr<const Description>>;
Descriptions Describe(const Graph& graph, gw_kind kind);

// The value or the update that has an output's name.
struct NamedOutput {
  std::vector<Value> values;
  bool is_update = false;
};

// Finds "logits", value 1 of the list "states" by the name "states:1", or an update. Returns
// NotFound with the names of all outputs.
absl::StatusOr<NamedOutput> FindOutput(const Graph& graph, absl::string_view name);

// Finds an input or variable. Returns NotFound with the names that there are.
absl::StatusOr<Value> FindNode(const Graph& graph, gw_kind kind, absl::string_view name);

// Returns a tensor's sizes, or InvalidArgument for a rank that no tensor has.
absl::StatusOr<absl::Span<const int64_t>> CheckSizes(int32_t rank, const int64_t* sizes);

}  // namespace gradweave

struct gw_model {
  gradweave::Model model;
  std::array<gradweave::Descriptions, 3> descriptions;  // Indexed by gw_kind.
};

struct gw_session {
  gradweave::Session session;
};

struct gw_run {
  std::unique_ptr<gradweave::PreparedRun> run;
  std::vector<std::optional<gw_tensor>> results;  // One for each fetch; none for an update.
};

#endif  // GRADWEAVE_FRONTEND_C_HANDLES_H_
