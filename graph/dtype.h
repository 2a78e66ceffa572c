// Element types of tensors.
#ifndef GRADWEAVE_GRAPH_DTYPE_H_
#define GRADWEAVE_GRAPH_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"

namespace gradweave {

// The type of a tensor's elements.
enum class DType : uint8_t { kFloat32, kFloat64, kInt32, kInt64, kUint8, kBool };

inline constexpr DType kFloat32 = DType::kFloat32;
inline constexpr DType kFloat64 = DType::kFloat64;
inline constexpr DType kInt32 = DType::kInt32;
inline constexpr DType kInt64 = DType::kInt64;
inline constexpr DType kUint8 = DType::kUint8;
inline constexpr DType kBool = DType::kBool;

// Returns "float32", "float64", "int32", "int64", "uint8" or "bool".
absl::string_view DTypeName(DType dtype);

// Parses the result of DTypeName; returns nullopt for any other text.
std::optional<DType> DTypeFromName(absl::string_view name);

// Returns the size of one element in bytes.
constexpr size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case kFloat64:
    case kInt64:
      return 8;
    case kFloat32:
    case kInt32:
      return 4;
    case kUint8:
    case kBool:
      return 1;
  }
  return 0;
}

// Classes of dtypes. uint8 counts as an integer; bool does not.
constexpr bool IsFloating(DType dtype) { return dtype == kFloat32 || dtype == kFloat64; }
constexpr bool IsInteger(DType dtype) { return dtype == kInt32 || dtype == kInt64 || dtype == kUint8; }

// A set of dtypes, such as those that an operand of an op accepts.
class DTypeSet {
 public:
  constexpr DTypeSet(std::initializer_list<DType> dtypes) {
    for (DType dtype : dtypes) bits_ |= Bit(dtype);
  }
  constexpr bool Contains(DType dtype) const { return (bits_ & Bit(dtype)) != 0; }
  constexpr friend bool operator==(DTypeSet a, DTypeSet b) { return a.bits_ == b.bits_; }

  // Lists the members: "float32 or float64".
  std::string ToString() const;

 private:
  static constexpr uint32_t Bit(DType dtype) { return 1u << static_cast<uint32_t>(dtype); }
  uint32_t bits_ = 0;
};

// The sets that op definitions use most.
inline constexpr DTypeSet kFloating = {kFloat32, kFloat64};
inline constexpr DTypeSet kIntegers = {kInt32, kInt64, kUint8};
inline constexpr DTypeSet kIndices = {kInt32, kInt64};
inline constexpr DTypeSet kNumeric = {kFloat32, kFloat64, kInt32, kInt64, kUint8};
inline constexpr DTypeSet kAnyDType = {kFloat32, kFloat64, kInt32, kInt64, kUint8, kBool};

// The dtype that holds a C++ type: DTypeOf<float> is kFloat32.
template <typename T>
inline constexpr DType DTypeOf = [] {
  if constexpr (std::is_same_v<T, float>)
    return kFloat32;
  else if constexpr (std::is_same_v<T, double>)
    return kFloat64;
  else if constexpr (std::is_same_v<T, int32_t>)
    return kInt32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return kInt64;
  else if constexpr (std::is_same_v<T, uint8_t>)
    return kUint8;
  else {
    static_assert(std::is_same_v<T, bool>, "no dtype holds this type");
    return kBool;
  }
}();

// Calls function(T()), where T is the C++ type of the dtype, and returns its result.
template <typename Function>
decltype(auto) VisitDType(DType dtype, Function&& function) {
  switch (dtype) {
    case kFloat64:
      return function(double{});
    case kInt32:
      return function(int32_t{});
    case kInt64:
      return function(int64_t{});
    case kUint8:
      return function(uint8_t{});
    case kBool:
      return function(bool{});
    case kFloat32:
      break;
  }
  return function(float{});
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_DTYPE_H_
