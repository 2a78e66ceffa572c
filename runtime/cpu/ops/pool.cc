#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/conv/image_windows.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

constexpr int64_t kPoolGrain = 16384;  // In elements.

// Sizes of a pooling op. `images` counts all channels of all samples.
struct Geometry {
  int64_t images;
  ImageWindows windows;

  Geometry(const Shape& x, const Shape& y)
      : images(x[0].size() * x[1].size()),
        windows{{x[2].size(), y[2].size(), 1, 1, 1, 0}, {x[3].size(), y[3].size(), 1, 1, 1, 0}} {}

  Geometry(const KernelRequest& request, const Shape& x, const Shape& y) : Geometry(x, y) {
    const Integers& window = request.attribute<Integers>("window");
    const Integers& stride = request.attribute<Integers>("stride");
    const Integers& padding = request.attribute<Integers>("padding");
    windows = {{x[2].size(), y[2].size(), window[0], stride[0], 1, padding[0]},
               {x[3].size(), y[3].size(), window[1], stride[1], 1, padding[2]}};
    windows = windows.Simplified();
  }

  // Returns true in the common case, which has its own loops for averages: 2x2 windows that neither
  // overlap nor leave gaps nor reach outside.
  bool is_two_by_two() const {
    const auto of_two = [](const WindowAxis& axis) {
      return axis.taps == 2 && (axis.stride == 2 || axis.results == 1) && axis.padding == 0 &&
             axis.results * 2 <= axis.size;
    };
    return of_two(windows.y) && of_two(windows.x);
  }
  // Returns true if there is one window, which covers the whole image.
  bool is_whole() const {
    const auto covers = [](const WindowAxis& axis) { return axis.taps - axis.padding >= axis.size; };
    return output_size() == 1 && covers(windows.y) && covers(windows.x);
  }
  // Returns true if averages run by rows. Other windows read each element once, so windows one by
  // one are as fast.
  bool runs_by_rows() const {
    const auto overlaps = [](const WindowAxis& axis) { return axis.results > 1 && axis.stride < axis.taps; };
    return windows.is_moderate() && (overlaps(windows.y) || overlaps(windows.x));
  }
  int64_t image_size() const { return windows.image_size(); }
  int64_t output_size() const { return windows.result_size(); }
  int64_t grain(int64_t bands = 1) const {
    return std::max<int64_t>(1, kPoolGrain * bands / std::max<int64_t>(image_size(), 1));
  }
};

// Calls window(output index, y begin, y end, x begin, x end) with the part of each window that lies
// inside an image.
template <typename Window>
void ForWindows(const ImageWindows& g, Window window) {
  for (int64_t i = 0; i < g.y.results; ++i) {
    const int64_t y = i * g.y.stride - g.y.padding;
    for (int64_t j = 0; j < g.x.results; ++j) {
      const int64_t x = j * g.x.stride - g.x.padding;
      window(i * g.x.results + j, std::max<int64_t>(y, 0), std::min(y + g.y.taps, g.y.size), std::max<int64_t>(x, 0),
             std::min(x + g.x.taps, g.x.size));
    }
  }
}

// Calls body(image) for all images, in parallel.
template <typename Body>
void ForImages(const KernelArguments& arguments, const Geometry& g, Body body) {
  ParallelForRange(*arguments.pool, g.images, g.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) body(image);
  });
}

// Makes a kernel that calls body(arguments, image) for all images, in parallel.
template <typename Body>
Kernel ImageKernel(const char* name, const Geometry& g, Body body) {
  return {.name = name, .run = [=](const KernelArguments& arguments) {
            ForImages(arguments, g, [&](int64_t image) { body(arguments, image); });
            return absl::OkStatus();
          }};
}

// The divisor of a mean.
template <typename T>
struct Divisor {
  Divisor(const KernelRequest& request, const ImageWindows& g)
      : count_padding(request.attribute<bool>("count_padding")), window(g.y.taps * g.x.taps) {}

  // Returns the divisor of a window with that many rows and columns inside an image.
  T operator()(int64_t rows, int64_t columns) const {
    return static_cast<T>(count_padding ? window : std::max<int64_t>(rows * columns, 1));
  }
  // Returns a count for each result along an axis. A window's divisor is the product of the counts
  // of both axes.
  std::vector<T> Counts(const WindowAxis& axis) const {
    std::vector<T> counts;
    for (int64_t i = 0; i < axis.results; ++i) {
      const int64_t begin = i * axis.stride - axis.padding;
      const int64_t inside = std::min(begin + axis.taps, axis.size) - std::max<int64_t>(begin, 0);
      counts.push_back(static_cast<T>(count_padding ? axis.taps : inside));
    }
    return counts;
  }

