#include "gradweave/graph/dtype.h"

#include <vector>

#include "absl/strings/str_join.h"

namespace gradweave {
namespace {

constexpr DType kAll[] = {kFloat32, kFloat64, kInt32, kInt64, kUint8, kBool};

}  // namespace

absl::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case kFloat32:
      return "float32";
    case kFloat64:
      return "float64";
    case kInt32:
      return "int32";
    case kInt64:
      return "int64";
    case kUint8:
      return "uint8";
    case kBool:
      return "bool";
  }
  return "unknown";
}

std::optional<DType> DTypeFromName(absl::string_view name) {
  for (DType dtype : kAll) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

std::string DTypeSet::ToString() const {
  std::vector<absl::string_view> names;
  for (DType dtype : kAll) {
    if (Contains(dtype)) names.push_back(DTypeName(dtype));
  }
  return absl::StrJoin(names, " or ");
}

}  // namespace gradweave
