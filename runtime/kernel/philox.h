// Random numbers that are the same bits on every device: the Philox generator, and distributions
// computed with only those operations that IEEE 754 rounds in exactly one way.
#ifndef GRADWEAVE_RUNTIME_KERNEL_PHILOX_H_
#define GRADWEAVE_RUNTIME_KERNEL_PHILOX_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave::philox {

// One counter, or the four random words for it.
struct Words {
  uint32_t values[4];
};
struct Key {
  uint32_t values[2];
};

// Philox 4x32-10: computes four random words from a counter and a key (Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011, section 3; constants from table 2).
GRADWEAVE_HOST_DEVICE inline Words Generate(Words counter, Key key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter.values[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter.values[2];
    counter = {
        {static_cast<uint32_t>(product1 >> 32) ^ counter.values[1] ^ key.values[0], static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ counter.values[3] ^ key.values[1], static_cast<uint32_t>(product0)}};
    key = {{key.values[0] + 0x9E3779B9, key.values[1] + 0xBB67AE85}};
  }
  return counter;
}

// Mixes the bits of a seed, so that neighbouring seeds give unrelated keys. This is the finaliser
// of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014).
GRADWEAVE_HOST_DEVICE inline uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// Returns the key of one node's numbers in one session.
GRADWEAVE_HOST_DEVICE inline Key KeyOf(uint64_t session_seed, uint64_t node_seed) {
  const uint64_t mixed = Mix(Mix(session_seed) ^ node_seed);
  return {{static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32)}};
}

// Returns the random words of the given block of kPerBlock numbers in one run.
GRADWEAVE_HOST_DEVICE inline Words WordsOf(Key key, uint64_t run_number, uint64_t block) {
  return Generate({{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(run_number),
                    static_cast<uint32_t>(run_number >> 32)}},
                  key);
}

// Numbers that one block of four words yields: a float takes one word, a double two.
template <typename T>
constexpr int kPerBlock = sizeof(T) == 4 ? 4 : 2;

// Maps random bits to [0, 1), with as many bits as the mantissa holds.
GRADWEAVE_HOST_DEVICE inline float Unit(const uint32_t* words, float) {
  return static_cast<float>(words[0] >> 8) * 0x1p-24f;
}
GRADWEAVE_HOST_DEVICE inline double Unit(const uint32_t* words, double) {
  return static_cast<double>(((uint64_t{words[0]} << 32) | words[1]) >> 11) * 0x1p-53;
}

// Splits a positive normal number into mantissa * 2^exponent, with the mantissa in (sqrt(1/2),
// sqrt(2)].
GRADWEAVE_HOST_DEVICE inline float SplitNumber(float x, int& exponent) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  exponent = static_cast<int>(bits >> 23) - 127;
  bits = (bits & 0x7fffff) | 0x3f800000;
  float mantissa;
  memcpy(&mantissa, &bits, sizeof bits);
  if (mantissa > 1.41421356f) {
    mantissa = mantissa * 0.5f;
    ++exponent;
  }
  return mantissa;
}
GRADWEAVE_HOST_DEVICE inline double SplitNumber(double x, int& exponent) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  exponent = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffff) | 0x3ff0000000000000;
  double mantissa;
  memcpy(&mantissa, &bits, sizeof bits);
  if (mantissa > 1.4142135623730951) {
    mantissa = mantissa * 0.5;
    ++exponent;
  }
  return mantissa;
}

// Returns log(x) for normal x > 0. With x = m * 2^e and s = (m - 1)/(m + 1), log(m) = 2*(s + s^3/3
// + s^5/5 + ...), where |s| < 0.1716.
template <typename T>
GRADWEAVE_HOST_DEVICE T LogOf(T x) {
  int exponent = 0;
  const T m = SplitNumber(x, exponent);
  const T s = (m - 1) / (m + 1), q = s * s;
  // The first omitted term, q^n/(2n + 1) with q < 0.0295, is below the rounding error.
  T sum = 0;
  for (int n = sizeof(T) == 4 ? 5 : 10; n >= 1; --n) sum = (sum + T(1) / static_cast<T>(2 * n + 1)) * q;
  // ln(2) is split in two parts. The first has few enough bits that its product with the exponent
  // is exact.
  const T high = sizeof(T) == 4 ? T(0.693145751953125) : T(0.69314718036912382);
  const T low = sizeof(T) == 4 ? T(1.428606765330187e-06) : T(1.9082149292705877e-10);
  const T e = static_cast<T>(exponent);
  return e * high + (2 * s + (2 * s * sum + e * low));
}

// Computes cos and sin of 2*pi*u for u in [0, 1), with Taylor series about the nearest quarter
// turn.
template <typename T>
GRADWEAVE_HOST_DEVICE void CosSinOfTurns(T u, T& cosine, T& sine) {
  const int quarter = static_cast<int>(u * 4 + T(0.5));
  const T r = (u - static_cast<T>(quarter) * T(0.25)) * T(6.283185307179586477);  // |r| <= pi/4.
  const T q = r * r;
  constexpr int kTerms = sizeof(T) == 4 ? 5 : 9;
  T s = 1, c = 1;
  for (int n = kTerms; n >= 1; --n) {
    s = 1 - q * s / static_cast<T>(2 * n * (2 * n + 1));
    c = 1 - q * c / static_cast<T>(2 * n * (2 * n - 1));
  }
  s = s * r;
  switch (quarter % 4) {
    case 0:
      cosine = c;
      sine = s;
      break;
    case 1:
      cosine = -s;
      sine = c;
      break;
    case 2:
      cosine = -c;
      sine = -s;
      break;
    default:
      cosine = s;
      sine = -c;
  }
}

// Generates numbers in [low, high). `first` is low, `last` the largest number below high.
template <typename T>
struct Uniform {
  T first, width, last;
  GRADWEAVE_HOST_DEVICE void operator()(const Words& words, T* numbers) const {
    constexpr int kWords = 4 / kPerBlock<T>;
    for (int i = 0; i < kPerBlock<T>; ++i) {
      // Rounding can reach the upper bound, which is outside the range.
      const T number = first + width * Unit(&words.values[i * kWords], T());
      numbers[i] = last < number ? last : number;
    }
  }
};

// Returns the uniform distribution over [low, high), whose bounds are given in double precision.
template <typename T>
Uniform<T> UniformBetween(double low, double high) {
  const T first = static_cast<T>(low);
  return {first, static_cast<T>(high - low), std::nextafter(static_cast<T>(high), first)};
}

// Generates normally distributed numbers with the transform of Box and Muller (1958).
template <typename T>
struct Normal {
  T mean, deviation;
  GRADWEAVE_HOST_DEVICE void operator()(const Words& words, T* numbers) const {
    constexpr int kWords = 4 / kPerBlock<T>;
    for (int i = 0; i < kPerBlock<T>; i += 2) {
      // 1 - u is in (0, 1], where the logarithm is finite.
      const T radius = formulas::SqrtOf(T(-2) * LogOf(1 - Unit(&words.values[i * kWords], T())));
      T cosine = 0, sine = 0;
      CosSinOfTurns(Unit(&words.values[(i + 1) * kWords], T()), cosine, sine);
      numbers[i] = mean + deviation * radius * cosine;
      numbers[i + 1] = mean + deviation * radius * sine;
    }
  }
};

}  // namespace gradweave::philox

#endif  // GRADWEAVE_RUNTIME_KERNEL_PHILOX_H_
