// The common part of convolutions by rows and of pools: sizes, copies of rows, bands of rows, and
// the way back from windows to images.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_IMAGE_WINDOWS_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_IMAGE_WINDOWS_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// One axis of images and of windows over them. Result i reads elements i*stride + k*dilation -
// padding for k < taps. Elements outside of the image are zeros.
struct WindowAxis {
  int64_t size, results, taps, stride, dilation, padding;

  // Returns the number of elements from the first to the last one that a result reads.
  int64_t extent() const { return (taps - 1) * dilation + 1; }
  // Returns false if padding or distances are so large that copies with padding do not pay.
  bool is_moderate() const {
    constexpr int64_t kMostSize = 1 << 16, kMostExtent = 1 << 12;
    return size > 0 && results > 0 && taps > 0 && std::max({size, results, padding}) <= kMostSize &&
           std::max({taps, stride, dilation}) <= kMostExtent && taps * dilation <= kMostExtent;
  }
};

struct ImageWindows {
  WindowAxis y, x;

  bool is_moderate() const { return y.is_moderate() && x.is_moderate(); }
  int64_t image_size() const { return y.size * x.size; }
  int64_t result_size() const { return y.results * x.results; }

  // Returns the same windows in the form that suits loops along rows. A single result needs no
  // stride. An image of one column becomes one of one row, which has the same elements in the same
  // order.
  ImageWindows Simplified() const {
    ImageWindows simple = *this;
    for (WindowAxis* axis : {&simple.y, &simple.x}) axis->stride = axis->results == 1 ? 1 : axis->stride;
    if (x.size == 1 && x.taps == 1 && x.results == 1 && x.padding == 0) std::swap(simple.y, simple.x);
    return simple;
  }
};

inline ImageWindows WindowsOf(const ConvGeometry& g) {
  return {{g.height, g.output_height, g.kernel_height, g.stride_y, g.dilation_y, g.top},
          {g.width, g.output_width, g.kernel_width, g.stride_x, g.dilation_x, g.left}};
}

// Copies `size` rows of an image from row `begin` on, as split rows. Rows outside of the image are
// zeros. copy(first row, number of rows, target) copies those inside.
template <typename T, typename Copy>
void CopyRows(const SplitRow& row, int64_t height, int64_t begin, int64_t size, T* to, Copy copy) {
  const int64_t first = std::clamp<int64_t>(-begin, 0, size), last = std::clamp(height - begin, first, size);
  std::fill_n(to, first * row.size(), T(0));
  if (first < last) copy(begin + first, last - first, to + first * row.size());
  std::fill_n(to + last * row.size(), (size - last) * row.size(), T(0));
}

// Bands of rows of results. A band is so small that the copied rows that it reads stay in the
// first-level cache.
struct Bands {
  int64_t results, stride, extent;  // Rows of results, their distance in rows, and rows that one reads.
  int64_t size;                     // Rows of results of a band.

  // `row_elements` is the number of elements of one copied row of all images of a group.
  Bands(int64_t results, int64_t stride, int64_t extent, int64_t row_elements)
      : results(results), stride(stride), extent(extent) {
    constexpr int64_t kElements = 6 << 10;
    size =
        std::clamp<int64_t>((kElements / row_elements - extent) / stride + 1, std::min<int64_t>(8, results), results);
  }

  int64_t number() const { return DivideUp(results, size); }
  int64_t begin(int64_t band) const { return band * size; }
  int64_t end(int64_t band) const { return std::min(results, begin(band) + size); }
  // Returns the number of rows that `count` rows of results read.
  int64_t rows_of(int64_t count) const { return (count - 1) * stride + extent; }
};

// The way back from windows to images along one axis. Element e of an image has the phase (e +
// padding) % stride and, within the phase, the number (e + padding) / stride. The taps that read it
// are first_tap of its phase and every step-th tap after it. They do so for the results number -
// distance, number - distance + result_step and so on, beginning with the last tap.
struct Phases {
  WindowAxis axis;
  int64_t step, result_step;
  int64_t reach;    // The largest distance.
  int64_t numbers;  // Elements of a phase, with padding.

  explicit Phases(const WindowAxis& axis)
      : axis(axis),
        step(axis.stride / std::gcd(axis.stride, axis.dilation)),
        result_step(axis.dilation / std::gcd(axis.stride, axis.dilation)),
        reach((axis.taps - 1) * axis.dilation / axis.stride),
        numbers((axis.size + axis.padding - 1) / axis.stride + 1) {}

  int64_t first_tap(int64_t phase) const {
    for (int64_t tap = 0; tap < std::min(step, axis.taps); ++tap) {
      if (tap * axis.dilation % axis.stride == phase) return tap;
    }
    return axis.taps;
  }
  int64_t taps(int64_t phase) const { return DivideUp(axis.taps - first_tap(phase), step); }
  // The last tap reads the element for the first result.
  int64_t last_tap(int64_t phase) const { return first_tap(phase) + std::max<int64_t>(taps(phase) - 1, 0) * step; }
  int64_t distance(int64_t phase) const {
    return taps(phase) == 0 ? 0 : (last_tap(phase) * axis.dilation - phase) / axis.stride;
  }
  // Numbers [begin, end) of a phase are inside the image.
  int64_t begin(int64_t phase) const { return DivideUp(std::max<int64_t>(axis.padding - phase, 0), axis.stride); }
  int64_t end(int64_t phase) const {
    return DivideUp(std::max<int64_t>(axis.size + axis.padding - phase, 0), axis.stride);
  }
};

