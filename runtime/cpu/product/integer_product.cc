#include "gradweave/runtime/cpu/product/integer_product.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

// Bytes behind a stage, which the last word of a run may read.
constexpr size_t kSlack = 4;

// Bytes behind rows of int16, which the last vectors may read.
constexpr size_t kRowSlack = kIntegerGroup * sizeof(int16_t);

// Bytes of rows that are staged at a time, and the most parts of all rows.
constexpr int64_t kStagedBytes = 1 << 14, kMostStagedChunks = 1024;

// Returns the product, at most kMostScratchBytes.
size_t BoundedProduct(std::initializer_list<int64_t> factors) {
  size_t product = 1;
  for (int64_t factor : factors) {
    if (factor == 0) return 0;
    if (__builtin_mul_overflow(product, static_cast<size_t>(factor), &product) || product > kMostScratchBytes)
      product = kMostScratchBytes;
  }
  return product;
}

// The numbers that a window needs along one axis.
int64_t Reach(int64_t outputs, int64_t stride, int64_t taps, int64_t dilation) {
  return outputs == 0 ? 0 : (outputs - 1) * stride + (taps - 1) * dilation + 1;
}

// Transposes x [rows, columns] to y [columns, rows].
void Transpose(const IntegerKernels& kernels, const uint8_t* x, int64_t rows, int64_t columns, int64_t x_step,
               uint8_t* y, int64_t y_step) {
  if (rows < 16 || columns < 16) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) y[j * y_step + i] = x[i * x_step + j];
    }
    return;
  }
  // The last blocks end with the matrix, so they may repeat some numbers.
  for (int64_t i = 0; i < rows; i += 16) {
    const int64_t row = std::min(i, rows - 16);
    for (int64_t j = 0; j < columns; j += 16) {
      const int64_t column = std::min(j, columns - 16);
      kernels.transpose(x + row * x_step + column, x_step, y + column * y_step + row, y_step);
    }
  }
}

}  // namespace

struct IntegerProduct::BlockNumbers {
  int32_t* start;  // [block channels].
  float* scale;    // [block channels].
};

IntegerProduct::IntegerProduct(const ConvGeometry& geometry, const Options& options, const IntegerKernels& kernels)
    : geometry_(geometry),
      options_(options),
      kernels_(kernels),
      sum_(kernels.For(DivideUp(std::max<int64_t>(geometry.group_outputs(), 1), kIntegerGroup))),
      is_signed_(options.x_dtype == kInt8),
      rows_(Reach(geometry.output_height, geometry.stride_y, geometry.kernel_height, geometry.dilation_y)),
      columns_(Reach(geometry.output_width, geometry.stride_x, geometry.kernel_width, geometry.dilation_x)),
      block_channels_(sum_.groups * kIntegerGroup),
      blocks_(DivideUp(geometry.group_outputs(), block_channels_)),
      pixel_blocks_(DivideUp(geometry.pixels(), kBlockPixels)) {
  const ConvGeometry& g = geometry_;
  if (empty()) return;
  if (by_rows()) {
    const int64_t padded = RoundUp(g.output_width, kIntegerGroup);
    // Rows of x by the remainder of the column, the sums of a row, its scales and its results.
    thread_bytes_ =
        RoundUp(
            BoundedProduct({g.stride_x, rows_, DivideUp(columns_, g.stride_x), int64_t{sizeof(int16_t)}}) + kRowSlack,
            kAlignment) +
        BoundedProduct({padded, int64_t{sizeof(int32_t) + 2 * sizeof(float)}});
    for (int64_t k = 0; k < g.kernel_height; ++k) {
      for (int64_t l = 0; l < g.kernel_width; ++l) {
        const int64_t column = l * g.dilation_x, row = column % g.stride_x * rows_ + k * g.dilation_y;
        const size_t place = BoundedProduct({row, DivideUp(columns_, g.stride_x)});
        taps_.push_back(static_cast<int64_t>(place) + column / g.stride_x);
      }
    }
    return;
  }
  // Neighbouring columns of a stage follow each other.
  const int64_t channels = g.group_channels(), per_word = 4 / kernels_.bytes;
  const int64_t taps = g.dilation_x == 1 ? g.kernel_width : 1;
  for (int64_t y = 0; channels > 0 && y < g.kernel_height; ++y) {
    for (int64_t x = 0; x < g.kernel_width; x += taps) {
      const size_t row = BoundedProduct({y * g.dilation_y, columns_, channels, int64_t{kernels_.bytes}});
      const size_t place = row + BoundedProduct({x * g.dilation_x, channels, int64_t{kernels_.bytes}});
      runs_.push_back({static_cast<int64_t>(place), DivideUp(taps * channels, per_word)});
      words_ += runs_.back().words;
    }
  }
  packed_size_ = RoundUp((block_words() + block_channels_) * sizeof(uint32_t), kAlignment);
  packed_bytes_ = BoundedProduct({static_cast<int64_t>(packed_size_), blocks_, g.groups});
  stage_size_ = BoundedProduct({rows_, columns_, channels, int64_t{kernels_.bytes}});
  stage_bytes_ = RoundUp(BoundedProduct({static_cast<int64_t>(stage_size_), g.samples, g.groups}) + kSlack, kAlignment);
  numbers_bytes_ = RoundUp(
      BoundedProduct({blocks_, g.groups, block_channels_, int64_t{sizeof(int32_t) + sizeof(float)}}), kAlignment);
  const size_t row = BoundedProduct({g.width, channels});
  const size_t block = block_channels_ * kBlockPixels * sizeof(float);
  const size_t sums = block_channels_ * kMostIntegerPixels * sizeof(int32_t);
  thread_bytes_ = RoundUp(std::max(row, block + sums), kAlignment);
}

