#include "gradweave/runtime/cpu/product/integer_product.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

struct Case {
  const char* name;
  int64_t samples, channels, height, width, outputs, kernel_y, kernel_x;
  int64_t stride = 1, dilation = 1, padding = 0, groups = 1;
};

ConvGeometry GeometryOf(const Case& c) {
  ConvGeometry g(1, 1, 1);
  g.samples = c.samples, g.channels = c.channels, g.height = c.height, g.width = c.width, g.outputs = c.outputs;
  g.kernel_height = c.kernel_y, g.kernel_width = c.kernel_x, g.stride_y = g.stride_x = c.stride;
  g.dilation_y = g.dilation_x = c.dilation, g.top = g.left = c.padding, g.groups = c.groups;
  g.output_height = (c.height + 2 * c.padding - c.dilation * (c.kernel_y - 1) - 1) / c.stride + 1;
  g.output_width = (c.width + 2 * c.padding - c.dilation * (c.kernel_x - 1) - 1) / c.stride + 1;
  g.pointwise = false;
  return g;
}

// The operands of a product, with random numbers.
struct Operands {
  std::vector<uint8_t> x;
  std::vector<int8_t> weights;
  std::vector<float> scale;
  std::vector<int32_t> bias;

  explicit Operands(const ConvGeometry& g)
      : x(g.samples * g.sample_size()), weights(g.filter_size()), scale(g.outputs), bias(g.outputs) {
    std::mt19937 random(static_cast<unsigned>(x.size() + weights.size()));
    const auto in = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    for (uint8_t& number : x) number = static_cast<uint8_t>(in(0, 255));
    for (int8_t& number : weights) number = static_cast<int8_t>(in(-128, 127));
    for (float& number : scale) number = static_cast<float>(in(1, 100)) * 1e-5f;
    for (int32_t& number : bias) number = in(-20000, 20000);
  }
};

// The sums by the definition, [samples, outputs, height, width].
std::vector<int64_t> ExpectedSums(const ConvGeometry& g, const Operands& operands, bool is_signed, int64_t x_zero) {
  std::vector<int64_t> sums;
  for (int64_t n = 0; n < g.samples; ++n) {
    for (int64_t o = 0; o < g.outputs; ++o) {
      for (int64_t p = 0; p < g.pixels(); ++p) {
        int64_t sum = operands.bias[o];
        for (int64_t t = 0; t < g.taps(); ++t) {
          const int64_t l = t % g.kernel_width, k = t / g.kernel_width % g.kernel_height;
          const int64_t c = o / g.group_outputs() * g.group_channels() + t / g.kernel_width / g.kernel_height;
          const int64_t y = p / g.output_width * g.stride_y + k * g.dilation_y - g.top;
          const int64_t x = p % g.output_width * g.stride_x + l * g.dilation_x - g.left;
          if (y < 0 || y >= g.height || x < 0 || x >= g.width) continue;
          const uint8_t byte = operands.x[((n * g.channels + c) * g.height + y) * g.width + x];
          sum += ((is_signed ? static_cast<int8_t>(byte) : byte) - x_zero) * operands.weights[o * g.taps() + t];
        }
        sums.push_back(sum);
      }
    }
  }
  return sums;
}

double Scaled(int64_t sum, float scale, bool relu) {
  const float v = static_cast<float>(static_cast<int32_t>(sum)) * scale;
  return relu && !(v > 0) ? 0 : v;
}

template <typename T>
std::vector<T> RunProduct(const ConvGeometry& g, const Operands& operands, const IntegerProduct::Options& options,
                          const IntegerKernels& kernels, int threads, bool packed_before = false) {
  const IntegerProduct product(g, options, kernels);
  ThreadPool pool(threads);
  std::vector<T> y(g.samples * g.output_size());
  std::vector<std::byte> packed(product.packed_bytes() + 64), scratch(product.scratch_bytes(threads) + 64);
  const auto aligned = [](std::vector<std::byte>& bytes) {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  };
  const IntegerOperands pointers = {operands.x.data(), operands.weights.data(), operands.scale.data(),
                                    operands.bias.data(), y.data()};
  product.Pack(pointers, aligned(packed), pool);
  for (int i = 0; i <= (packed_before ? 1 : 0); ++i) product.Run(pointers, aligned(packed), aligned(scratch), pool);
  return y;
}

class IntegerConvolution : public testing::TestWithParam<Case> {};

