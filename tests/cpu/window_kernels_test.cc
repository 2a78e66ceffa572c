// Kernels of convolutions with few channels per group, and of pools, against plain loops in
// float64: random sizes, strides, dilations and paddings, for each instruction set
// (GRADWEAVE_TEST_TARGETS are turned off).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace gradweave {
namespace {

#ifdef GRADWEAVE_TEST_TARGETS
const bool disabled = [] {
  hwy::DisableTargets(GRADWEAVE_TEST_TARGETS);
  return true;
}();
#endif

// The results of one kernel, as bytes. Memory that the kernel may not write is checked.
std::vector<std::vector<std::byte>> RunKernel(const Kernel& kernel, const KernelRequest& request,
                                              const std::vector<Tensor>& operands, int threads) {
  constexpr size_t kGuard = 256;
  constexpr std::byte kUnset{0xff};  // NaN.
  std::vector<const void*> inputs;
  for (const Tensor& operand : operands) inputs.push_back(operand.raw_data());
  std::vector<std::vector<std::byte>> results;
  std::vector<std::shared_ptr<void>> memory;
  std::vector<void*> outputs;
  auto allocate = [&](size_t bytes) {
    memory.push_back(AllocateAligned(bytes + kGuard));
    std::fill_n(static_cast<std::byte*>(memory.back().get()), bytes + kGuard, kUnset);
    return static_cast<std::byte*>(memory.back().get());
  };
  for (const TensorType& type : request.node.outputs) outputs.push_back(allocate(type.byte_size()));
  ThreadPool pool(threads);
  std::byte* const scratch = allocate(kernel.scratch_bytes);
  const absl::Status status = kernel.run({.operands = inputs, .outputs = outputs, .scratch = scratch, .pool = &pool});
  EXPECT_TRUE(status.ok()) << status;
  auto expect_guard = [&](const std::byte* end) {
    EXPECT_TRUE(std::all_of(end, end + kGuard, [&](std::byte b) { return b == kUnset; }))
        << kernel.name << " writes behind its memory";
  };
  expect_guard(scratch + kernel.scratch_bytes);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::byte* begin = static_cast<const std::byte*>(outputs[i]);
    const size_t bytes = request.node.outputs[i].byte_size();
    expect_guard(begin + bytes);
    results.emplace_back(begin, begin + bytes);
  }
  return results;
}

Tensor RandomTensor(DType dtype, const Shape& shape, std::mt19937& random) {
  Tensor tensor(dtype, shape.sizes());
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    const double value = std::uniform_real_distribution<double>(-1, 1)(random);
    if (dtype == kFloat32) {
      tensor.mutable_values<float>()[i] = static_cast<float>(value);
    } else {
      tensor.mutable_values<double>()[i] = value;
    }
  }
  return tensor;
}

template <typename T>
std::vector<double> Numbers(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return {values.begin(), values.end()};
}
std::vector<double> Numbers(DType dtype, const std::vector<std::byte>& bytes) {
  return dtype == kFloat32 ? Numbers<float>(bytes) : Numbers<double>(bytes);
}

int64_t OneOf(std::mt19937& random, std::vector<int64_t> values) { return values[random() % values.size()]; }

void ExpectNear(const std::vector<double>& actual, const std::vector<double>& expected, double tolerance,
                const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_LE(std::abs(actual[i] - expected[i]), tolerance) << what << ", element " << i << " of " << actual.size();
}

// ---- Convolutions ----

struct ConvCase {
  int64_t samples, groups, group_channels, group_outputs, height, width, kernel_y, kernel_x;
  Conv2DOptions options;

  std::string name() const {
    return absl::StrCat(samples, " samples, ", groups, " groups of ", group_channels, " to ", group_outputs, ", ",
                        height, "x", width, ", filter ", kernel_y, "x", kernel_x, ", stride ", options.stride[0], " ",
                        options.stride[1], ", dilation ", options.dilation[0], " ", options.dilation[1], ", padding ",
                        options.padding[0], " ", options.padding[1], " ", options.padding[2], " ", options.padding[3]);
  }
};