  bool count_padding;
  int64_t window;
};

// ---- Averages ----

template <typename T>
Kernel AverageOfTwoByTwo(const Geometry& g) {
  return ImageKernel("two_by_two", g, [=](const KernelArguments& arguments, int64_t image) {
    const int64_t width = g.windows.x.size, results = g.windows.x.results;
    const T* const x = arguments.operand<T>(0) + image * g.image_size();
    T* const y = arguments.output<T>() + image * g.output_size();
    for (int64_t i = 0; i < g.windows.y.results; ++i) {
      const T* const first = x + 2 * i * width;
      const T* const second = first + width;
      for (int64_t j = 0; j < results; ++j)
        y[i * results + j] = (first[2 * j] + first[2 * j + 1] + second[2 * j] + second[2 * j + 1]) * T(0.25);
    }
  });
}

template <typename T>
Kernel AverageOfImages(const Geometry& g, const Divisor<T>& divisor) {
  return ImageKernel("whole images", g, [=](const KernelArguments& arguments, int64_t image) {
    const T sum = RowSum(GetRowLoops<T>(), arguments.operand<T>(0) + image * g.image_size(), g.image_size());
    arguments.output<T>()[image] = sum / divisor(g.windows.y.size, g.windows.x.size);
  });
}

template <typename T>
Kernel AverageOfWindows(const Geometry& g, const Divisor<T>& divisor) {
  return ImageKernel("windows", g, [=](const KernelArguments& arguments, int64_t image) {
    const T* const from = arguments.operand<T>(0) + image * g.image_size();
    T* const to = arguments.output<T>() + image * g.output_size();
    ForWindows(g.windows, [&](int64_t at, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
      T sum = 0;
      for (int64_t i = y0; i < y1; ++i) {
        for (int64_t j = x0; j < x1; ++j) sum += from[i * g.windows.x.size + j];
      }
      to[at] = sum / divisor(y1 - y0, x1 - x0);
    });
  });
}

template <typename T>
Kernel AverageByRows(const KernelRequest& request, const Geometry& g, const Divisor<T>& divisor) {
  const WindowLoops<T>& loops = GetWindowLoops<T>();
  const auto& [y, x] = g.windows;
  const std::vector<T> row_counts = divisor.Counts(y), column_counts = divisor.Counts(x);
  const SplitRow row(x.size, x.padding, x.stride, x.taps, 1, x.results, loops.lanes);
  const Bands bands(y.results, y.stride, y.taps, row.size());
  return BandKernel<T>(
      "rows", request, g.images, bands.number(), g.grain(bands.number()), bands.rows_of(bands.size) * row.size(),
      [=, &loops](const KernelArguments& arguments, int64_t image, int64_t band, T* scratch) {
        const auto& [y, x] = g.windows;
        const T* const from = arguments.operand<T>(0) + image * g.image_size();
        const int64_t first = bands.begin(band), rows = bands.end(band) - first;
        CopyRows(
            row, y.size, first * y.stride - y.padding, bands.rows_of(rows), scratch,
            [&](int64_t begin, int64_t count, T* to) { loops.split(row, from + begin * x.size, x.size, count, to); });
        loops.mean({.x = scratch,
                    .x_stride = y.stride * row.size(),
                    .tap_row = row.size(),
                    .columns = row.columns.data(),
                    .height = y.taps,
                    .width = x.taps,
                    .row_counts = row_counts.data() + first,
                    .column_counts = column_counts.data(),
                    .y = arguments.output<T>() + image * g.output_size() + first * x.results,
                    .y_row = x.results,
                    .rows = rows,
                    .count = x.results});
      });
}

template <typename T>
Kernel AvgPoolKernel(const KernelRequest& request) {
  const Geometry g(request, request.operand(0).shape, request.output().shape);
  const Divisor<T> divisor(request, g.windows);
  if (g.is_two_by_two()) return AverageOfTwoByTwo<T>(g);
  if (g.is_whole()) return AverageOfImages(g, divisor);
  return g.runs_by_rows() ? AverageByRows(request, g, divisor) : AverageOfWindows(g, divisor);
}

// ---- Gradients of averages ----

