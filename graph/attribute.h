// Attributes: what an op knows besides its operands, such as a stride or an axis.
#ifndef GRADWEAVE_GRAPH_ATTRIBUTE_H_
#define GRADWEAVE_GRAPH_ATTRIBUTE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/graph/shape.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

class Graph;

using Integers = std::vector<int64_t>;

// A graph as an attribute is the body of a control-flow op.
using AttributeValue =
    std::variant<bool, int64_t, double, std::string, Integers, DType, Shape, Tensor, std::shared_ptr<const Graph>>;

// The alternatives of AttributeValue, in its order.
enum class AttributeType { kBool, kInteger, kReal, kString, kIntegers, kDType, kShape, kTensor, kGraph };

inline AttributeType TypeOf(const AttributeValue& value) { return static_cast<AttributeType>(value.index()); }

// "integer", "list of integers", ...
absl::string_view AttributeTypeName(AttributeType type);

// An attribute by name, as a builder call gives it: {"stride", Integers{2, 2}}.
using NamedAttribute = std::pair<absl::string_view, AttributeValue>;

// Equal as attributes: tensors by their bits, graphs by identity, reals by their bits.
bool SameAttribute(const AttributeValue& a, const AttributeValue& b);

// As the text printer writes it: "[2,2]", "true", "float32"; of a large tensor only the first elements.
std::string ToString(const AttributeValue& value);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_ATTRIBUTE_H_