// Makes a kernel that calls body(arguments, image, band, scratch) for all bands of all images, in
// parallel. A task has at least `grain` bands. The scratch has `scratch_elements` elements, is zero
// at the start of a task, and keeps its content from one call of a task to the next.
template <typename T, typename Body>
Kernel BandKernel(const char* name, const KernelRequest& request, int64_t images, int64_t bands, int64_t grain,
                  int64_t scratch_elements, Body body) {
  const Chunks chunks(images * bands, grain);
  return {.name = name,
          .run =
              [=](const KernelArguments& arguments) {
                arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
                  if (arguments.stopped()) return;
                  T* const scratch = reinterpret_cast<T*>(arguments.scratch) + thread * scratch_elements;
                  std::fill_n(scratch, scratch_elements, T(0));
                  for (int64_t unit = chunks.begin(chunk); unit < chunks.end(chunk); ++unit)
                    body(arguments, unit / bands, unit % bands, scratch);
                });
                return absl::OkStatus();
              },
          .scratch_bytes = ScratchBytes(request.threads, scratch_elements, sizeof(T))};
}

// Elements of an image whose rows have one phase and whose columns have one phase. Element (i, j)
// of the part is the sum over taps (k, l) of x[i*x_row + k*tap_row + columns[l] + j], where x holds
// copied rows of results. y has room for the part.
template <typename T>
struct PhasePart {
  int64_t first_row;  // The first row of x that the part reads.
  int64_t tap_rows;   // Rows of x from one tap to the next.
  const std::vector<int64_t>* columns;
  int64_t x_column;
  int64_t height;          // Taps along a column.
  int64_t last_y, last_x;  // The filter's row and column for tap (0, 0); those of other taps are before it.
  T* y;
  int64_t y_row, rows, count;
};

// Gradients with respect to images, from copies of rows of results.
template <typename T>
struct WayBack {
  Phases down, across;
  SplitRow row;                               // A row of results, with zeros around it.
  SplitRow merged;                            // A row of the image, split by phases.
  std::vector<std::vector<int64_t>> columns;  // PhasePart::columns of each phase.

  WayBack(const ImageWindows& g, int64_t lanes)
      : down(g.y),
        across(g.x),
        row(g.x.results, across.reach, 1, across.reach + 1, 1, across.numbers, lanes),
        merged(g.x.size, g.x.padding, g.x.stride, 1, 1, across.numbers, lanes),
        columns(g.x.stride) {
    for (int64_t phase = 0; phase < g.x.stride; ++phase) {
      for (int64_t l = 0; l < across.taps(phase); ++l)
        columns[phase].push_back(across.reach - across.distance(phase) + l * across.result_step);
    }
  }

  // Returns the bands of row numbers. Numbers [first, last) read the rows of results from first -
  // down.reach on.
  Bands bands(int64_t images) const { return Bands(down.numbers, 1, down.reach + 1, images * row.size()); }
  int64_t merged_elements(int64_t rows) const { return rows * merged.size(); }

  // Computes the rows with numbers [first, last) of an image by calls of sum(part). The first
  // copied row is row first - down.reach of the results.
  template <typename Sum>
  void Run(const WindowLoops<T>& loops, int64_t first, int64_t last, T* scratch, T* image, Sum sum) const {
    const int64_t width = across.axis.size;
    for (int64_t phase = 0; phase < down.axis.stride; ++phase) {
      const int64_t begin = std::max(first, down.begin(phase)), end = std::min(last, down.end(phase));
      if (begin >= end) continue;
      T* const to = image + (begin * down.axis.stride + phase - down.axis.padding) * width;
      for (int64_t column_phase = 0; column_phase < across.axis.stride; ++column_phase) {
        PhasePart<T> part = {.first_row = begin - first + down.reach - down.distance(phase),
                             .tap_rows = down.result_step,
                             .columns = &columns[column_phase],
                             .x_column = 0,
                             .height = down.taps(phase),
                             .last_y = down.last_tap(phase),
                             .last_x = across.last_tap(column_phase),
                             .y = scratch + column_phase * merged.step,
                             .y_row = merged.size(),
                             .rows = end - begin,
                             .count = across.numbers};
        if (across.axis.stride == 1) {
          part.x_column = across.axis.padding;
          part.y = to;
          part.y_row = down.axis.stride * width;
          part.count = width;
        }
        sum(part);
      }
      if (across.axis.stride > 1) loops.merge(merged, scratch, end - begin, to, down.axis.stride * width);
    }
  }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_IMAGE_WINDOWS_H_