template <typename T>
Kernel SpreadTwoByTwo(const Geometry& g) {
  return ImageKernel("two_by_two", g, [=](const KernelArguments& arguments, int64_t image) {
    const int64_t width = g.windows.x.size, results = g.windows.x.results;
    const T* const dy = arguments.operand<T>(0) + image * g.output_size();
    T* const dx = arguments.output<T>() + image * g.image_size();
    for (int64_t i = 0; i < g.windows.y.results; ++i) {
      T* const first = dx + 2 * i * width;
      T* const second = first + width;
      for (int64_t j = 0; j < results; ++j) {
        const T part = dy[i * results + j] * T(0.25);
        first[2 * j] = first[2 * j + 1] = second[2 * j] = second[2 * j + 1] = part;
      }
      // An odd last column or row is not in any window.
      for (T* row : {first, second}) std::fill(row + 2 * results, row + width, T(0));
    }
    std::fill(dx + 2 * g.windows.y.results * width, dx + g.image_size(), T(0));
  });
}

template <typename T>
Kernel SpreadOverImages(const Geometry& g, const Divisor<T>& divisor) {
  return ImageKernel("whole images", g, [=](const KernelArguments& arguments, int64_t image) {
    std::fill_n(arguments.output<T>() + image * g.image_size(), g.image_size(),
                arguments.operand<T>(0)[image] / divisor(g.windows.y.size, g.windows.x.size));
  });
}

template <typename T>
Kernel SpreadOverWindows(const Geometry& g, const Divisor<T>& divisor) {
  return ImageKernel("windows", g, [=](const KernelArguments& arguments, int64_t image) {
    const T* const dy = arguments.operand<T>(0) + image * g.output_size();
    T* const dx = arguments.output<T>() + image * g.image_size();
    std::fill_n(dx, g.image_size(), T(0));
    ForWindows(g.windows, [&](int64_t at, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
      const T part = dy[at] / divisor(y1 - y0, x1 - x0);
      for (int64_t i = y0; i < y1; ++i) {
        for (int64_t j = x0; j < x1; ++j) dx[i * g.windows.x.size + j] += part;
      }
    });
  });
}

template <typename T>
Kernel SpreadByRows(const KernelRequest& request, const Geometry& g, const Divisor<T>& divisor) {
  const WindowLoops<T>& loops = GetWindowLoops<T>();
  const std::vector<T> row_counts = divisor.Counts(g.windows.y), column_counts = divisor.Counts(g.windows.x);
  const WayBack<T> way(g.windows, loops.lanes);
  const Bands bands = way.bands(1);
  const int64_t copied = bands.rows_of(bands.size) * way.row.size();
  return BandKernel<T>("rows", request, g.images, bands.number(), g.grain(bands.number()),
                       copied + way.merged_elements(bands.size),
                       [=, &loops](const KernelArguments& arguments, int64_t image, int64_t band, T* scratch) {
                         const auto& [y, x] = g.windows;
                         const T* const dy = arguments.operand<T>(0) + image * g.output_size();
                         const int64_t first = bands.begin(band), last = bands.end(band);
                         CopyRows(way.row, y.results, first - way.down.reach, bands.rows_of(last - first), scratch,
                                  [&](int64_t begin, int64_t count, T* to) {
                                    for (int64_t i = begin; i < begin + count; ++i, to += way.row.size()) {
                                      loops.divide(dy + i * x.results, x.results, row_counts[i], column_counts.data(),
                                                   to + way.row.left);
                                    }
                                  });
                         way.Run(loops, first, last, scratch + copied, arguments.output<T>() + image * g.image_size(),
                                 [&](const PhasePart<T>& part) {
                                   loops.mean({.x = scratch + part.first_row * way.row.size() + part.x_column,
                                               .x_stride = way.row.size(),
                                               .tap_row = part.tap_rows * way.row.size(),
                                               .columns = part.columns->data(),
                                               .height = part.height,
                                               .width = static_cast<int64_t>(part.columns->size()),
                                               .y = part.y,
                                               .y_row = part.y_row,
                                               .rows = part.rows,
                                               .count = part.count});
                                 });
                       });
}

template <typename T>
Kernel AvgPoolGradKernel(const KernelRequest& request) {
  const Geometry g(request, request.output().shape, request.operand(0).shape);
  const Divisor<T> divisor(request, g.windows);
  if (g.is_two_by_two()) return SpreadTwoByTwo<T>(g);
  if (g.is_whole()) return SpreadOverImages(g, divisor);
  return g.runs_by_rows() ? SpreadByRows(request, g, divisor) : SpreadOverWindows(g, divisor);
}