// Calls body(y element, x element, filter element) for each product.
template <typename Body>
void ForProducts(const ConvGeometry& g, Body body) {
  for (int64_t n = 0; n < g.samples; ++n)
    for (int64_t o = 0; o < g.outputs; ++o)
      for (int64_t i = 0; i < g.output_height; ++i)
        for (int64_t j = 0; j < g.output_width; ++j)
          for (int64_t t = 0; t < g.taps(); ++t) {
            const int64_t c = o / g.group_outputs() * g.group_channels() + t / (g.kernel_height * g.kernel_width);
            const int64_t y = i * g.stride_y + t / g.kernel_width % g.kernel_height * g.dilation_y - g.top;
            const int64_t x = j * g.stride_x + t % g.kernel_width * g.dilation_x - g.left;
            if (y < 0 || y >= g.height || x < 0 || x >= g.width) continue;
            body(((n * g.outputs + o) * g.output_height + i) * g.output_width + j,
                 ((n * g.channels + c) * g.height + y) * g.width + x, o * g.taps() + t);
          }
}

// Runs all choices for the three ops, and returns how many of them AddDepthwiseChoices has added.
// Ops that refuse the case are left out.
int ExpectConvolutions(const ConvCase& c, DType dtype, std::mt19937& random) {
  Graph graph;
  Scope scope(graph);
  const Shape x_shape = {c.samples, c.groups * c.group_channels, c.height, c.width};
  const Shape filter_shape = {c.groups * c.group_outputs, c.group_channels, c.kernel_y, c.kernel_x};
  const Value x = scope.Input("x", dtype, x_shape), filter = scope.Input("filter", dtype, filter_shape);
  const Value bias = scope.Input("bias", dtype, {filter_shape[0]});
  const Value y = Conv2D(x, filter, bias, c.options);
  if (!graph.status().ok()) return 0;
  const Value dy = scope.Input("dy", dtype, y.shape());
  const Value dx = Conv2DInputGrad(dy, filter, x_shape, c.options);
  const Value df = Conv2DFilterGrad(x, dy, filter_shape, c.options);
  const ConvGeometry g(graph.node(y.port().node), x_shape, filter_shape, y.shape());
  const Tensor x_data = RandomTensor(dtype, x_shape, random), dy_data = RandomTensor(dtype, y.shape(), random);
  const Tensor filter_data = RandomTensor(dtype, filter_shape, random);
  const Tensor bias_data = RandomTensor(dtype, {filter_shape[0]}, random);
  const std::vector<double> xs = x_data.ToDoubles(), fs = filter_data.ToDoubles(), dys = dy_data.ToDoubles();
  std::vector<double> expected_y(dys.size()), expected_dx(xs.size()), expected_df(fs.size());
  for (size_t i = 0; i < dys.size(); ++i)
    expected_y[i] = bias_data.ToDoubles()[static_cast<int64_t>(i) / g.pixels() % g.outputs];
  ForProducts(g, [&](int64_t to, int64_t from, int64_t tap) {
    expected_y[to] += xs[from] * fs[tap];
    expected_dx[from] += dys[to] * fs[tap];
    expected_df[tap] += xs[from] * dys[to];
  });
  struct Op {
    const char* name;
    Value value;
    std::vector<KernelChoice> (*choices)(const KernelRequest&);
    std::vector<Tensor> operands;
    const std::vector<double>& expected;
    int64_t terms;
  };
  int ways = 0;
  for (const Op& op : {Op{"y", y, Conv2DChoices, {x_data, filter_data, bias_data}, expected_y, g.taps()},
                       Op{"dx",
                          dx,
                          Conv2DInputGradChoices,
                          {dy_data, filter_data},
                          expected_dx,
                          g.group_outputs() * g.kernel_height * g.kernel_width},
                       Op{"df", df, Conv2DFilterGradChoices, {x_data, dy_data}, expected_df, g.samples * g.pixels()}}) {
    const Node& node = graph.node(op.value.port().node);
    const KernelRequest request{node, graph.OperandTypes(node), 1}, of_three{node, graph.OperandTypes(node), 3};
    const std::vector<KernelChoice> choices = op.choices(request), choices_of_three = op.choices(of_three);
    for (size_t i = 0; i < choices.size(); ++i) {
      const std::string what = absl::StrCat(op.name, " by ", choices[i].name, " in ", DTypeName(dtype), ", ", c.name());
      const auto result = RunKernel(choices[i].make(), request, op.operands, 1);
      ExpectNear(Numbers(dtype, result[0]), op.expected,
                 (dtype == kFloat32 ? 1e-6 : 1e-14) * static_cast<double>(op.terms + 4), what);
      if (testing::Test::HasFatalFailure()) return ways;
      EXPECT_TRUE(result == RunKernel(choices_of_three[i].make(), of_three, op.operands, 3))
          << what << ": bits depend on threads";
      ways += absl::StrContains(choices[i].name, "depthwise") ? 1 : 0;
    }
  }
  return ways;
}

