// Estimates of the memory of a model, made before the model is built from its message.
#ifndef GRADWEAVE_RUNTIME_MODEL_FILE_BUILT_SIZE_H_
#define GRADWEAVE_RUNTIME_MODEL_FILE_BUILT_SIZE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// The messages of proto/model.proto.
enum class MessageKind { kModel, kGraph, kNode, kPort, kOutput, kAttribute, kIntegers, kShape, kTensor, kVariable };

// Returns an estimate of the bytes that the parsed message and the graph and tensors of it take
// together. The bytes are not trusted: an empty node, two bytes of a file, takes some hundred.
// Stops beyond `limit` and then returns a larger number. Takes no memory, and time in proportion to
// the bytes.
int64_t BuiltBytes(absl::string_view message, MessageKind kind, int64_t limit);

// Returns the bytes that a node's output types take beside the node: they come from its operands,
// and so may be large for a node that is small in a file.
int64_t OutputBytes(const Node& node);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_MODEL_FILE_BUILT_SIZE_H_
