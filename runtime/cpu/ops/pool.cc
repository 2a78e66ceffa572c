#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kGrain = 16384;  // In elements.

// Sizes of a pooling op. `images` counts all channels of all samples.
struct Geometry {
  int64_t images, height, width, output_height, output_width;
  int64_t window_y = 0, window_x = 0, stride_y = 0, stride_x = 0, top = 0, left = 0;

  Geometry(const Shape& x, const Shape& y)
      : images(x[0].size() * x[1].size()),
        height(x[2].size()),
        width(x[3].size()),
        output_height(y[2].size()),
        output_width(y[3].size()) {}

  Geometry(const KernelRequest& request, const Shape& x, const Shape& y) : Geometry(x, y) {
    const Integers& window = request.attribute<Integers>("window");
    const Integers& stride = request.attribute<Integers>("stride");
    const Integers& padding = request.attribute<Integers>("padding");
    window_y = window[0];
    window_x = window[1];
    stride_y = stride[0];
    stride_x = stride[1];
    top = padding[0];
    left = padding[2];
  }

  int64_t image_size() const { return height * width; }
  int64_t output_size() const { return output_height * output_width; }
  // True in the common case, which has loops of its own: 2x2 windows that neither overlap nor leave
  // gaps nor reach outside.
  bool is_two_by_two() const {
    return window_y == 2 && window_x == 2 && stride_y == 2 && stride_x == 2 && top == 0 && left == 0 &&
           output_height * 2 <= height && output_width * 2 <= width;
  }
};

// Calls window(output index, y begin, y end, x begin, x end) with the part of each window that lies
// inside an image.
template <typename Window>
void ForWindows(const Geometry& g, Window window) {
  for (int64_t i = 0; i < g.output_height; ++i) {
    const int64_t y = i * g.stride_y - g.top;
    for (int64_t j = 0; j < g.output_width; ++j) {
      const int64_t x = j * g.stride_x - g.left;
      window(i * g.output_width + j, std::max<int64_t>(y, 0), std::min(y + g.window_y, g.height),
             std::max<int64_t>(x, 0), std::min(x + g.window_x, g.width));
    }
  }
}

// Calls body(image) for all images, in parallel.
template <typename Body>
void ForImages(const KernelArguments& arguments, const Geometry& g, Body body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(g.image_size(), 1));
  ParallelForRange(*arguments.pool, g.images, grain, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) body(image);
  });
}

template <typename T>
Kernel AvgPoolKernel(const KernelRequest& request) {
  const Geometry g(request, request.operand(0).shape, request.output().shape);
  const bool count_padding = request.attribute<bool>("count_padding");
  if (g.is_two_by_two()) {
    return {.name = "two_by_two", .run = [=](const KernelArguments& arguments) {
              ForImages(arguments, g, [&](int64_t image) {
                const T* x = arguments.operand<T>(0) + image * g.image_size();
                T* y = arguments.output<T>() + image * g.output_size();
                for (int64_t i = 0; i < g.output_height; ++i) {
                  const T* first = x + 2 * i * g.width;
                  const T* second = first + g.width;
                  for (int64_t j = 0; j < g.output_width; ++j) {
                    y[i * g.output_width + j] =
                        (first[2 * j] + first[2 * j + 1] + second[2 * j] + second[2 * j + 1]) * T(0.25);
                  }
                }
              });
              return absl::OkStatus();
            }};
  }
  return {.name = "windows", .run = [=](const KernelArguments& arguments) {
            ForImages(arguments, g, [&](int64_t image) {
              const T* x = arguments.operand<T>(0) + image * g.image_size();
              T* y = arguments.output<T>() + image * g.output_size();
              ForWindows(g, [&](int64_t to, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
                T sum = 0;
                for (int64_t i = y0; i < y1; ++i) {
                  for (int64_t j = x0; j < x1; ++j) sum += x[i * g.width + j];
                }
                y[to] = sum / static_cast<T>(count_padding ? g.window_y * g.window_x
                                                           : std::max<int64_t>((y1 - y0) * (x1 - x0), 1));
              });
            });
            return absl::OkStatus();
          }};
}

template <typename T>
Kernel AvgPoolGradKernel(const KernelRequest& request) {
  const Geometry g(request, request.output().shape, request.operand(0).shape);
  const bool count_padding = request.attribute<bool>("count_padding");
  if (g.is_two_by_two()) {
    return {.name = "two_by_two", .run = [=](const KernelArguments& arguments) {
              ForImages(arguments, g, [&](int64_t image) {
                const T* dy = arguments.operand<T>(0) + image * g.output_size();
                T* dx = arguments.output<T>() + image * g.image_size();
                for (int64_t i = 0; i < g.output_height; ++i) {
                  T* first = dx + 2 * i * g.width;
                  T* second = first + g.width;
                  for (int64_t j = 0; j < g.output_width; ++j) {
                    const T part = dy[i * g.output_width + j] * T(0.25);
                    first[2 * j] = first[2 * j + 1] = second[2 * j] = second[2 * j + 1] = part;
                  }
                  // An odd last column or row is not in any window.
                  for (T* row : {first, second}) std::fill(row + 2 * g.output_width, row + g.width, T(0));
                }
                std::fill(dx + 2 * g.output_height * g.width, dx + g.image_size(), T(0));
              });
              return absl::OkStatus();
            }};
  }
  return {.name = "windows", .run = [=](const KernelArguments& arguments) {
            ForImages(arguments, g, [&](int64_t image) {
              const T* dy = arguments.operand<T>(0) + image * g.output_size();
              T* dx = arguments.output<T>() + image * g.image_size();
              std::fill(dx, dx + g.image_size(), T(0));
              ForWindows(g, [&](int64_t from, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
                const T part = dy[from] / static_cast<T>(count_padding ? g.window_y * g.window_x
                                                                       : std::max<int64_t>((y1 - y0) * (x1 - x0), 1));
                for (int64_t i = y0; i < y1; ++i) {
                  for (int64_t j = x0; j < x1; ++j) dx[i * g.width + j] += part;
                }
              });
            });
            return absl::OkStatus();
          }};
}

