#include "gradweave/ops/conv.h"

#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

// Calls body(sample, output channel, input channel, filter channel, output y x, filter y x, input y
// x) for each product of a convolution.
struct Product {
  int64_t n, o, c, fc, i, j, k, l, y, x;
};
void ForProducts(const std::vector<int64_t>& x, const std::vector<int64_t>& f, const std::vector<int64_t>& y,
                 const Conv2DOptions& options, const std::function<void(const Product&)>& body) {
  const int64_t top = options.padding[0], left = options.padding.size() == 2 ? options.padding[1] : options.padding[2];
  ForIndices({y[0], y[1], f[1], y[2], y[3], f[2], f[3]}, [&](const std::vector<int64_t>& t) {
    Product p{t[0], t[1], t[1] / (f[0] / options.groups) * f[1] + t[2], t[2], t[3], t[4], t[5], t[6], 0, 0};
    p.y = p.i * options.stride[0] + p.k * options.dilation[0] - top;
    p.x = p.j * options.stride[1] + p.l * options.dilation[1] - left;
    if (p.y >= 0 && p.y < x[2] && p.x >= 0 && p.x < x[3]) body(p);
  });
}

}  // namespace

OpCases ConvCases() {
  OpCases all;
  struct Row {
    const char* name;
    std::vector<int64_t> x, filter, y;
    Conv2DOptions options;
  };
  const Row rows[] = {
      {"plain", {2, 2, 5, 4}, {3, 2, 3, 2}, {2, 3, 3, 3}, {}},
      {"padding", {2, 1, 4, 4}, {2, 1, 3, 3}, {2, 2, 4, 4}, {.padding = {1, 1}}},
      {"asymmetric_padding", {1, 2, 4, 3}, {2, 2, 2, 2}, {1, 2, 5, 4}, {.padding = {2, 0, 0, 2}}},
      {"stride", {2, 1, 5, 6}, {2, 1, 3, 2}, {2, 2, 2, 3}, {.stride = {2, 2}}},
      {"stride_padding", {1, 2, 5, 5}, {2, 2, 3, 3}, {1, 2, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
      {"dilation", {1, 1, 6, 5}, {2, 1, 3, 2}, {1, 2, 2, 3}, {.dilation = {2, 2}}},
      {"groups", {2, 4, 3, 3}, {6, 2, 2, 2}, {2, 6, 2, 2}, {.groups = 2}},
      {"depthwise", {1, 3, 4, 4}, {3, 1, 3, 3}, {1, 3, 4, 4}, {.padding = {1, 1}, .groups = 3}},
      {"pointwise", {3, 3, 2, 2}, {2, 3, 1, 1}, {3, 2, 2, 2}, {}},
      {"padding_alone", {1, 2, 0, 3}, {2, 2, 2, 2}, {1, 2, 3, 2}, {.padding = {2, 2, 0, 0}}},
      // Vectors of output channels; the last one is not full.
      {"channels", {2, 2, 5, 8}, {18, 2, 3, 2}, {2, 18, 3, 5}, {.stride = {2, 2}, .padding = {1, 1}}},
      {"channels_of_groups", {1, 4, 5, 8}, {20, 2, 2, 2}, {1, 20, 2, 4}, {.stride = {2, 2}, .groups = 2}},
  };
  for (const Row& row : rows) {
    const Conv2DOptions options = row.options;
    const std::vector<int64_t> xs = row.x, fs = row.filter, ys = row.y;
    all.cases.push_back(
        {"Conv2D",
         row.name,
         {{xs}, {fs}},
         [options](const auto& v) { return std::vector<Value>{Conv2D(v[0], v[1], options)}; },
         [=](const std::vector<Array>& v) {
           Array y = Array::Zeros(ys);
           ForProducts(xs, fs, ys, options, [&](const Product& p) {
             y.at({p.n, p.o, p.i, p.j}) += v[0].at({p.n, p.c, p.y, p.x}) * v[1].at({p.o, p.fc, p.k, p.l});
           });
           return std::vector<Array>{y};
         },
         2,
         false});
    all.cases.push_back(
        {"Conv2DInputGrad",
         row.name,
         {{ys}, {fs}},
         [options, xs](const auto& v) {
           return std::vector<Value>{Conv2DInputGrad(v[0], v[1], {v[0].shape()[0], xs[1], xs[2], xs[3]}, options)};
         },
         [=](const std::vector<Array>& v) {
           Array x = Array::Zeros(xs);
           ForProducts(xs, fs, ys, options, [&](const Product& p) {
             x.at({p.n, p.c, p.y, p.x}) += v[0].at({p.n, p.o, p.i, p.j}) * v[1].at({p.o, p.fc, p.k, p.l});
           });
           return std::vector<Array>{x};
         },
         2,
         false});
    all.cases.push_back(
        {"Conv2DFilterGrad",
         row.name,
         {{xs}, {ys}},
         [options, fs](const auto& v) { return std::vector<Value>{Conv2DFilterGrad(v[0], v[1], Shape(fs), options)}; },
         [=](const std::vector<Array>& v) {
           Array f = Array::Zeros(fs);
           ForProducts(xs, fs, ys, options, [&](const Product& p) {
             f.at({p.o, p.fc, p.k, p.l}) += v[0].at({p.n, p.c, p.y, p.x}) * v[1].at({p.n, p.o, p.i, p.j});
           });
           return std::vector<Array>{f};
         },
         2,
         false});
  }
  // Symbolic sizes and a bias, with fewer and with more channels than a vector has lanes.
  for (int64_t outputs : {2, 18}) {
    all.cases.push_back(
        {"Conv2D",
         outputs == 2 ? "bias" : "bias_of_channels",
         {{{2, 1, 5, 8}}, {{outputs, 1, 3, 3}}, {{outputs}}},
         [](const auto& v) {
           return std::vector<Value>{Conv2D(v[0], v[1], v[2], {.stride = {2, 2}, .padding = {1, 1}})};
         },
         [outputs](const std::vector<Array>& v) {
           Array y = Array::Zeros({2, outputs, 3, 4});
           ForIndices(y.sizes, [&](const auto& i) { y.at(i) = v[2].at({i[1]}); });
           ForProducts({2, 1, 5, 8}, {outputs, 1, 3, 3}, y.sizes, {.stride = {2, 2}, .padding = {1, 1}},
                       [&](const Product& p) {
                         y.at({p.n, p.o, p.i, p.j}) += v[0].at({p.n, p.c, p.y, p.x}) * v[1].at({p.o, p.fc, p.k, p.l});
                       });
           return std::vector<Array>{y};
         }});
  }
  // A transposed convolution is the input gradient of the opposite convolution.
  all.cases.push_back(
      {"Conv2DInputGrad",
       "transposed_convolution",
       {{{1, 2, 3, 3}}, {{2, 3, 3, 2}}, {{3}}},
       [](const auto& v) {
         return std::vector<Value>{
             ConvTranspose2D(v[0], v[1], v[2], {.stride = {2, 2}, .padding = {1, 0}, .output_padding = {1, 0}})};
       },
       [](const std::vector<Array>& v) {
         const std::vector<int64_t> sizes = {1, 3, 6, 6};
         Array x = Array::Zeros(sizes);
         ForIndices(sizes, [&](const auto& i) { x.at(i) = v[2].at({i[1]}); });
         ForProducts(sizes, {2, 3, 3, 2}, {1, 2, 3, 3}, {.stride = {2, 2}, .padding = {1, 0}}, [&](const Product& p) {
           x.at({p.n, p.c, p.y, p.x}) += v[0].at({p.n, p.o, p.i, p.j}) * v[1].at({p.o, p.fc, p.k, p.l});
         });
         return std::vector<Array>{x};
       },
       2,
       false});
  // As much output padding as dilation allows: the rows behind see less padding, the columns no tap
  // at all.
  all.cases.push_back(
      {"Conv2DInputGrad",
       "transpose_dilated",
       {{{1, 2, 3, 3}}, {{2, 3, 3, 2}}},
       [](const auto& v) {
         return std::vector<Value>{
             ConvTranspose2D(v[0], v[1], {.padding = {1, 0}, .output_padding = {1, 1}, .dilation = {2, 2}})};
       },
       [](const std::vector<Array>& v) {
         const std::vector<int64_t> sizes = {1, 3, 6, 6};
         Array x = Array::Zeros(sizes);
         ForProducts(sizes, {2, 3, 3, 2}, {1, 2, 3, 3}, {.padding = {1, 0}, .dilation = {2, 2}}, [&](const Product& p) {
           x.at({p.n, p.c, p.y, p.x}) += v[0].at({p.n, p.o, p.i, p.j}) * v[1].at({p.o, p.fc, p.k, p.l});
         });
         return std::vector<Array>{x};
       },
       2,
       false});
  all.errors = {
      {"Conv2D",
       "channels",
       [](Scope& s) {
         Conv2D(s.Input("x", kFloat32, {1, 3, 8, 8}), s.Input("f", kFloat32, {4, 2, 3, 3}));
       },
       {"x has 3 channels, and the filter is for 2", "x: float32[1,3,8,8], filter: float32[4,2,3,3]"}},
      {"Conv2D",
       "rank",
       [](Scope& s) {
         Conv2D(s.Input("x", kFloat32, {3, 8, 8}), s.Input("f", kFloat32, {4, 3, 3, 3}));
       },
       {"x has to be [batch, channels, height, width]"}},
      {"Conv2D",
       "size",
       [](Scope& s) {
         Conv2D(s.Input("x", kFloat32, {1, 1, 2, 8}), s.Input("f", kFloat32, {4, 1, 3, 3}));
       },
       {"covers a height of 3, and x with its padding has 2"}},
      {"Conv2D",
       "stride",
       [](Scope& s) {
         Conv2D(s.Input("x", kFloat32, {1, 1, 8, 8}), s.Input("f", kFloat32, {4, 1, 3, 3}), {.stride = {0, 1}});
       },
       {"stride has to be two numbers of at least 1"}},
      {"Conv2D",
       "groups",
       [](Scope& s) {
         Conv2D(s.Input("x", kFloat32, {1, 4, 8, 8}), s.Input("f", kFloat32, {3, 2, 3, 3}), {.groups = 2});
       },
       {"3 output channels cannot be divided into 2 groups"}},
      {"Conv2D",
       "bias",
       [](Scope& s) {
         Conv2D(s.Input("x", kFloat32, {1, 1, 8, 8}), s.Input("f", kFloat32, {4, 1, 3, 3}),
                s.Input("b", kFloat32, {3}));
       },
       {"the bias has to have shape [4]"}},
      {"ConvTranspose2D",
       "output_padding",
       [](Scope& s) {
         ConvTranspose2D(s.Input("x", kFloat32, {1, 1, 8, 8}), s.Input("f", kFloat32, {1, 4, 3, 3}),
                         {.output_padding = {1, 1}});
       },
       {"output padding 1"}},
  };
  return all;
}

}  // namespace gradweave
