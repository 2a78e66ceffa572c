// Graphs with numbers of any size, and how long a session takes to plan them.
#ifndef GRADWEAVE_TESTS_SESSION_HUGE_SIZES_H_
#define GRADWEAVE_TESTS_SESSION_HUGE_SIZES_H_

#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {

struct HugeCase {
  const char* name;
  // A value of x, float32 [n, 2, 6, 6], of v, float32 [3], of labels, int32 [3], and of the number.
  Value (*make)(Scope& scope, const Value& x, const Value& v, const Value& labels, int64_t size);
};

// A filter of 3x3 taps.
inline Value FilterOf(Scope& scope, int64_t outputs, int64_t inputs) {
  return scope.Variable("filter", scope.Constant(Tensor(kFloat32, {outputs, inputs, 3, 3})));
}

inline Value ConvOf(Scope& scope, const Value& x, Conv2DOptions options) {
  return Conv2D(x, FilterOf(scope, 4, 2 / options.groups), options);
}

inline Value TransposedOf(Scope& scope, const Value& x, ConvTranspose2DOptions options) {
  return ConvTranspose2D(x, FilterOf(scope, 2, 3), options);
}

// `size` elements for each element of v.
inline Value Stretched(const Value& v, int64_t size) { return BroadcastTo(Reshape(v, {3, 1}), {3, size}); }

#define GW_HUGE(text, expression)                                                                     \
  {                                                                                                   \
    text, [](Scope& scope, const Value& x, const Value& v, const Value& labels, int64_t s) -> Value { \
      (void)scope, (void)x, (void)v, (void)labels;                                                    \
      return expression;                                                                              \
    }                                                                                                 \
  }