TEST(WindowKernels, ConvolutionsOfAnyGeometry) {
  std::mt19937 random(1);
  int ways = 0;
  for (int i = 0; i < 600 && !testing::Test::HasFailure(); ++i) {
    const auto one_of = [&](std::vector<int64_t> values) { return OneOf(random, std::move(values)); };
    const ConvCase c = {one_of({1, 2, 3}),
                        one_of({2, 3, 5, 17}),
                        one_of({1, 1, 1, 2, 3}),
                        one_of({1, 1, 2, 3}),
                        one_of({1, 2, 4, 5, 7, 8, 13, 20}),
                        one_of({1, 2, 4, 7, 8, 14, 16, 17, 31, 33, 50}),
                        one_of({1, 2, 3, 3, 4, 5, 7}),
                        one_of({1, 2, 3, 3, 4, 5, 7}),
                        {.stride = {one_of({1, 1, 2, 2, 3}), one_of({1, 1, 2, 2, 3, 5})},
                         .padding = {one_of({0, 1, 2, 3}), one_of({0, 1, 2}), one_of({0, 1, 2, 3}), one_of({0, 1, 2})},
                         .dilation = {one_of({1, 1, 2, 3}), one_of({1, 1, 2, 3})}}};
    ConvCase with_groups = c;
    with_groups.options.groups = c.groups;
    ways += ExpectConvolutions(with_groups, i % 3 == 0 ? kFloat64 : kFloat32, random);
  }
  EXPECT_GT(ways, 1000);
}

// Images larger than a band of rows, more groups than chunks, and images of one column.
TEST(WindowKernels, ConvolutionsOfLargeImages) {
  std::mt19937 random(2);
  for (const DType dtype : {kFloat32, kFloat64}) {
    for (const int64_t stride : {1, 2}) {
      for (const int64_t kernel : {3, 5}) {
        const Conv2DOptions options = {.stride = {stride, stride}, .padding = {1, 1, 1, 1}, .groups = 3};
        EXPECT_GT(ExpectConvolutions({1, 3, 1, 1, 61, 130, kernel, kernel, options}, dtype, random), 0);
        Conv2DOptions many = options;
        many.groups = 70;
        EXPECT_GT(ExpectConvolutions({2, 70, 1, 1, 6, 6, kernel, kernel, many}, dtype, random), 0);
        Conv2DOptions column = options;
        column.padding = {1, 1, 0, 0};
        column.stride = {stride, 1};
        EXPECT_GT(ExpectConvolutions({2, 3, 1, 2, 100, 1, kernel, 1, column}, dtype, random), 0);
      }
    }
  }
}

// ---- Pools ----

struct PoolCase {
  int64_t images, height, width;
  Pool2DOptions options;

  std::string name() const {
    return absl::StrCat(images, " images ", height, "x", width, ", window ", options.window[0], "x", options.window[1],
                        ", stride ", options.stride[0], " ", options.stride[1], ", padding ", options.padding[0], " ",
                        options.padding[1], " ", options.padding[2], " ", options.padding[3]);
  }
};

std::vector<std::vector<std::byte>> RunOp(const Graph& graph, const Value& value, const std::vector<Tensor>& operands,
                                          const std::string& what) {
  const Node& node = graph.node(value.port().node);
  std::vector<std::vector<std::byte>> results;
  for (const int threads : {1, 3}) {
    const KernelRequest request{node, graph.OperandTypes(node), threads};
    const absl::StatusOr<Kernel> kernel = (*CpuKernels().Find(node.op->name))(request);
    EXPECT_TRUE(kernel.ok()) << kernel.status();
    const auto results_of_threads = RunKernel(*kernel, request, operands, threads);
    EXPECT_TRUE(threads == 1 || results == results_of_threads) << what << ": bits depend on threads";
    results = results_of_threads;
  }
  return results;
}

// Calls body(image, result, y begin, y end, x begin, x end) for each window.
template <typename Body>
void ForWindows(const PoolCase& c, const Shape& y, Body body) {
  for (int64_t image = 0; image < c.images; ++image)
    for (int64_t i = 0; i < y[2].size(); ++i)
      for (int64_t j = 0; j < y[3].size(); ++j) {
        const int64_t top = i * c.options.stride[0] - c.options.padding[0];
        const int64_t left = j * c.options.stride[1] - c.options.padding[2];
        body(image, (image * y[2].size() + i) * y[3].size() + j, std::max<int64_t>(top, 0),
             std::min(top + c.options.window[0], c.height), std::max<int64_t>(left, 0),
             std::min(left + c.options.window[1], c.width));
      }
}