TEST_P(IntegerConvolution, AgreesWithTheDefinition) {
  const ConvGeometry g = GeometryOf(GetParam());
  const Operands operands(g);
  for (const IntegerKernels* kernels : {&GetIntegerKernels(), &GetVectorIntegerKernels()}) {
    for (DType x_dtype : {kUint8, kInt8}) {
      const int64_t x_zero = x_dtype == kInt8 ? -3 : 117;
      const std::vector<int64_t> sums = ExpectedSums(g, operands, x_dtype == kInt8, x_zero);
      for (bool relu : {false, true}) {
        SCOPED_TRACE(std::string(DTypeName(x_dtype)) + (relu ? " relu" : "") + (kernels->bytes == 1 ? " VNNI" : ""));
        IntegerProduct::Options options = {x_dtype, kFloat32, x_zero, 0, relu, false};
        const std::vector<float> floats = RunProduct<float>(g, operands, options, *kernels, 1);
        for (size_t i = 0; i < sums.size(); ++i) {
          const float scale = operands.scale[static_cast<int64_t>(i) / g.pixels() % g.outputs];
          ASSERT_EQ(floats[i], Scaled(sums[i], scale, relu)) << i;
        }
        for (DType y_dtype : {kUint8, kInt8}) {
          options.y_dtype = y_dtype, options.zero = y_dtype == kInt8 ? 5 : 100;
          const std::vector<uint8_t> bytes = RunProduct<uint8_t>(g, operands, options, *kernels, 3, true);
          for (size_t i = 0; i < sums.size(); ++i) {
            const float scale = operands.scale[static_cast<int64_t>(i) / g.pixels() % g.outputs];
            const double rounded = std::nearbyint(Scaled(sums[i], scale, relu)) + static_cast<double>(options.zero);
            const double low = y_dtype == kInt8 ? -128 : 0, high = y_dtype == kInt8 ? 127 : 255;
            ASSERT_EQ(y_dtype == kInt8 ? static_cast<int8_t>(bytes[i]) : bytes[i], std::clamp(rounded, low, high)) << i;
          }
        }
      }
    }
  }
}

constexpr Case kCases[] = {
    {"plain", 2, 3, 6, 7, 5, 3, 2},
    {"pointwise", 1, 17, 5, 5, 33, 1, 1},
    {"padded", 1, 16, 9, 20, 16, 3, 3, 1, 1, 1},
    {"large", 2, 64, 10, 19, 70, 3, 3, 1, 1, 1},
    {"strided", 1, 3, 23, 23, 64, 7, 7, 2, 1, 3},
    {"dilated", 1, 5, 17, 16, 20, 3, 3, 1, 3, 3},
    {"one_channel", 3, 1, 28, 28, 6, 5, 5, 1, 1, 2},
    {"groups", 2, 32, 8, 8, 48, 3, 3, 1, 1, 1, 2},
    {"depthwise", 2, 20, 9, 33, 20, 3, 3, 1, 1, 1, 20},
    {"depthwise_strided", 1, 6, 15, 17, 12, 5, 3, 2, 1, 2, 6},
    {"depthwise_dilated", 1, 4, 15, 17, 4, 3, 3, 3, 2, 2, 4},
    {"padding_alone", 1, 2, 1, 1, 3, 3, 3, 2, 1, 4},
    {"narrow", 1, 40, 7, 7, 130, 3, 3, 1, 1, 1},
};

INSTANTIATE_TEST_SUITE_P(Shapes, IntegerConvolution, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST(IntegerProduct, MultipliesMatrices) {
  for (const auto& [rows, terms, columns] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {1, 130, 300}, {5, 3, 16}, {49, 64, 65}, {100, 31, 10}, {3, 0, 4}}) {
    const ConvGeometry g(rows, terms, columns);
    const Operands operands(g);
    for (const IntegerKernels* kernels : {&GetIntegerKernels(), &GetVectorIntegerKernels()}) {
      const std::vector<float> y = RunProduct<float>(g, operands, {kInt8, kFloat32, 4, 0, false, true}, *kernels, 2);
      for (int64_t i = 0; i < rows * columns; ++i) {
        int64_t sum = operands.bias[i % columns];
        for (int64_t k = 0; k < terms; ++k) {
          sum += (static_cast<int8_t>(operands.x[i / columns * terms + k]) - 4) *
                 operands.weights[k * columns + i % columns];
        }
        ASSERT_EQ(y[i], Scaled(sum, operands.scale[i % columns], false)) << rows << " " << terms << " " << columns;
      }
    }
  }
}

TEST(IntegerProduct, SumsWrapAround) {
  // 255 * 127 * 70,000 is above 2^31.
  const ConvGeometry g(1, 70'000, 1);
  Operands operands(g);
  std::fill(operands.x.begin(), operands.x.end(), 255);
  std::fill(operands.weights.begin(), operands.weights.end(), 127);
  operands.bias[0] = 0, operands.scale[0] = 1;
  for (const IntegerKernels* kernels : {&GetIntegerKernels(), &GetVectorIntegerKernels()}) {
    EXPECT_EQ(RunProduct<float>(g, operands, {kUint8, kFloat32, 0, 0, false, true}, *kernels, 1)[0],
              static_cast<float>(static_cast<int32_t>(255u * 127u * 70'000u)));
  }
}

TEST(IntegerProduct, ScratchOfHugePaddingIsBounded) {
  ConvGeometry g(1, 1, 1);
  g.samples = 1 << 20, g.output_height = g.output_width = 2;
  g.stride_y = g.stride_x = int64_t{1} << 31;
  EXPECT_EQ(IntegerProduct(g, {kInt8, kInt8, 0, 0, false, false}).scratch_bytes(1) >> 50 > 0, true);
}

}  // namespace
}  // namespace gradweave