inline const std::vector<HugeCase>& HugeCases() {
  static const auto* const cases = new std::vector<HugeCase>{
      GW_HUGE("conv, padding", ConvOf(scope, x, {.padding = {s, s}})),
      GW_HUGE("conv, padding of rows", ConvOf(scope, x, {.padding = {s, 0}})),
      GW_HUGE("conv, padding of columns", ConvOf(scope, x, {.padding = {1, s}})),
      GW_HUGE("conv, padding of one side", ConvOf(scope, x, {.padding = {0, 0, 0, s}})),
      GW_HUGE("conv, padding and stride", ConvOf(scope, x, {.stride = {s, s}, .padding = {s, s}})),
      GW_HUGE("conv, padding and a smaller stride", ConvOf(scope, x, {.stride = {s / 4, s / 4}, .padding = {s, s}})),
      GW_HUGE("conv, stride", ConvOf(scope, x, {.stride = {s, s}, .padding = {1, 1}})),
      GW_HUGE("conv, stride of columns", ConvOf(scope, x, {.stride = {1, s}, .padding = {1, 1}})),
      GW_HUGE("conv, dilation", ConvOf(scope, x, {.padding = {s, s}, .dilation = {s, s}})),
      GW_HUGE("conv, dilation of columns", ConvOf(scope, x, {.padding = {1, s}, .dilation = {1, s}})),
      GW_HUGE("conv, groups", ConvOf(scope, x, {.padding = {s, 1}, .groups = 2})),
      GW_HUGE("conv of padded rows", ConvOf(scope, Pad(x, {.low = {0, 0, s, 0}, .high = {0, 0, 0, 0}}), {})),
      GW_HUGE("conv of many channels", Conv2D(BroadcastTo(SliceAxis(x, 1, 0, 1), {Dim("n"), s, 6, 6}),
                                              BroadcastTo(Reshape(v, {3, 1, 1, 1}), {3, s, 3, 3}))),
      GW_HUGE("conv of a large filter",
              Conv2D(x, BroadcastTo(Reshape(v, {3, 1, 1, 1}), {3, 2, s, 3}), {.padding = {s, s, 0, 0}})),
      GW_HUGE("conv of many samples", ConvOf(scope, BroadcastTo(SliceAxis(x, 0, 0, 1), {s, 2, 6, 6}), {})),
      GW_HUGE("conv to many outputs",
              Conv2D(x, BroadcastTo(Reshape(SliceAxis(v, 0, 0, 1), {1, 1, 1, 1}), {s, 2, 3, 3}))),
      GW_HUGE("transposed, stride", TransposedOf(scope, x, {.stride = {s, s}})),
      GW_HUGE("transposed, stride of columns", TransposedOf(scope, x, {.stride = {1, s}})),
      GW_HUGE("transposed, dilation", TransposedOf(scope, x, {.dilation = {s, 1}})),
      GW_HUGE("transposed, output padding", TransposedOf(scope, x, {.stride = {s, 1}, .output_padding = {s - 1, 0}})),
      GW_HUGE("transposed, stride and padding", TransposedOf(scope, x, {.stride = {s, s}, .padding = {s, s}})),
      GW_HUGE("average pool, window", AvgPool2D(x, {.window = {s, s}, .stride = {1, 1}, .padding = {s / 2, s / 2}})),
      GW_HUGE("average pool, window that leaves rows",
              AvgPool2D(x, {.window = {s, 1}, .stride = {1, 1}, .padding = {s - 1, 0}})),
      GW_HUGE("average pool, stride", AvgPool2D(x, {.window = {2, 2}, .stride = {s, s}})),
      GW_HUGE("largest of a window", MaxPool2D(x, {.window = {1, s}, .stride = {1, 1}, .padding = {0, s - 1}})),
      GW_HUGE("largest, stride", MaxPool2D(x, {.window = {2, 2}, .stride = {1, s}})),
      GW_HUGE("largest of padded columns",
              MaxPool2D(Pad(x, {.low = {0, 0, 0, 0}, .high = {0, 0, 0, s}}), {.window = {2, 2}})),
      GW_HUGE("pad", Pad(x, {.low = {0, 0, s, 0}, .high = {0, 0, 0, 0}})),
      GW_HUGE("pad that removes", Pad(x, {.low = {0, 0, -s, 0}, .high = {0, 0, s, 0}})),
      GW_HUGE("pad between", Pad(x, {.low = {0, 0, 0, 0}, .high = {0, 0, 0, 0}, .interior = {0, 0, 0, s}})),
      GW_HUGE("pad all axes", Pad(x, {.low = {s, s, s, s}, .high = {s, s, s, s}})),
      GW_HUGE("slice, step", SliceAxis(x, 2, 0, 6, s)),
      GW_HUGE("slice of a stretched row", SliceAxis(Stretched(v, s), 1, s / 3, s - 1, 3)),
      GW_HUGE("tile", Tile(v, {s})),
      GW_HUGE("tile of rows", Tile(x, {1, 1, s, 1})),
      GW_HUGE("tile of all", Tile(x, {s, s, s, s})),
      GW_HUGE("stretch", Tanh(Stretched(v, s)) * 2),
      GW_HUGE("reverse", Reverse(Stretched(v, s), {0, 1})),
      GW_HUGE("transpose", Transpose(Stretched(v, s) + 1)),
      GW_HUGE("reshape", Tanh(Reshape(Stretched(v, s), {s, 3}))),
      GW_HUGE("concat", Concat({Stretched(v, s), Stretched(v, 7)}, 1)),
      GW_HUGE("split", Split(Stretched(v, s), {Dim(s - 1), Dim(1)}, 1)[0]),
      GW_HUGE("sum", Sum(Stretched(v, s), {.axes = {1}})),
      GW_HUGE("sum of columns", Sum(Tanh(Stretched(v, s)), {.axes = {0}})),
      GW_HUGE("max", Max(Stretched(v, s), {.axes = {1}})),
      GW_HUGE("prod", Prod(Stretched(v, s), {.axes = {1}})),
      GW_HUGE("log of sums", LogSumExp(Stretched(v, s), {.axes = {1}})),
      GW_HUGE("log of sums of columns", LogSumExp(Stretched(v, s), {.axes = {0}})),
      GW_HUGE("log of sums of outer axes", LogSumExp(BroadcastTo(Reshape(v, {1, 3, 1}), {s, 3, 2}), {.axes = {0, 2}})),
      GW_HUGE("softmax", Softmax(Stretched(v, s))),
      GW_HUGE("softmax of columns", Softmax(Stretched(v, s), 0)),
      GW_HUGE("arg max", Cast(ArgMax(Stretched(v, s), {.axis = 1}), kFloat32)),
      GW_HUGE("cross entropy", SparseSoftmaxCrossEntropy(Stretched(v, s), labels)),
      GW_HUGE("one hot", OneHot(labels, s)),
      GW_HUGE("range", Range(scope, s, {.dtype = kFloat32})),
      GW_HUGE("range with a step", Range(scope, s, {.start = 0.5, .step = 0.1, .dtype = kFloat32})),
      GW_HUGE("triangle", Triangle(Stretched(v, s))),
      GW_HUGE("gather", Gather(Stretched(v, s), labels, 1)),
      GW_HUGE("scatter", ScatterAdd(Stretched(v, s), labels, Stretched(v, 3), 1)),
      GW_HUGE("layer norm", LayerNorm(Stretched(v, s), SliceAxis(Reshape(Stretched(v, s), {3 * s}), 0, 0, s),
                                      SliceAxis(Reshape(Stretched(v, s), {3 * s}), 0, 0, s))),
      GW_HUGE("row times matrix",
              MatMul(SliceAxis(Stretched(v, s), 0, 0, 1), BroadcastTo(SliceAxis(v, 0, 0, 1), {s, 32}))),
      GW_HUGE("row times wide matrix", MatMul(Reshape(v, {1, 3}), Stretched(v, s))),
      GW_HUGE("product of many terms", MatMul(Stretched(v, s), Stretched(v, s), {.transpose_b = true})),
      GW_HUGE("product of many rows", MatMul(Transpose(Stretched(v, s)), Stretched(v, 40))),
      GW_HUGE("product of many columns", MatMul(Stretched(v, 3), Tanh(Stretched(v, s)))),
      GW_HUGE("product of both", MatMul(Transpose(Stretched(v, s)), Stretched(v, s))),
      GW_HUGE("many products",
              MatMul(BroadcastTo(Reshape(v, {1, 3, 1}), {s, 3, 4}), Stretched(v, 5), {.transpose_a = true})),
      GW_HUGE("dense layer of samples",
              MatMul(Reshape(x, {Dim("n"), 72}), BroadcastTo(SliceAxis(v, 0, 0, 1), {72, s}))),
      GW_HUGE("dense layer of long samples",
              MatMul(BroadcastTo(Reshape(SliceAxis(Reshape(x, {Dim("n"), 72}), 1, 0, 1), {Dim("n"), 1}), {Dim("n"), s}),
                     BroadcastTo(SliceAxis(v, 0, 0, 1), {s, 10}))),
      GW_HUGE("random", RandomUniform(scope, {s}) + Sum(v)),
      GW_HUGE("normal", RandomNormal(scope, {s, 2}) + Sum(v)),
      GW_HUGE("dropout", Dropout(Stretched(v, s), 0.5)),
      GW_HUGE("where", Where(Greater(Stretched(v, s), 0.5), Stretched(v, s), 0)),
  };
  return *cases;
}
#undef GW_HUGE