// Maxima and their indices have to be those of plain loops, and averages those of plain sums, row
// by row. Returns false if the ops do not take the case.
template <typename T>
bool ExpectPools(const PoolCase& c, bool ties, std::mt19937& random) {
  const DType dtype = sizeof(T) == 4 ? kFloat32 : kFloat64;
  Graph graph;
  Scope scope(graph);
  const Shape shape = {1, c.images, c.height, c.width};
  const Value x = scope.Input("x", dtype, shape);
  const Value largest = MaxPool2D(x, c.options), mean = AvgPool2D(x, c.options);
  if (!graph.status().ok()) return false;
  const Value dy = scope.Input("dy", dtype, mean.shape()), indices = scope.Input("indices", kInt32, mean.shape());
  const Value spread = AddOp("AvgPool2DGrad", {Operand(dy)},
                             {{"window", c.options.window},
                              {"stride", c.options.stride},
                              {"padding", c.options.padding},
                              {"count_padding", c.options.count_padding},
                              {"input_shape", shape}});
  const Value unpooled = AddOp("MaxUnpool2D", {Operand(dy), Operand(indices)}, {{"input_shape", shape}});
  const Value gathered = AddOp("MaxPool2DGather", {Operand(x), Operand(indices)});
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  Tensor data = RandomTensor(dtype, shape, random);
  const Tensor dy_data = RandomTensor(dtype, mean.shape(), random);
  T* const values = data.mutable_values<T>().data();
  if (ties) {
    const T special[] = {0,
                         -T(0),
                         1,
                         1,
                         2,
                         -std::numeric_limits<T>::infinity(),
                         std::numeric_limits<T>::infinity(),
                         std::numeric_limits<T>::quiet_NaN()};
    const size_t kinds = random() % 2 == 0 ? 7 : 8;
    for (int64_t i = 0; i < data.num_elements(); ++i) values[i] = special[random() % kinds];
  }
  const int64_t results = dy_data.num_elements(), image_size = c.height * c.width;
  std::vector<T> maxima(results), means(results);
  Tensor places(kInt32, mean.shape().sizes());
  std::vector<double> gradient(data.num_elements()), of_maxima(data.num_elements());
  ForWindows(c, mean.shape(), [&](int64_t image, int64_t to, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
    const T* const of_image = values + image * image_size;
    int64_t best = y0 * c.width + x0;
    T sum = 0;
    const int64_t inside = std::max<int64_t>((y1 - y0) * (x1 - x0), 1);
    const T divisor = static_cast<T>(c.options.count_padding ? c.options.window[0] * c.options.window[1] : inside);
    for (int64_t i = y0; i < y1; ++i)
      for (int64_t j = x0; j < x1; ++j) {
        const int64_t at = i * c.width + j;
        if (of_image[at] > of_image[best] || (std::isnan(of_image[at]) && !std::isnan(of_image[best]))) best = at;
        sum += of_image[at];
        gradient[image * image_size + at] += dy_data.ToDoubles()[to] / static_cast<double>(divisor);
      }
    maxima[to] = of_image[best];
    places.mutable_values<int32_t>()[to] = static_cast<int32_t>(best);
    means[to] = sum / divisor;
    of_maxima[image * image_size + best] += dy_data.ToDoubles()[to];
  });
  const double tolerance = dtype == kFloat32 ? 1e-5 : 1e-13;
  const auto same = [](const std::vector<std::byte>& bytes, const void* expected) {
    return std::memcmp(bytes.data(), expected, bytes.size()) == 0;
  };
  const auto max_results = RunOp(graph, largest, {data}, c.name());
  EXPECT_TRUE(same(max_results[0], maxima.data())) << "maxima of " << c.name();
  EXPECT_TRUE(same(max_results[1], places.raw_data())) << "indices of " << c.name();
  const std::vector<double> mean_results = Numbers(dtype, RunOp(graph, mean, {data}, c.name())[0]);
  for (int64_t i = 0; i < results; ++i) {
    // The mean of a whole image may be summed in another order.
    const double expected = static_cast<double>(means[i]), actual = mean_results[i];
    const bool near = mean.shape()[2].size() * mean.shape()[3].size() == 1
                          ? std::abs(actual - expected) <= tolerance * static_cast<double>(image_size)
                          : actual == expected;
    EXPECT_TRUE(near || (std::isnan(actual) && std::isnan(expected)) || actual == expected)
        << "mean " << i << " of " << c.name() << " is " << actual << ", not " << expected;
  }
  ExpectNear(Numbers(dtype, RunOp(graph, spread, {dy_data}, c.name())[0]), gradient, tolerance * 10,
             "gradient of means of " + c.name());
  ExpectNear(Numbers(dtype, RunOp(graph, unpooled, {dy_data, places}, c.name())[0]), of_maxima, tolerance * 10,
             "gradient of maxima of " + c.name());
  EXPECT_TRUE(same(RunOp(graph, gathered, {data, places}, c.name())[0], maxima.data())) << c.name();
  return true;
}

