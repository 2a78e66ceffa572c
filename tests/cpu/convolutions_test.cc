// All kernels of a convolution, in all three directions, against plain sums.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/shape.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/cpu/conv/implicit_conv.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/thread_pool.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace gradweave {
namespace {

// One binary for each width of vectors (GRADWEAVE_TEST_LANES).
const bool disabled = [] {
  if (GRADWEAVE_TEST_LANES <= 8) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
  if (GRADWEAVE_TEST_LANES <= 4) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL | HWY_AVX2);
  return true;
}();

class ConvolutionsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (GetProductKernels().lanes != GRADWEAVE_TEST_LANES)
      GTEST_SKIP() << "vectors of this machine have " << GetProductKernels().lanes << " lanes";
  }
};

struct Case {
  int64_t samples, channels, height, width, outputs;
  std::vector<int64_t> kernel, stride, padding, dilation;
  int64_t groups = 1;

  std::string name() const {
    return absl::StrCat(samples, "x", channels, "x", height, "x", width, " to ", outputs, ", kernel ",
                        absl::StrJoin(kernel, "x"), ", stride ", absl::StrJoin(stride, ","), ", padding ",
                        absl::StrJoin(padding, ","), ", dilation ", absl::StrJoin(dilation, ","), ", groups ", groups);
  }
  int64_t output(int axis) const {
    const int64_t size = axis == 0 ? height : width;
    const int64_t room = size + padding[2 * axis] + padding[2 * axis + 1] - (kernel[axis] - 1) * dilation[axis] - 1;
    return room / stride[axis] + 1;
  }
  Conv2DOptions options() const {
    return {.stride = stride, .padding = padding, .dilation = dilation, .groups = groups};
  }
};

enum class Direction { kForward, kInputGradient, kFilterGradient };

// Numbers with few bits, so that sums in float64 are exact.
std::vector<float> Numbers(int64_t count, uint32_t seed) {
  std::vector<float> numbers(count);
  for (float& number : numbers) {
    seed = seed * 1664525u + 1013904223u;
    number = static_cast<float>(static_cast<int>(seed >> 20) - 2048) / 2048.0f;
  }
  return numbers;
}

struct Sums {
  std::vector<double> sum, of_absolutes;
};

// The plain loops. x, f and y are the input, the filter and the output, one of which is the result.
Sums PlainSums(const Case& c, Direction direction, const std::vector<float>& x, const std::vector<float>& f,
               const std::vector<float>& y, size_t results) {
  Sums sums{std::vector<double>(results), std::vector<double>(results)};
  const int64_t rows = c.output(0), columns = c.output(1);
  const int64_t in_group = c.channels / c.groups, out_group = c.outputs / c.groups;
  auto add = [&](int64_t at, float a, float b) {
    sums.sum[at] += static_cast<double>(a) * b;
    sums.of_absolutes[at] += std::abs(static_cast<double>(a) * b);
  };
  for (int64_t n = 0; n < c.samples; ++n) {
    for (int64_t o = 0; o < c.outputs; ++o) {
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t at_y = ((n * c.outputs + o) * rows + i) * columns + j;
          for (int64_t q = 0; q < in_group; ++q) {
            for (int64_t k = 0; k < c.kernel[0]; ++k) {
              for (int64_t l = 0; l < c.kernel[1]; ++l) {
                const int64_t row = i * c.stride[0] + k * c.dilation[0] - c.padding[0];
                const int64_t column = j * c.stride[1] + l * c.dilation[1] - c.padding[2];
                if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
                const int64_t channel = o / out_group * in_group + q;
                const int64_t at_x = ((n * c.channels + channel) * c.height + row) * c.width + column;
                const int64_t at_f = ((o * in_group + q) * c.kernel[0] + k) * c.kernel[1] + l;
                if (direction == Direction::kForward) add(at_y, x[at_x], f[at_f]);
                if (direction == Direction::kInputGradient) add(at_x, y[at_y], f[at_f]);
                if (direction == Direction::kFilterGradient) add(at_f, x[at_x], y[at_y]);
              }
            }
          }
        }
      }
    }
  }
  return sums;
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, Free>;
Memory Allocate(size_t bytes) {
  return Memory(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64)));
}