// Processor seconds of this program.
inline double ProcessorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// A session plans each case, with gradients, or refuses it with an error of the user's, in time
// that does not depend on the number. Nothing is run: what fits in the machine's memory may take
// long.
inline void ExpectPlansAreMadeSoon(const SessionOptions& options) {
  constexpr double kMostSeconds = 3;
  const int64_t sizes[] = {int64_t{1} << 16, 1'000'003,        int64_t{1} << 23,       (int64_t{1} << 24) + 1,
                           int64_t{1} << 28, int64_t{1} << 30, (int64_t{1} << 31) - 1, int64_t{1} << 31,
                           int64_t{1} << 36, int64_t{1} << 47, int64_t{1} << 62};
  for (const HugeCase& huge : HugeCases()) {
    for (int64_t size : sizes) {
      SCOPED_TRACE(absl::StrCat(huge.name, ", ", size));
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", kFloat32, {Dim("n"), 2, 6, 6}), v = scope.Input("v", kFloat32, {3}),
                  labels = scope.Input("labels", kInt32, {3});
      const double begin = ProcessorSeconds();
      const Value sum = Sum(huge.make(scope, x, v, labels, size)) + Sum(x) + Sum(v);
      std::vector<Fetch> fetches = {sum};
      if (graph.status().ok()) {
        for (const Value& gradient : Gradients({sum}, {x, v})) fetches.push_back(Sum(gradient));
      }
      absl::Status status = graph.status();
      if (status.ok()) {
        absl::StatusOr<Session> session = Session::Create(graph, options);
        status = session.status();
        if (status.ok()) {
          status =
              session
                  ->Prepare(
                      {{x, Tensor(kFloat32, {16, 2, 6, 6})}, {v, Tensor(kFloat32, {3})}, {labels, Tensor(kInt32, {3})}},
                      fetches)
                  .status();
        }
      }
      EXPECT_LT(ProcessorSeconds() - begin, kMostSeconds);
      EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument ||
                  status.code() == absl::StatusCode::kResourceExhausted)
          << status;
    }
  }
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_SESSION_HUGE_SIZES_H_