TEST(WindowKernels, PoolsOfAnyGeometry) {
  std::mt19937 random(3);
  int pools = 0;
  for (int i = 0; i < 800 && !testing::Test::HasFailure(); ++i) {
    const auto one_of = [&](std::vector<int64_t> values) { return OneOf(random, std::move(values)); };
    PoolCase c = {one_of({1, 2, 5}),
                  one_of({1, 2, 5, 7, 8, 13, 40}),
                  one_of({1, 2, 7, 8, 14, 16, 17, 33, 64, 70}),
                  {.window = {one_of({1, 2, 3, 3, 5, 9}), one_of({1, 2, 3, 3, 5, 9})},
                   .stride = {one_of({1, 2, 3, 7}), one_of({1, 2, 2, 3, 4, 7})},
                   .count_padding = i % 2 == 0}};
    for (int side = 0; side < 4; ++side)
      c.options.padding.push_back(static_cast<int64_t>(random() % c.options.window[side / 2]));
    c.options.padding.erase(c.options.padding.begin(), c.options.padding.end() - 4);
    const bool ties = i % 3 == 0;
    pools += (i % 4 == 0 ? ExpectPools<double>(c, ties, random) : ExpectPools<float>(c, ties, random)) ? 1 : 0;
  }
  EXPECT_GT(pools, 400);
}

TEST(WindowKernels, PoolsOfWholeAndEmptyImages) {
  std::mt19937 random(4);
  const Integers none = {0, 0, 0, 0};
  EXPECT_TRUE(ExpectPools<float>({70, 7, 7, {.window = {7, 7}, .stride = {7, 7}, .padding = none}}, false, random));
  EXPECT_TRUE(ExpectPools<double>({3, 9, 5, {.window = {9, 5}, .stride = {1, 1}, .padding = none}}, true, random));
  EXPECT_TRUE(ExpectPools<float>({0, 7, 7, {.window = {3, 3}, .stride = {2, 2}, .padding = none}}, false, random));
  // Windows and padding far larger than the image.
  const int64_t large = int64_t{1} << 20;
  EXPECT_TRUE(ExpectPools<float>(
      {2, 3, 2, {.window = {large, 2}, .stride = {large / 2, 1}, .padding = {large - 1, large - 1, 0, 0}}}, false,
      random));
}

TEST(WindowKernels, IndicesOutsideOfTheImageFail) {
  Graph graph;
  Scope scope(graph);
  const Value dy = scope.Input("dy", kFloat32, {1, 1, 1, 20}), indices = scope.Input("indices", kInt32, {1, 1, 1, 20});
  const Value dx = AddOp("MaxUnpool2D", {Operand(dy), Operand(indices)}, {{"input_shape", Shape{1, 1, 1, 40}}});
  const Node& node = graph.node(dx.port().node);
  const KernelRequest request{node, graph.OperandTypes(node)};
  const absl::StatusOr<Kernel> kernel = (*CpuKernels().Find("MaxUnpool2D"))(request);
  ASSERT_TRUE(kernel.ok());
  for (const int64_t place : {0, 7, 16, 19}) {
    for (const int32_t index : {-1, 40}) {
      std::vector<float> gradient(20), result(40);
      std::vector<int32_t> places(20);
      places[place] = index;
      const void* const operands[] = {gradient.data(), places.data()};
      void* const outputs[] = {result.data()};
      ThreadPool pool(1);
      const absl::Status status = kernel->run({.operands = operands, .outputs = outputs, .pool = &pool});
      EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
      EXPECT_TRUE(absl::StrContains(status.message(), absl::StrCat("index ", index, " at position ", place))) << status;
    }
  }
}

}  // namespace
}  // namespace gradweave
