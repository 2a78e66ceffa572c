// Attributes: the compile-time parameters of an op, such as a stride or an axis.
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

// A list of integers, such as axes or strides.
using Integers = std::vector<int64_t>;

// The value of an attribute. A graph is the body of a control-flow op.
using AttributeValue =
    std::variant<bool, int64_t, double, std::string, Integers, DType, Shape, Tensor, std::shared_ptr<const Graph>>;

// The types that AttributeValue can hold, in the order of its alternatives.
enum class AttributeType { kBool, kInteger, kReal, kString, kIntegers, kDType, kShape, kTensor, kGraph };

inline AttributeType TypeOf(const AttributeValue& value) { return static_cast<AttributeType>(value.index()); }

// Returns the type's name for error messages: "integer", "list of integers".
absl::string_view AttributeTypeName(AttributeType type);

// An attribute's name and value, as a builder call passes them: {"stride", Integers{2, 2}}.
using NamedAttribute = std::pair<absl::string_view, AttributeValue>;

// Compares two attributes. Reals and tensors are equal if their bits are; graphs are equal if they
// are the same object.
bool SameAttribute(const AttributeValue& a, const AttributeValue& b);

// Formats the value as the text printer does: "[2,2]", "true", "float32". A tensor shows at most
// its first 8 elements.
std::string ToString(const AttributeValue& value);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_ATTRIBUTE_H_
