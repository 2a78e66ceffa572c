// Products and convolutions of quantized numbers (ops/quantized.h).
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_INTEGER_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_INTEGER_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/cpu/product/integer_kernels.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// The operands and the result of a product, in memory.
struct IntegerOperands {
  const uint8_t* x;  // int8 or uint8.
  const int8_t* weights;
  const float* scale;
  const int32_t* bias;
  void* y;  // float, int8 or uint8.
};

// A convolution, or a product of matrices as a 1x1 convolution. Its parts:
// - Stage copies x with its padding to a stage [row][column][channel] of each sample and group of
//   channels, where the numbers that a pixel needs lie in few runs.
// - Pack orders the weights, which may be kept from run to run.
// - Multiply sums blocks of pixels and channels, and rounds them.
// Loops go along rows of pixels, without a stage, if each channel is a group.
class IntegerProduct {
 public:
  struct Options {
    DType x_dtype, y_dtype;
    int64_t x_zero, zero;
    bool relu;
    // x, the weights and y are the matrices [pixels, channels], [channels, outputs] and [pixels,
    // outputs].
    bool matrices;
  };
  IntegerProduct(const ConvGeometry& geometry, const Options& options,
                 const IntegerKernels& kernels = GetIntegerKernels());

  // Bytes that Pack writes, from the weights alone; 0 if they need no packing.
  size_t packed_bytes() const { return packed_bytes_; }
  size_t scratch_bytes(int threads) const;

  void Pack(const IntegerOperands& operands, std::byte* packed, ThreadPool& pool) const;
  // `scratch` has scratch_bytes for the threads of the pool.
  void Run(const IntegerOperands& operands, const std::byte* packed, std::byte* scratch, ThreadPool& pool) const;

 private:
  // A block of pixels is rounded before it is stored.
  static constexpr int64_t kBlockPixels = 48;

  // The sums with which the pixels of a block of channels begin, and its scales.
  struct BlockNumbers;

  bool empty() const { return geometry_.samples == 0 || geometry_.outputs == 0 || geometry_.pixels() == 0; }
  bool by_rows() const { return geometry_.groups > 1 && geometry_.group_channels() == 1; }
  // The words of a block, [words, block channels], and behind them the sum of each channel's
  // weights.
  int64_t block_words() const { return words_ * block_channels_; }
  const uint32_t* BlockWords(const std::byte* packed, int64_t block) const {
    return reinterpret_cast<const uint32_t*>(packed + block * packed_size_);
  }
  void PackBlock(const IntegerOperands& operands, int64_t block, uint32_t* words) const;
  BlockNumbers NumbersOf(std::byte* scratch, int64_t block) const;
  void FindNumbers(const IntegerOperands& operands, const std::byte* packed, int64_t block,
                   const BlockNumbers& numbers) const;
  void StageRow(const uint8_t* x, int64_t task, uint8_t* stage, uint8_t* scratch) const;
  void Multiply(const IntegerOperands& operands, const std::byte* packed, const BlockNumbers& numbers,
                const uint8_t* stage, int64_t task, std::byte* scratch) const;
  void ConvolveChannel(const IntegerOperands& operands, int64_t task, std::byte* scratch) const;
  void Store(const std::byte* results, int64_t sample, int64_t channel, int64_t channels, int64_t pixel, int64_t pixels,
             void* y) const;
  IntegerRounding RoundingOf(const float* scale) const;

  const ConvGeometry geometry_;
  const Options options_;
  const IntegerKernels& kernels_;
  const IntegerKernels::Sum sum_;
  const bool is_signed_;
  int64_t rows_, columns_;  // The part of the padded x that the pixels of y need.
  std::vector<WordRun> runs_;
  std::vector<int64_t> taps_;  // The place of each tap from that of its pixel, by rows.
  int64_t words_ = 0;
  int64_t block_channels_, blocks_;  // Channels of a block, and blocks of a group.
  int64_t pixel_blocks_;
  size_t stage_size_ = 0, packed_size_ = 0;  // Bytes for one sample and group, and for one block.
  size_t stage_bytes_ = 0, numbers_bytes_ = 0, thread_bytes_ = 0, packed_bytes_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_INTEGER_PRODUCT_H_
