// Values for the inputs of a model: sizes, files and random numbers.
#ifndef GRADWEAVE_FRONTEND_COMMAND_INPUTS_H_
#define GRADWEAVE_FRONTEND_COMMAND_INPUTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/frontend/command/command.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/graph/dim.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::command {

// The sizes of symbols that the texts of --shape give: {"image", "256,1,28,28"}. Returns NotFound
// for an unknown input, and InvalidArgument for text that is not a list of sizes, sizes that do not
// fit the input's shape, and two sizes for one symbol.
absl::StatusOr<DimBindings> SizesOf(Graph& graph, const NamedTexts& shapes);

// The same for the sizes of tensors.
absl::Status BindSizes(const Node& input, absl::Span<const int64_t> sizes, DimBindings& bindings);

// The type of the input with these sizes; a symbol without a size is 1.
TensorType BoundType(const Node& input, const DimBindings& sizes);

// The sizes of symbols of these inputs that are in `sizes` or are 1 by default: "batch = 256".
std::string SizesText(const Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes);

// Feeds of the inputs: zeros; or numbers that the seed determines, uniform in [0, 1), where
// integers and bools are 0.
absl::StatusOr<std::vector<Feed>> ZeroFeeds(Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes);
absl::StatusOr<std::vector<Feed>> RandomFeeds(Graph& graph, absl::Span<const NodeId> inputs, const DimBindings& sizes,
                                              uint64_t seed);

// The tensor with elements of another dtype; bytes become floating numbers in [0, 1]. Nothing where
// that could lose more than digits, as from floating numbers to integers.
std::optional<Tensor> Converted(const Tensor& tensor, DType dtype);

// Reads the file of an input: an array of numpy or a PNG image, told by its content. Bytes for a
// floating input are scaled to [0, 1]; an image gets the input's channels, height and width; a
// missing first axis is added where the input's first size is a symbol. `notes` gets a line for
// each change of the data, such as an image of another size. Returns the errors of the readers, and
// InvalidArgument for a tensor that does not fit the input.
absl::StatusOr<Tensor> ReadInput(const Node& input, const std::string& path, std::vector<std::string>& notes);

// Feeds by the flags --input, --random and --shape. Without --random, only the inputs that have
// files are there. Returns the errors above, and InvalidArgument if files do not fit together.
absl::StatusOr<std::vector<Feed>> FeedsByFlags(Graph& graph, std::vector<std::string>& notes);

// True if there is a feed for each of the inputs.
bool HasAll(absl::Span<const Feed> feeds, absl::Span<const NodeId> inputs);
// The error for an output that needs an input without a feed.
absl::Status MissingInput(const Graph& graph, const NamedOutput& output, absl::Span<const Feed> feeds);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_INPUTS_H_
