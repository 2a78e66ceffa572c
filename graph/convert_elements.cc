#include "gradweave/graph/convert_elements.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace gradweave {
namespace {

// The cases that static_cast leaves undefined are defined here.
template <typename To, typename From>
To Converted(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<To, bool> && kIsHalf<From>) {
    return (x.bits() & 0x7FFF) != 0;
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != From(0);
  } else if constexpr (std::is_same_v<To, double> && std::is_same_v<From, BFloat16>) {
    // A denormal bfloat16 is a denormal float, which the conversion to double may take as zero.
    const bool is_denormal = (x.bits() & 0x7F80) == 0;
    const double size = is_denormal ? (x.bits() & 0x7F) * 0x1p-133 : std::fabs(static_cast<double>(x));
    return (x.bits() & 0x8000) != 0 ? -size : size;
  } else if constexpr (kIsHalf<From>) {
    return Converted<To>(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    // The largest integer may have no place in From; the power of two above it has.
    constexpr int kBits = std::numeric_limits<To>::digits;
    if (std::isnan(x)) return 0;
    if (x >= std::ldexp(From(1), kBits)) return std::numeric_limits<To>::max();
    if (x < static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

}  // namespace

void ConvertElements(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t count) {
  VisitAnyDType(from_dtype, [&](auto from_zero) {
    using From = decltype(from_zero);
    VisitAnyDType(to_dtype, [&](auto to_zero) {
      using To = decltype(to_zero);
      const From* const x = static_cast<const From*>(from);
      To* const y = static_cast<To*>(to);
      for (int64_t i = 0; i < count; ++i) y[i] = Converted<To>(x[i]);
    });
  });
}

}  // namespace gradweave
