// Floating numbers of 16 bits: Float16 is binary16 of IEEE 754 (5 bits of exponent, 10 of
// fraction), and BFloat16 is the upper half of a float (8 bits of exponent, 7 of fraction).
#ifndef GRADWEAVE_GRAPH_HALF_H_
#define GRADWEAVE_GRAPH_HALF_H_

#include <bit>
#include <cstdint>
#include <type_traits>

namespace gradweave {
namespace internal {

// The functions below work on the bits of numbers, so they do not depend on how a thread rounds or
// on whether it takes denormals as zeros. Rounding is to the nearest number, to the one with an
// even last bit if two are equally near, and to infinity beyond the largest one. A NaN stays a NaN:
// it keeps its sign and the upper bits of its fraction, and becomes quiet.

// Returns the float that has the leading bits of `x`. Its last bit is set if `x` is not a float.
// Rounding the result to a half type gives the same as rounding `x` (Boldo and Melquiond,
// "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
inline float RoundedToOdd(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const uint32_t sign = static_cast<uint32_t>(bits >> 32) & 0x80000000u;
  const int exponent = static_cast<int>(bits >> 52 & 0x7FF);
  const uint64_t fraction = bits & 0xFFFFFFFFFFFFFu;
  const int new_exponent = exponent - 1023 + 127;
  uint32_t result = 0;
  if (exponent == 0x7FF) {
    result = 0x7F800000u | static_cast<uint32_t>(fraction >> 29) | (fraction != 0 ? 0x400000u : 0);
  } else if (new_exponent >= 255) {
    result = 0x7F7FFFFFu;
  } else {
    // A denormal float has no leading one and a smaller fraction.
    const int shift = new_exponent >= 1 ? 29 : 30 - new_exponent;
    const uint64_t whole = new_exponent >= 1 ? fraction : fraction | uint64_t{1} << 52;
    const bool inexact = shift > 53 ? bits << 1 != 0 : (whole & ((uint64_t{1} << shift) - 1)) != 0;
    result = (shift > 53 ? 0 : static_cast<uint32_t>(whole >> shift)) | (inexact ? 1 : 0);
    if (new_exponent >= 1) result |= static_cast<uint32_t>(new_exponent) << 23;
  }
  return std::bit_cast<float>(sign | result);
}

// Returns the integer as a double. One that has more than 53 bits is rounded to odd.
template <typename Integer>
double IntegerToDouble(Integer x) {
  if constexpr (sizeof(Integer) < 8) {
    return x;
  } else {
    const bool negative = x < 0;
    const uint64_t size = negative ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
    if (size >> 53 == 0) return static_cast<double>(x);
    const double rounded = static_cast<double>(size >> 11 | ((size & 0x7FF) != 0 ? 1 : 0)) * 2048;
    return negative ? -rounded : rounded;
  }
}

inline uint16_t Float16Bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), size = bits & 0x7FFFFFFFu;
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  if (size > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | (size >> 13 & 0x3FFu));
  if (size >= 0x47800000u) return sign | 0x7C00u;  // 2^16 and above.
  if (size < 0x33000000u) return sign;             // Below 2^-25, half of the smallest number.
  // Below 2^-14 the result is denormal: its unit is 2^-24.
  const int exponent = static_cast<int>(size >> 23);
  const int shift = exponent < 113 ? 126 - exponent : 13;
  const uint32_t whole = exponent < 113 ? (size & 0x7FFFFFu) | 0x800000u : size - (112u << 23);
  const uint32_t half = (1u << (shift - 1)) - 1 + (whole >> shift & 1);
  return static_cast<uint16_t>(sign | (whole + half) >> shift);
}

inline float FloatOfFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, size = bits & 0x7FFFu;
  uint32_t result = (size << 13) + (112u << 23);
  if (size >= 0x7C00u) {
    result = size << 13 | 0x7F800000u | (size > 0x7C00u ? 0x400000u : 0);
  } else if (size < 0x400u) {
    // The number is size * 2^-24. Its leading one moves to the place that floats leave out.
    const int zeros = std::countl_zero(size);
    result = size == 0 ? 0 : ((size << (zeros - 8)) & 0x7FFFFFu) | static_cast<uint32_t>(134 - zeros) << 23;
  }
  return std::bit_cast<float>(sign | result);
}

inline uint16_t BFloat16Bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

inline float FloatOfBFloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// A number of 16 bits. All arithmetic is done on floats, to which every such number converts
// without a loss. Conversions are explicit; they round once, also from double and int64.
template <uint16_t (*BitsOf)(float), float (*FloatOf)(uint16_t)>
class Half {
 public:
  constexpr Half() = default;
  explicit Half(float x) : bits_(BitsOf(x)) {}
  template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T>>>
  explicit Half(T x) {
    if constexpr (std::is_integral_v<T>) {
      bits_ = BitsOf(RoundedToOdd(IntegerToDouble(x)));
    } else {
      bits_ = BitsOf(RoundedToOdd(x));
    }
  }
  template <typename T, typename = std::enable_if_t<std::is_floating_point_v<T>>>
  explicit operator T() const {
    return FloatOf(bits_);
  }

  // The number that has these bits.
  static constexpr Half FromBits(uint16_t bits) {
    Half half;
    half.bits_ = bits;
    return half;
  }
  constexpr uint16_t bits() const { return bits_; }

  // Compares as floats do: no NaN equals itself, and -0 equals 0.
  friend bool operator==(Half a, Half b) { return static_cast<float>(a) == static_cast<float>(b); }
  friend bool operator!=(Half a, Half b) { return static_cast<float>(a) != static_cast<float>(b); }
  friend bool operator<(Half a, Half b) { return static_cast<float>(a) < static_cast<float>(b); }
  friend bool operator<=(Half a, Half b) { return static_cast<float>(a) <= static_cast<float>(b); }
  friend bool operator>(Half a, Half b) { return static_cast<float>(a) > static_cast<float>(b); }
  friend bool operator>=(Half a, Half b) { return static_cast<float>(a) >= static_cast<float>(b); }

 private:
  uint16_t bits_ = 0;
};

}  // namespace internal

using Float16 = internal::Half<internal::Float16Bits, internal::FloatOfFloat16>;
using BFloat16 = internal::Half<internal::BFloat16Bits, internal::FloatOfBFloat16>;

template <typename T>
inline constexpr bool kIsHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_HALF_H_