size_t IntegerProduct::scratch_bytes(int threads) const {
  return stage_bytes_ + numbers_bytes_ + BoundedProduct({threads, static_cast<int64_t>(thread_bytes_)});
}

void IntegerProduct::PackBlock(const IntegerOperands& operands, int64_t block, uint32_t* words) const {
  const ConvGeometry& g = geometry_;
  const int64_t channels = g.group_channels(), per_word = 4 / kernels_.bytes;
  const int64_t taps_x = g.dilation_x == 1 ? g.kernel_width : 1;
  const int64_t step = options_.matrices ? g.outputs : 1;
  for (int64_t j = 0; j < block_channels_; ++j) {
    const int64_t in_group = block % blocks_ * block_channels_ + j;
    const bool exists = in_group < g.group_outputs();
    const int64_t output = block / blocks_ * g.group_outputs() + in_group;
    const int8_t* filter = operands.weights + (options_.matrices ? output : output * g.taps());
    uint32_t total = 0;
    int64_t word = 0;
    for (int64_t y = 0; channels > 0 && y < g.kernel_height; ++y) {
      for (int64_t x = 0; x < g.kernel_width; x += taps_x) {
        const int64_t count = taps_x * channels;
        for (int64_t first = 0; first < count; first += per_word, ++word) {
          auto* const to = reinterpret_cast<std::byte*>(words + word * block_channels_ + j);
          std::memset(to, 0, sizeof(uint32_t));
          for (int64_t i = 0; exists && i < std::min(per_word, count - first); ++i) {
            const int64_t channel = (first + i) % channels, tap_x = x + (first + i) / channels;
            const int8_t weight = filter[((channel * g.kernel_height + y) * g.kernel_width + tap_x) * step];
            total += static_cast<uint32_t>(weight);
            if (kernels_.bytes == 1) {
              std::memcpy(to + i, &weight, 1);
            } else {
              const auto wide = static_cast<int16_t>(weight);
              std::memcpy(to + 2 * i, &wide, 2);
            }
          }
        }
      }
    }
    words[block_words() + j] = total;
  }
}

IntegerProduct::BlockNumbers IntegerProduct::NumbersOf(std::byte* scratch, int64_t block) const {
  auto* const start = reinterpret_cast<int32_t*>(scratch) + 2 * block * block_channels_;
  return {start, reinterpret_cast<float*>(start + block_channels_)};
}

void IntegerProduct::FindNumbers(const IntegerOperands& operands, const std::byte* packed, int64_t block,
                                 const BlockNumbers& numbers) const {
  // Numbers of two bytes have lost their zero point in the stage.
  const auto zero = static_cast<uint32_t>(kernels_.bytes == 1 ? options_.x_zero + (is_signed_ ? 128 : 0) : 0);
  const uint32_t* const totals = BlockWords(packed, block) + block_words();
  for (int64_t j = 0; j < block_channels_; ++j) {
    const int64_t in_group = block % blocks_ * block_channels_ + j;
    const bool exists = in_group < geometry_.group_outputs();
    const int64_t output = block / blocks_ * geometry_.group_outputs() + in_group;
    numbers.start[j] =
        exists ? static_cast<int32_t>(static_cast<uint32_t>(operands.bias[output]) - zero * totals[j]) : 0;
    numbers.scale[j] = exists ? operands.scale[output] : 0;
  }
}

void IntegerProduct::Pack(const IntegerOperands& operands, std::byte* packed, ThreadPool& pool) const {
  if (packed_bytes_ == 0) return;
  pool.ParallelFor(blocks_ * geometry_.groups, [&](int64_t block, int) {
    PackBlock(operands, block, reinterpret_cast<uint32_t*>(packed + block * packed_size_));
  });
}