// Runs a kernel on memory of exactly the sizes that it asks for, which is full of NaN before. Runs
// it twice if it keeps something.
std::vector<float> RunKernel(const Kernel& kernel, const std::vector<std::vector<float>>& operands, size_t results,
                             int threads, bool keeps) {
  std::vector<float> y(results, std::numeric_limits<float>::quiet_NaN());
  std::vector<const void*> operand_data;
  for (const std::vector<float>& operand : operands) operand_data.push_back(operand.data());
  void* output = y.data();
  ThreadPool pool(threads);
  const size_t scratch_bytes = keeps ? kernel.scratch_bytes_with_kept : kernel.scratch_bytes;
  const Memory scratch = Allocate(scratch_bytes), kept = Allocate(kernel.kept_bytes);
  std::fill_n(reinterpret_cast<float*>(scratch.get()), scratch_bytes / sizeof(float),
              std::numeric_limits<float>::quiet_NaN());
  for (bool again : {false, true}) {
    EXPECT_TRUE(kernel
                    .run({.operands = operand_data,
                          .outputs = absl::MakeSpan(&output, 1),
                          .scratch = scratch.get(),
                          .kept = keeps ? kept.get() : nullptr,
                          .kept_is_current = keeps && again,
                          .pool = &pool})
                    .ok());
  }
  return y;
}

// Calls body(node, choices, operands, sums) for each direction of a convolution.
template <typename Body>
void ForDirections(const Case& c, bool has_bias, Body body) {
  const std::vector<int64_t> xs = {c.samples, c.channels, c.height, c.width};
  const std::vector<int64_t> fs = {c.outputs, c.channels / c.groups, c.kernel[0], c.kernel[1]};
  const std::vector<int64_t> ys = {c.samples, c.outputs, c.output(0), c.output(1)};
  auto size = [](const std::vector<int64_t>& sizes) { return sizes[0] * sizes[1] * sizes[2] * sizes[3]; };
  const std::vector<float> x = Numbers(size(xs), 1), f = Numbers(size(fs), 2), y = Numbers(size(ys), 3);
  const std::vector<float> bias = Numbers(c.outputs, 4);
  for (Direction direction : {Direction::kForward, Direction::kInputGradient, Direction::kFilterGradient}) {
    Graph graph;
    Scope scope(graph);
    Value result;
    std::vector<std::vector<float>> operands;
    switch (direction) {
      case Direction::kForward:
        operands = {x, f};
        result = Conv2D(scope.Input("x", kFloat32, Shape(xs)), scope.Input("f", kFloat32, Shape(fs)), c.options());
        if (has_bias) {
          operands.push_back(bias);
          result = Conv2D(scope.Input("x2", kFloat32, Shape(xs)), scope.Input("f2", kFloat32, Shape(fs)),
                          scope.Input("bias", kFloat32, {c.outputs}), c.options());
        }
        break;
      case Direction::kInputGradient:
        operands = {y, f};
        result = Conv2DInputGrad(scope.Input("y", kFloat32, Shape(ys)), scope.Input("f", kFloat32, Shape(fs)),
                                 {xs[0], xs[1], xs[2], xs[3]}, c.options());
        break;
      case Direction::kFilterGradient:
        operands = {x, y};
        result = Conv2DFilterGrad(scope.Input("x", kFloat32, Shape(xs)), scope.Input("y", kFloat32, Shape(ys)),
                                  Shape(fs), c.options());
        break;
    }
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    const size_t results = size(direction == Direction::kForward         ? ys
                                : direction == Direction::kInputGradient ? xs
                                                                         : fs);
    Sums sums = PlainSums(c, direction, x, f, y, results);
    for (size_t i = 0; direction == Direction::kForward && has_bias && i < results; ++i) {
      const float b = bias[i / (ys[2] * ys[3]) % c.outputs];
      sums.sum[i] += b;
      sums.of_absolutes[i] += std::abs(b);
    }
    body(graph, graph.node(result.port().node), direction, operands, sums);
  }
}