template <typename T>
Kernel MaxPoolKernel(const KernelRequest& request) {
  const Geometry g(request, request.operand(0).shape, request.output().shape);
  return {.name = "windows", .run = [=](const KernelArguments& arguments) {
            ForImages(arguments, g, [&](int64_t image) {
              const T* x = arguments.operand<T>(0) + image * g.image_size();
              T* y = arguments.output<T>() + image * g.output_size();
              int32_t* indices = arguments.output<int32_t>(1) + image * g.output_size();
              ForWindows(g, [&](int64_t to, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
                int64_t best = y0 * g.width + x0;
                for (int64_t i = y0; i < y1; ++i) {
                  for (int64_t j = x0; j < x1; ++j) {
                    const int64_t at = i * g.width + j;
                    if (x[at] > x[best] || (std::isnan(x[at]) && !std::isnan(x[best]))) best = at;
                  }
                }
                y[to] = x[best];
                indices[to] = static_cast<int32_t>(best);
              });
            });
            return absl::OkStatus();
          }};
}

// Indices usually come from MaxPool2D, but a graph may feed others.
absl::Status CheckIndices(absl::string_view op, const int32_t* indices, int64_t count, int64_t image_size) {
  for (int64_t i = 0; i < count; ++i) {
    if (indices[i] >= 0 && indices[i] < image_size) continue;
    return absl::OutOfRangeError(
        absl::StrCat(op, ": index ", indices[i], " at position ", i, " is outside [0, ", image_size, ")"));
  }
  return absl::OkStatus();
}

template <typename T>
Kernel MaxUnpoolKernel(const KernelRequest& request) {
  const Geometry g(request.output().shape, request.operand(0).shape);
  return {
      .name = "scatter",
      .run =
          [=](const KernelArguments& arguments) {
            const int32_t* indices = arguments.operand<int32_t>(1);
            if (absl::Status status = CheckIndices("MaxUnpool2D", indices, g.images * g.output_size(), g.image_size());
                !status.ok())
              return status;
            ForImages(arguments, g, [&](int64_t image) {
              const T* dy = arguments.operand<T>(0) + image * g.output_size();
              T* dx = arguments.output<T>() + image * g.image_size();
              std::fill(dx, dx + g.image_size(), T(0));
              for (int64_t i = 0; i < g.output_size(); ++i) dx[indices[image * g.output_size() + i]] += dy[i];
            });
            return absl::OkStatus();
          },
      .fallible = true};
}

template <typename T>
Kernel MaxPoolGatherKernel(const KernelRequest& request) {
  const Geometry g(request.operand(0).shape, request.output().shape);
  return {.name = "gather",
          .run =
              [=](const KernelArguments& arguments) {
                const int32_t* indices = arguments.operand<int32_t>(1);
                if (absl::Status status =
                        CheckIndices("MaxPool2DGather", indices, g.images * g.output_size(), g.image_size());
                    !status.ok())
                  return status;
                ForImages(arguments, g, [&](int64_t image) {
                  const T* x = arguments.operand<T>(0) + image * g.image_size();
                  T* y = arguments.output<T>() + image * g.output_size();
                  for (int64_t i = 0; i < g.output_size(); ++i) y[i] = x[indices[image * g.output_size() + i]];
                });
                return absl::OkStatus();
              },
          .fallible = true};
}

}  // namespace

void RegisterPoolKernels(KernelRegistry& registry) {
  using Make = Kernel (*)(const KernelRequest&);
  struct Row {
    const char* op;
    Make make_float, make_double;
  };
  const Row rows[] = {
      {"AvgPool2D", AvgPoolKernel<float>, AvgPoolKernel<double>},
      {"AvgPool2DGrad", AvgPoolGradKernel<float>, AvgPoolGradKernel<double>},
      {"MaxPool2D", MaxPoolKernel<float>, MaxPoolKernel<double>},
      {"MaxUnpool2D", MaxUnpoolKernel<float>, MaxUnpoolKernel<double>},
      {"MaxPool2DGather", MaxPoolGatherKernel<float>, MaxPoolGatherKernel<double>},
  };
  for (const Row& row : rows) {
    registry.Add(row.op, [row](const KernelRequest& request) -> absl::StatusOr<Kernel> {
      return request.operand(0).dtype == kFloat32 ? row.make_float(request) : row.make_double(request);
    });
  }
}

}  // namespace gradweave