void IntegerProduct::StageRow(const uint8_t* x, int64_t task, uint8_t* stage, uint8_t* scratch) const {
  const ConvGeometry& g = geometry_;
  const int64_t channels = g.group_channels(), bytes = kernels_.bytes, row_size = columns_ * channels * bytes;
  const int64_t image = task / rows_, row = task % rows_, y = row - g.top;
  uint8_t* const to = stage + image * stage_size_ + row * row_size;
  // A zero point of two bytes is 0.
  const int zero = bytes == 1 ? static_cast<int>(options_.x_zero) + (is_signed_ ? 128 : 0) : 0;
  const int64_t left = std::min(g.left, columns_), count = std::clamp<int64_t>(columns_ - left, 0, g.width);
  if (y < 0 || y >= g.height || count == 0) {
    std::memset(to, zero, row_size);
    return;
  }
  std::memset(to, zero, left * channels * bytes);
  std::memset(to + (left + count) * channels * bytes, zero, (columns_ - left - count) * channels * bytes);
  const uint8_t* from;
  if (options_.matrices) {
    from = x + y * channels;
  } else {
    from = x + (image * channels * g.height + y) * g.width;
    if (channels > 1) {
      Transpose(kernels_, from, channels, count, g.height * g.width, scratch, channels);
      from = scratch;
    }
  }
  kernels_.widen(from, count * channels, is_signed_, static_cast<int32_t>(options_.x_zero),
                 to + left * channels * bytes);
}

IntegerRounding IntegerProduct::RoundingOf(const float* scale) const {
  return IntegerRounding::To(options_.y_dtype == kInt8, options_.zero, options_.relu, scale);
}

void IntegerProduct::Store(const std::byte* results, int64_t sample, int64_t channel, int64_t channels, int64_t pixel,
                           int64_t pixels, void* y) const {
  const ConvGeometry& g = geometry_;
  const bool floats = options_.y_dtype == kFloat32;
  if (options_.matrices) {
    const int64_t size = floats ? sizeof(float) : 1;
    for (int64_t p = 0; p < pixels; ++p) {
      std::memcpy(static_cast<std::byte*>(y) + ((pixel + p) * g.outputs + channel) * size,
                  results + p * block_channels_ * size, channels * size);
    }
    return;
  }
  const int64_t place = (sample * g.outputs + channel) * g.pixels() + pixel;
  if (floats) {
    const auto* const from = reinterpret_cast<const float*>(results);
    for (int64_t c = 0; c < channels; ++c) {
      float* const to = static_cast<float*>(y) + place + c * g.pixels();
      for (int64_t p = 0; p < pixels; ++p) to[p] = from[p * block_channels_ + c];
    }
    return;
  }
  Transpose(kernels_, reinterpret_cast<const uint8_t*>(results), pixels, channels, block_channels_,
            static_cast<uint8_t*>(y) + place, g.pixels());
}

void IntegerProduct::Multiply(const IntegerOperands& operands, const std::byte* packed, const BlockNumbers& numbers,
                              const uint8_t* stage, int64_t task, std::byte* scratch) const {
  const ConvGeometry& g = geometry_;
  // Tasks that share weights follow each other.
  const int64_t block = task / (g.samples * pixel_blocks_), sample = task / pixel_blocks_ % g.samples;
  const int64_t first = task % pixel_blocks_ * kBlockPixels, pixels = std::min(kBlockPixels, g.pixels() - first);
  const int64_t group = block / blocks_, in_group = block % blocks_ * block_channels_;
  const int64_t channels = std::min(block_channels_, g.group_outputs() - in_group);
  const uint8_t* const image = stage + (sample * g.groups + group) * stage_size_;
  const int64_t pixel_size = g.group_channels() * kernels_.bytes;
  const IntegerRounding rounding = RoundingOf(numbers.scale);
  std::byte* const results = scratch;
  auto* const sums = reinterpret_cast<int32_t*>(scratch + block_channels_ * kBlockPixels * sizeof(float));
  int64_t y = first / g.output_width, x = first % g.output_width;
  for (int64_t begin = 0; begin < pixels; begin += sum_.pixels) {
    const int64_t count = std::min<int64_t>(sum_.pixels, pixels - begin);
    const uint8_t* places[kMostIntegerPixels];
    for (int64_t p = 0; p < count; ++p) {
      places[p] = image + (y * g.stride_y * columns_ + x * g.stride_x) * pixel_size;
      if (++x == g.output_width) x = 0, ++y;
    }
    // Places behind the last pixel repeat it.
    std::fill(places + count, places + sum_.pixels, places[count - 1]);
    sum_.run({.pixels = places,
              .runs = runs_.data(),
              .runs_end = runs_.data() + runs_.size(),
              .weights = BlockWords(packed, block),
              .start = numbers.start,
              .sums = sums});
    const int64_t at = begin * block_channels_;
    if (options_.y_dtype == kFloat32) {
      kernels_.to_floats(sums, count, block_channels_, rounding, reinterpret_cast<float*>(results) + at);
    } else {
      kernels_.to_bytes(sums, count, block_channels_, rounding, reinterpret_cast<uint8_t*>(results) + at);
    }
  }
  Store(results, sample, group * g.group_outputs() + in_group, channels, first, pixels, operands.y);
}