std::vector<KernelChoice> ChoicesOf(const KernelRequest& request, Direction direction) {
  return direction == Direction::kForward         ? Conv2DChoices(request)
         : direction == Direction::kInputGradient ? Conv2DInputGradChoices(request)
                                                  : Conv2DFilterGradChoices(request);
}

void ExpectNear(const std::vector<float>& y, const Sums& sums, const std::string& what) {
  ASSERT_EQ(y.size(), sums.sum.size());
  // Minimal filtering is as exact as the largest sum near the element.
  const bool is_filtered = absl::StrContains(what, "Winograd");
  double largest = 0;
  for (double of_absolutes : sums.of_absolutes) largest = std::max(largest, of_absolutes);
  for (size_t i = 0; i < y.size(); ++i) {
    const double error = std::abs(y[i] - sums.sum[i]);
    // NaN compares false.
    ASSERT_TRUE(error <= (is_filtered ? 5e-6 * largest : 1e-5 * sums.of_absolutes[i]) + 1e-9)
        << what << ", element " << i << ": " << y[i] << " instead of " << sums.sum[i];
  }
}

// Runs all kernels with one to three threads, with and without kept weights.
void ExpectPlainSums(const Case& c, bool has_bias, bool wants_implicit = true) {
  ForDirections(
      c, has_bias,
      [&](const Graph& graph, const Node& node, Direction direction, const auto& operands, const Sums& sums) {
        bool has_implicit = false;
        for (int threads : {1, 2, 3}) {
          for (const KernelChoice& choice : ChoicesOf({node, graph.OperandTypes(node), threads}, direction)) {
            has_implicit |= choice.name == "implicit product";
            const Kernel kernel = choice.make();
            const std::string what =
                absl::StrCat(c.name(), ", ", node.op->name, ", ", choice.name, ", ", threads, " threads");
            const std::vector<float> y = RunKernel(kernel, operands, sums.sum.size(), threads, false);
            ExpectNear(y, sums, what);
            if (kernel.kept_bytes > 0) {
              EXPECT_EQ(RunKernel(kernel, operands, sums.sum.size(), threads, true), y) << what << ", kept weights";
            }
            if (threads == 1) continue;
            for (const KernelChoice& other : ChoicesOf({node, graph.OperandTypes(node), 1}, direction)) {
              if (other.name != choice.name) continue;
              EXPECT_EQ(RunKernel(other.make(), operands, sums.sum.size(), 1, false), y) << what << ", other bits";
            }
          }
        }
        EXPECT_EQ(has_implicit, wants_implicit) << c.name() << ", " << node.op->name;
      });
}

TEST_F(ConvolutionsTest, OfEveryStrideDilationPaddingAndGroup) {
  for (int64_t stride_y : {1, 2, 3}) {
    for (int64_t stride_x : {1, 2}) {
      for (const std::vector<int64_t>& dilation : {std::vector<int64_t>{1, 1}, {2, 1}, {2, 3}}) {
        for (const std::vector<int64_t>& padding : {std::vector<int64_t>{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 0, 0, 3}}) {
          for (int64_t groups : {1, 2}) {
            for (const std::vector<int64_t>& kernel : {std::vector<int64_t>{1, 1}, {3, 3}, {2, 3}}) {
              ExpectPlainSums({2, 4, 9, 11, 6, kernel, {stride_y, stride_x}, padding, dilation, groups}, groups == 1);
              if (testing::Test::HasFailure()) return;
            }
          }
        }
      }
    }
  }
}

