// Inner loops of products of 8-bit integers with int32 sums. All instruction sets give the same
// integers.
//
// A word has 32 bits: four bytes, unsigned ones of x and signed ones of weights, for processors
// with AVX512-VNNI; or two int16, of x less its zero point and of weights, for all others.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_INTEGER_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_INTEGER_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Output channels of a group. Weights are packed in groups: for each word, one word of each
// channel.
inline constexpr int kIntegerGroup = 16;
// The most pixels of a block.
inline constexpr int kMostIntegerPixels = 14;

// Words that follow each other in memory, for all pixels of a block.
struct WordRun {
  int64_t offset;  // Bytes from the pixel's place.
  int64_t words;
};

// The arguments of IntegerKernels::Sum.
struct IntegerBlock {
  const uint8_t* const* pixels;  // The places of the pixels of x.
  const WordRun* runs;           // At least one.
  const WordRun* runs_end;
  const uint32_t* weights;  // [words, groups * kIntegerGroup].
  const int32_t* start;     // [groups * kIntegerGroup], to which products are added.
  int32_t* sums;            // [pixels, groups * kIntegerGroup].
};

// How sums become results: sums times `scale`, or the positive part, rounded, plus `zero`, and
// clipped to the integers of the result's dtype.
struct IntegerRounding {
  static IntegerRounding To(bool is_signed, int64_t zero, bool relu = false, const float* scale = nullptr) {
    return {scale, static_cast<int32_t>(zero), is_signed ? -128 : 0, is_signed ? 127 : 255, relu};
  }

  const float* scale;  // [channels].
  int32_t zero, low, high;
  bool relu;
};

// Sizes of a pool of images of int8 or uint8.
struct BytePool {
  int64_t height, width, output_height, output_width;
  int64_t window_y, window_x, stride_y, stride_x, top, left;
  bool is_signed;

  // Loads of vectors read behind the last column that a window needs.
  int64_t row_size() const { return left + width + (output_width - 1) * stride_x + window_x + 64; }
};

struct IntegerKernels {
  // The kernel for blocks of `groups` groups and `pixels` pixels.
  struct Sum {
    int groups = 0, pixels = 0;
    void (*run)(const IntegerBlock& block) = nullptr;
  };

  int bytes;    // The size of a number in a word: 1 or 2.
  Sum sums[3];  // The numbers of groups fall. The last ones may be unused.
  // Rounds sums [pixels, channels] to bytes, or to floats. The channels are a multiple of
  // kIntegerGroup.
  void (*to_bytes)(const int32_t* sums, int64_t pixels, int64_t channels, const IntegerRounding& rounding, uint8_t* y);
  void (*to_floats)(const int32_t* sums, int64_t pixels, int64_t channels, const IntegerRounding& rounding, float* y);
  // Transposes 16 x 16 bytes: y[j * y_step + i] = x[i * x_step + j].
  void (*transpose)(const uint8_t* x, int64_t x_step, uint8_t* y, int64_t y_step);
  // Converts `count` numbers of x, int8 or uint8, for words: bytes with 128 added to int8 ones, or
  // int16 less `zero`.
  void (*widen)(const uint8_t* x, int64_t count, bool is_signed, int32_t zero, uint8_t* y);
  // sums[i] = start + the sum of x[offsets[t] + i] * weights[t] over the taps t, for `count`
  // places, a multiple of kIntegerGroup.
  void (*convolve_row)(const int16_t* x, const int64_t* offsets, const int8_t* weights, int64_t taps, int32_t start,
                       int64_t count, int32_t* sums);
  // Rounds `count` quotients x[i] / scale to bytes.
  void (*quantize)(const float* x, int64_t count, float scale, const IntegerRounding& rounding, uint8_t* y);
  // Finds the maxima of windows of one image. `row` is scratch for a row of x with its padding, of
  // BytePool::row_size() bytes. x may be read up to x_end, and y is written in its order.
  void (*pool)(const BytePool& pool, const uint8_t* x, const uint8_t* x_end, uint8_t* row, uint8_t* y);

  // Returns the kernel with most groups that are not more than `groups`, at least one.
  const Sum& For(int64_t groups) const;
};

// Returns the fastest kernels of this machine, and those without VNNI.
const IntegerKernels& GetIntegerKernels();
const IntegerKernels& GetVectorIntegerKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_INTEGER_KERNELS_H_