void IntegerProduct::ConvolveChannel(const IntegerOperands& operands, int64_t task, std::byte* scratch) const {
  const ConvGeometry& g = geometry_;
  const int64_t sample = task / g.outputs, output = task % g.outputs, channel = output / g.group_outputs();
  const uint8_t* const x = operands.x + (sample * g.channels + channel) * g.height * g.width;
  // Columns with equal remainders lie together, so that the loops have a step of 1.
  const int64_t phases = g.stride_x, step = DivideUp(columns_, phases);
  auto* const stage = reinterpret_cast<int16_t*>(scratch);
  const int64_t padded = RoundUp(g.output_width, kIntegerGroup);
  auto* const sums =
      reinterpret_cast<int32_t*>(scratch + RoundUp(phases * rows_ * step * sizeof(int16_t) + kRowSlack, kAlignment));
  auto* const scales = reinterpret_cast<float*>(sums + padded);
  float* const results = scales + padded;
  std::fill_n(scales, padded, operands.scale[output]);
  std::fill_n(stage, phases * rows_ * step, int16_t{0});
  const int64_t first_row = std::min(g.top, rows_), end_row = std::min(rows_, g.top + g.height);
  const int64_t first_column = std::min(g.left, columns_), end_column = std::min(columns_, g.left + g.width);
  for (int64_t row = first_row; row < end_row; ++row) {
    const uint8_t* const from = x + (row - g.top) * g.width - g.left;
    int16_t* const to = stage + row * step;
    for (int64_t first = first_column; first < std::min(first_column + phases, end_column); ++first) {
      int16_t* place = to + first % phases * rows_ * step + first / phases;
      for (int64_t column = first; column < end_column; column += phases) {
        const int number = is_signed_ ? static_cast<int8_t>(from[column]) : from[column];
        *place++ = static_cast<int16_t>(number - options_.x_zero);
      }
    }
  }
  const int8_t* const filter = operands.weights + output * g.taps();
  const IntegerRounding rounding = RoundingOf(scales);
  for (int64_t y = 0; y < g.output_height; ++y) {
    kernels_.convolve_row(stage + y * g.stride_y * step, taps_.data(), filter, g.taps(), operands.bias[output], padded,
                          sums);
    const int64_t place = (sample * g.outputs + output) * g.pixels() + y * g.output_width;
    if (options_.y_dtype == kFloat32) {
      kernels_.to_floats(sums, 1, padded, rounding, results);
      std::copy_n(results, g.output_width, static_cast<float*>(operands.y) + place);
    } else {
      kernels_.to_bytes(sums, 1, padded, rounding, reinterpret_cast<uint8_t*>(results));
      std::memcpy(static_cast<uint8_t*>(operands.y) + place, results, g.output_width);
    }
  }
}

void IntegerProduct::Run(const IntegerOperands& operands, const std::byte* packed, std::byte* scratch,
                         ThreadPool& pool) const {
  const ConvGeometry& g = geometry_;
  if (empty()) return;
  std::byte *const numbers = scratch + stage_bytes_, *const thread_scratch = numbers + numbers_bytes_;
  const auto of_thread = [&](int thread) { return thread_scratch + thread * thread_bytes_; };
  if (by_rows()) {
    pool.ParallelFor(g.samples * g.outputs,
                     [&](int64_t task, int thread) { ConvolveChannel(operands, task, of_thread(thread)); });
    return;
  }
  auto* const stage = reinterpret_cast<uint8_t*>(scratch);
  const int64_t row_bytes = std::max<int64_t>(1, columns_ * g.group_channels());
  const Chunks rows(g.samples * g.groups * rows_, std::max<int64_t>(1, kStagedBytes / row_bytes), kMostStagedChunks);
  pool.ParallelFor(rows.number, [&](int64_t chunk, int thread) {
    auto* const row_scratch = reinterpret_cast<uint8_t*>(of_thread(thread));
    for (int64_t row = rows.begin(chunk); row < rows.end(chunk); ++row) StageRow(operands.x, row, stage, row_scratch);
  });
  for (int64_t block = 0; block < blocks_ * g.groups; ++block)
    FindNumbers(operands, packed, block, NumbersOf(numbers, block));
  pool.ParallelFor(blocks_ * g.groups * g.samples * pixel_blocks_, [&](int64_t task, int thread) {
    const int64_t block = task / (g.samples * pixel_blocks_);
    Multiply(operands, packed, NumbersOf(numbers, block), stage, task, of_thread(thread));
  });
}

}  // namespace gradweave