TEST_F(ConvolutionsTest, OfSizesThatFillNoBlock) {
  const Case cases[] = {
      // Several blocks of terms and of rows, and chunks that hold several samples.
      {3, 37, 7, 7, 29, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {5, 40, 5, 3, 25, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}},
      // Several chunks in a sample, and rows that are divided into chunks.
      {1, 5, 40, 33, 13, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      {2, 3, 3, 601, 14, {3, 5}, {1, 1}, {1, 1, 2, 2}, {1, 1}},
      {1, 2, 1, 1500, 3, {1, 9}, {1, 2}, {0, 0, 4, 4}, {1, 1}},
      // A whole panel of every height.
      {1, 16, 8, 32, 12, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
      // x is read where it lies.
      {2, 350, 6, 6, 26, {1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
      {3, 7, 9, 10, 5, {3, 3}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
      // The filters of residues that no tap reaches are empty.
      {2, 9, 8, 8, 13, {1, 1}, {2, 2}, {0, 0, 0, 0}, {1, 1}},
      {1, 3, 30, 30, 8, {7, 7}, {2, 2}, {3, 3, 3, 3}, {1, 1}},
      // Windows mostly in the padding, and rows of x that no window reads.
      {1, 2, 2, 3, 4, {3, 3}, {1, 1}, {5, 5, 5, 5}, {2, 2}},
      {1, 2, 10, 10, 4, {2, 2}, {4, 4}, {0, 0, 0, 0}, {1, 1}},
      {2, 36, 4, 4, 24, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, 12},
      {1, 1, 1, 1, 1, {1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
      // More terms of a channel than a block has.
      {1, 2, 25, 25, 3, {19, 19}, {1, 1}, {9, 9, 9, 9}, {1, 1}},
      // Sums of several ranges of outputs.
      {6, 3, 50, 50, 4, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
  };
  for (const Case& c : cases) {
    ExpectPlainSums(c, true);
    if (testing::Test::HasFailure()) return;
  }
}

TEST_F(ConvolutionsTest, OfNothing) {
  ExpectPlainSums({0, 2, 4, 4, 3, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}}, true, false);
  ExpectPlainSums({2, 0, 4, 4, 3, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}}, true, false);
  ExpectPlainSums({2, 2, 4, 4, 0, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}}, true, false);
  ExpectPlainSums({2, 2, 0, 4, 3, {2, 2}, {1, 1}, {2, 2, 0, 0}, {1, 1}}, true, false);
}

// A filter that reaches far beyond x would fill the cache with zeros.
TEST_F(ConvolutionsTest, OfWindowsThatLeaveTheCacheAreNotImplicit) {
  ExpectPlainSums({1, 1, 1, 1, 1, {2, 2}, {1, 1}, {3000, 0, 3000, 0}, {3000, 3000}}, true, false);
}

// Other steps take the blocks of a convolution from the cache. Together the blocks are y.
TEST_F(ConvolutionsTest, PassTheirBlocksOn) {
  const Case cases[] = {{3, 20, 7, 7, 29, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
                        {2, 8, 40, 33, 26, {3, 3}, {2, 1}, {1, 1, 1, 1}, {1, 1}, 2},
                        {1, 3, 3, 601, 14, {3, 5}, {1, 1}, {1, 1, 2, 2}, {1, 1}}};
  for (const Case& c : cases) {
    ForDirections(
        c, true,
        [&](const Graph& graph, const Node& node, Direction direction, const auto& operands, const Sums& sums) {
          if (direction != Direction::kForward) return;
          const TensorTypes types = graph.OperandTypes(node);
          const ConvGeometry g(node, types[0].shape, types[1].shape, node.outputs[0].shape);
          const ImplicitConvolution conv = ImplicitConvolution::Forward(g, 2);
          std::vector<float> packed(conv.packed_floats());
          for (int64_t task = 0; task < conv.pack_tasks(); ++task) conv.Pack(operands[1].data(), task, packed.data());
          const Memory workspace = Allocate(conv.workspace_bytes());
          std::vector<float> y(sums.sum.size(), std::numeric_limits<float>::quiet_NaN());
          for (int64_t task = 0; task < conv.tasks(); ++task) {
            conv.RunInBlocks(operands[0].data(), {nullptr, packed.data()}, operands[2].data(), task, workspace.get(),
                             [&](const ImplicitConvolution::Block& block, float* from, int64_t step) {
                               for (int64_t q = 0; q < block.channels; ++q) {
                                 for (int64_t i = 0; i < block.rows; ++i) {
                                   const int64_t row =
                                       (block.sample * g.outputs + block.channel + q) * g.output_height + block.row + i;
                                   for (int64_t j = 0; j < block.columns; ++j)
                                     y[row * g.output_width + block.column + j] =
                                         from[q * step + i * block.columns + j];
                                 }
                               }
                             });
          }
          ExpectNear(y, sums, c.name());
        });
  }
}

}  // namespace
}  // namespace gradweave
