#include "gradweave/graph/dtype.h"

#include <vector>

#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

constexpr DType kAll[] = {kFloat32,  kFloat64, kInt32, kInt64,  kUint8,  kBool,  kFloat16,
                          kBFloat16, kInt8,    kInt16, kUint16, kUint32, kUint64};

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
    case kFloat16:
      return "float16";
    case kBFloat16:
      return "bfloat16";
    case kInt8:
      return "int8";
    case kInt16:
      return "int16";
    case kUint16:
      return "uint16";
    case kUint32:
      return "uint32";
    case kUint64:
      return "uint64";
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

void internal::DTypeIsNotComputed(DType dtype) {
  CheckFailed("kComputed.Contains(dtype)", __FILE__, __LINE__, std::string(DTypeName(dtype)));
}

}  // namespace gradweave
