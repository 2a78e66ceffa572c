#include "gradweave/graph/attribute.h"

#include <bit>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {

absl::string_view AttributeTypeName(AttributeType type) {
  switch (type) {
    case AttributeType::kBool:
      return "bool";
    case AttributeType::kInteger:
      return "integer";
    case AttributeType::kReal:
      return "real";
    case AttributeType::kString:
      return "string";
    case AttributeType::kIntegers:
      return "list of integers";
    case AttributeType::kDType:
      return "dtype";
    case AttributeType::kShape:
      return "shape";
    case AttributeType::kTensor:
      return "tensor";
    case AttributeType::kGraph:
      return "graph";
  }
  return "unknown";
}

bool SameAttribute(const AttributeValue& a, const AttributeValue& b) {
  if (a.index() != b.index()) return false;
  return std::visit(
      [&b](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        const T& other = std::get<T>(b);
        if constexpr (std::is_same_v<T, Tensor>)
          return SameBits(value, other);
        else if constexpr (std::is_same_v<T, double>)
          return std::bit_cast<uint64_t>(value) == std::bit_cast<uint64_t>(other);
        else
          return value == other;
      },
      a);
}

std::string ToString(const AttributeValue& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, bool>)
          return v ? "true" : "false";
        else if constexpr (std::is_same_v<T, std::string>)
          return absl::StrCat("\"", absl::CEscape(v), "\"");
        else if constexpr (std::is_same_v<T, Integers>)
          return absl::StrCat("[", absl::StrJoin(v, ","), "]");
        else if constexpr (std::is_same_v<T, DType>)
          return std::string(DTypeName(v));
        else if constexpr (std::is_same_v<T, Shape>)
          return v.ToString();
        else if constexpr (std::is_same_v<T, Tensor>)
          return v.ToString(8);
        else if constexpr (std::is_same_v<T, std::shared_ptr<const Graph>>)
          return "graph";
        else
          return absl::StrCat(v);
      },
      value);
}

}  // namespace gradweave
