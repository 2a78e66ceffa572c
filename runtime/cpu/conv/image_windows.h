// What convolutions by rows and pools share: sizes, copies of rows, bands of rows, and the way back from windows to
// images.
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

// One axis of images and of windows over them: result i reads elements i*stride + k*dilation - padding for k < taps, of
// which those outside are zeros.
struct WindowAxis {
  int64_t size, results, taps, stride, dilation, padding;

  // Elements from the first to the last one that a result reads.
  int64_t extent() const { return (taps - 1) * dilation + 1; }
  // Returns false where padding or distances are so large that copies with padding do not pay.
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

  // The same windows for loops along rows: one result needs no stride, and an image of one column is as well one of
  // one row, whose elements are neighbours too.
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

// Copies `size` rows of an image from row `begin` on, split. Rows outside are zeros. copy(rows of the image, how many,
// place in `to`) copies those inside.
template <typename T, typename Copy>
void CopyRows(const SplitRow& row, int64_t height, int64_t begin, int64_t size, T* to, Copy copy) {
  const int64_t first = std::clamp<int64_t>(-begin, 0, size), last = std::clamp(height - begin, first, size);
  std::fill_n(to, first * row.size(), T(0));
  if (first < last) copy(begin + first, last - first, to + first * row.size());
  std::fill_n(to + last * row.size(), (size - last) * row.size(), T(0));
}

// The rows of a group of images in bands of results, so that their copies stay in the first-level cache.
struct Bands {
  int64_t results, stride, extent;  // Rows of results, rows between them, and rows that one reads.
  int64_t size;                     // Rows of results of a band.

  // `row_elements` are the elements of a row of all images.
  Bands(int64_t results, int64_t stride, int64_t extent, int64_t row_elements)
      : results(results), stride(stride), extent(extent) {
    constexpr int64_t kElements = 6 << 10;
    size =
        std::clamp<int64_t>((kElements / row_elements - extent) / stride + 1, std::min<int64_t>(8, results), results);
  }

  int64_t number() const { return DivideUp(results, size); }
  int64_t begin(int64_t band) const { return band * size; }
  int64_t end(int64_t band) const { return std::min(results, begin(band) + size); }
  // Rows that so many results read.
  int64_t rows_of(int64_t count) const { return (count - 1) * stride + extent; }
};

// The way back from windows to images along one axis. Element e of an image has phase (e + padding) % stride. It is in
// the windows of every step-th tap of those with its phase; for the element `number` = (e + padding) / stride of a
// phase these are the results number - distance, number - distance + result_step and so on.
struct Phases {
  WindowAxis axis;
  int64_t step, result_step;
  int64_t reach;    // The largest distance.
  int64_t numbers;  // Elements of a phase with padding.

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
  // The last tap is that of the first result.
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

// Makes a kernel that calls body(arguments, image, band, scratch) for all bands of all images, in parallel, `grain` of
// them at a time or more. The scratch is zero at first and holds what the thread's last call left.
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

// A part of an image's rows that have one phase, and of its columns. Element (i, j) of the part is the sum over taps
// (k, l) of x[i*x_row + k*tap_row + columns[l] + j]; x are copied rows of results, and y has room for the part.
template <typename T>
struct PhasePart {
  int64_t first_row;  // Of x, in rows.
  int64_t tap_rows;   // From tap to tap.
  const std::vector<int64_t>* columns;
  int64_t x_column;
  int64_t height;          // Taps of a column.
  int64_t last_y, last_x;  // The filter's element of tap (0, 0); the others are before it.
  T* y;
  int64_t y_row, rows, count;
};

// Gradients with respect to images, from copies of rows of results.
template <typename T>
struct WayBack {
  Phases down, across;
  SplitRow row;                               // Of results, with zeros around them.
  SplitRow merged;                            // Of the image, in phases.
  std::vector<std::vector<int64_t>> columns;  // By phase.

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

  // Rows of results that numbers [first, last) of rows read begin at first - down.reach, and are this many.
  Bands bands(int64_t images) const { return Bands(down.numbers, 1, down.reach + 1, images * row.size()); }
  int64_t merged_elements(int64_t rows) const { return rows * merged.size(); }

  // Computes the rows with numbers [first, last) of an image by calls of sum(part). Row 0 of the copied rows is result
  // first - down.reach.
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
