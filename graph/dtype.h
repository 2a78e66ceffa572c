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
#include "gradweave/graph/half.h"

namespace gradweave {

// The type of a tensor's elements. Model files and the C interface keep the order.
enum class DType : uint8_t {
  kFloat32,
  kFloat64,
  kInt32,
  kInt64,
  kUint8,
  kBool,
  kFloat16,
  kBFloat16,
  kInt8,
  kInt16,
  kUint16,
  kUint32,
  kUint64,
};

inline constexpr DType kFloat32 = DType::kFloat32;
inline constexpr DType kFloat64 = DType::kFloat64;
inline constexpr DType kInt32 = DType::kInt32;
inline constexpr DType kInt64 = DType::kInt64;
inline constexpr DType kUint8 = DType::kUint8;
inline constexpr DType kBool = DType::kBool;
inline constexpr DType kFloat16 = DType::kFloat16;
inline constexpr DType kBFloat16 = DType::kBFloat16;
inline constexpr DType kInt8 = DType::kInt8;
inline constexpr DType kInt16 = DType::kInt16;
inline constexpr DType kUint16 = DType::kUint16;
inline constexpr DType kUint32 = DType::kUint32;
inline constexpr DType kUint64 = DType::kUint64;

// Returns the name in small letters: "float32", "bfloat16", "uint8", "bool".
absl::string_view DTypeName(DType dtype);

// Parses the result of DTypeName; returns nullopt for any other text.
std::optional<DType> DTypeFromName(absl::string_view name);

// Returns the size of one element in bytes.
constexpr size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case kFloat64:
    case kInt64:
    case kUint64:
      return 8;
    case kFloat32:
    case kInt32:
    case kUint32:
      return 4;
    case kFloat16:
    case kBFloat16:
    case kInt16:
    case kUint16:
      return 2;
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
  }
  return 0;
}

// Classes of dtypes that all ops compute with. uint8 counts as an integer; bool does not.
constexpr bool IsFloating(DType dtype) { return dtype == kFloat32 || dtype == kFloat64; }
constexpr bool IsInteger(DType dtype) { return dtype == kInt32 || dtype == kInt64 || dtype == kUint8; }
// The floating dtypes of 16 bits.
constexpr bool IsHalf(DType dtype) { return dtype == kFloat16 || dtype == kBFloat16; }
// The dtypes of numbers with fractions, which carry gradients. An op that takes float32 takes the
// halves too: sessions compute it in float32 and round its results (graph/passes/widen_halves.h).
constexpr bool IsReal(DType dtype) { return IsFloating(dtype) || IsHalf(dtype); }

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

// The sets that op definitions use most. An op that takes no more than kComputed has a kernel for
// each of its dtypes; the other dtypes store numbers in few bytes, and Cast converts them.
inline constexpr DTypeSet kFloating = {kFloat32, kFloat64};
inline constexpr DTypeSet kIntegers = {kInt32, kInt64, kUint8};
inline constexpr DTypeSet kIndices = {kInt32, kInt64};
inline constexpr DTypeSet kNumeric = {kFloat32, kFloat64, kInt32, kInt64, kUint8};
inline constexpr DTypeSet kComputed = {kFloat32, kFloat64, kInt32, kInt64, kUint8, kBool};
inline constexpr DTypeSet kHalves = {kFloat16, kBFloat16};
inline constexpr DTypeSet kAnyDType = {kFloat32,  kFloat64, kInt32, kInt64,  kUint8,  kBool,  kFloat16,
                                       kBFloat16, kInt8,    kInt16, kUint16, kUint32, kUint64};

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
  else if constexpr (std::is_same_v<T, Float16>)
    return kFloat16;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return kBFloat16;
  else if constexpr (std::is_same_v<T, int8_t>)
    return kInt8;
  else if constexpr (std::is_same_v<T, int16_t>)
    return kInt16;
  else if constexpr (std::is_same_v<T, uint16_t>)
    return kUint16;
  else if constexpr (std::is_same_v<T, uint32_t>)
    return kUint32;
  else if constexpr (std::is_same_v<T, uint64_t>)
    return kUint64;
  else {
    static_assert(std::is_same_v<T, bool>, "no dtype holds this type");
    return kBool;
  }
}();

namespace internal {
// Aborts the program.
[[noreturn]] void DTypeIsNotComputed(DType dtype);
}  // namespace internal

// Calls function(T()), where T is the C++ type of a dtype of kComputed, and returns its result.
template <typename Function>
decltype(auto) VisitDType(DType dtype, Function&& function) {
  switch (dtype) {
    case kFloat32:
      return function(float{});
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
    default:
      internal::DTypeIsNotComputed(dtype);
  }
}

// The same for any dtype.
template <typename Function>
decltype(auto) VisitAnyDType(DType dtype, Function&& function) {
  switch (dtype) {
    case kFloat16:
      return function(Float16{});
    case kBFloat16:
      return function(BFloat16{});
    case kInt8:
      return function(int8_t{});
    case kInt16:
      return function(int16_t{});
    case kUint16:
      return function(uint16_t{});
    case kUint32:
      return function(uint32_t{});
    case kUint64:
      return function(uint64_t{});
    default:
      return VisitDType(dtype, function);
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_DTYPE_H_