// ---- Maxima ----

template <typename T>
Kernel MaxPoolKernel(const KernelRequest& request) {
  const Geometry g(request, request.operand(0).shape, request.output().shape);
  if (!g.windows.is_moderate()) {
    return {.name = "windows", .run = [=](const KernelArguments& arguments) {
              ForImages(arguments, g, [&](int64_t image) {
                const T* x = arguments.operand<T>(0) + image * g.image_size();
                T* y = arguments.output<T>() + image * g.output_size();
                int32_t* indices = arguments.output<int32_t>(1) + image * g.output_size();
                ForWindows(g.windows, [&](int64_t to, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
                  if (y0 >= y1 || x0 >= x1) {  // Only an empty image has empty windows.
                    y[to] = -std::numeric_limits<T>::infinity();
                    indices[to] = 0;
                    return;
                  }
                  int64_t best = y0 * g.windows.x.size + x0;
                  for (int64_t i = y0; i < y1; ++i) {
                    for (int64_t j = x0; j < x1; ++j) {
                      const int64_t at = i * g.windows.x.size + j;
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
  const WindowLoops<T>& loops = GetWindowLoops<T>();
  const WindowAxis& x = g.windows.x;
  const SplitRow row(x.size, x.padding, x.stride, x.taps, 1, x.results, loops.lanes);
  return BandKernel<T>("rows", request, g.images, 1, g.grain(), 4 * row.size(),
                       [=, &loops](const KernelArguments& arguments, int64_t image, int64_t, T* scratch) {
                         const auto& [y, x] = g.windows;
                         loops.max({.row = &row,
                                    .x = arguments.operand<T>(0) + image * g.image_size(),
                                    .height = y.size,
                                    .window = y.taps,
                                    .stride = y.stride,
                                    .top = y.padding,
                                    .y = arguments.output<T>() + image * g.output_size(),
                                    .indices = arguments.output<int32_t>(1) + image * g.output_size(),
                                    .rows = y.results,
                                    .count = x.results,
                                    .scratch = scratch});
                       });
}

// Calls body(image, its indices) for all images, in parallel. Returns OutOfRange for an index
// outside of an image: indices usually come from MaxPool2D, but a graph may feed others.
template <typename Body>
absl::Status ForIndices(absl::string_view op, const KernelArguments& arguments, const Geometry& g, Body body) {
  std::atomic<bool> all_inside = true;
  const int32_t* const indices = arguments.operand<int32_t>(1);
  ForImages(arguments, g, [&](int64_t image) {
    const int32_t* const of_image = indices + image * g.output_size();
    if (GetWindowLoops<float>().in_range(of_image, g.output_size(), g.image_size())) {
      body(image, of_image);
    } else {
      all_inside = false;
    }
  });
  for (int64_t i = 0; !all_inside; ++i) {
    if (indices[i] >= 0 && indices[i] < g.image_size()) continue;
    return absl::OutOfRangeError(
        absl::StrCat(op, ": index ", indices[i], " at position ", i, " is outside [0, ", g.image_size(), ")"));
  }
  return absl::OkStatus();
}

template <typename T>
Kernel MaxUnpoolKernel(const KernelRequest& request) {
  const Geometry g(request.output().shape, request.operand(0).shape);
  return {.name = "scatter",
          .run =
              [=](const KernelArguments& arguments) {
                return ForIndices("MaxUnpool2D", arguments, g, [&](int64_t image, const int32_t* indices) {
                  const T* dy = arguments.operand<T>(0) + image * g.output_size();
                  T* dx = arguments.output<T>() + image * g.image_size();
                  std::fill_n(dx, g.image_size(), T(0));
                  for (int64_t i = 0; i < g.output_size(); ++i) dx[indices[i]] += dy[i];
                });
              },
          .fallible = true};
}

template <typename T>
Kernel MaxPoolGatherKernel(const KernelRequest& request) {
  const Geometry g(request.operand(0).shape, request.output().shape);
  return {.name = "gather",
          .run =
              [=](const KernelArguments& arguments) {
                return ForIndices("MaxPool2DGather", arguments, g, [&](int64_t image, const int32_t* indices) {
                  const T* x = arguments.operand<T>(0) + image * g.image_size();
                  T* y = arguments.output<T>() + image * g.output_size();
                  for (int64_t i = 0; i < g.output_size(); ++i) y[i] = x[indices[i]];
                });
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
