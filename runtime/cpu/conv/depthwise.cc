#include "gradweave/runtime/cpu/conv/depthwise.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/depthwise_lanes.h"
#include "gradweave/runtime/cpu/conv/image_windows.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"

namespace gradweave {
namespace {

constexpr int64_t kGrain = 16384;  // Least products of a chunk of bands.
// Most elements of a thread's scratch, and most channels of a group.
constexpr int64_t kMostElements = 1 << 18, kMostGroupChannels = 16;

// A convolution with neighbouring columns in the lanes, one group of a sample at a time.
template <typename T>
struct Convolution {
  ConvGeometry g;
  ImageWindows windows;
  const WindowLoops<T>& loops = GetWindowLoops<T>();

  explicit Convolution(const ConvGeometry& g) : g(g), windows(WindowsOf(g).Simplified()) {}

  int64_t filter_image() const { return windows.y.taps * windows.x.taps; }
  SplitRow row() const {
    const WindowAxis& x = windows.x;
    return {x.size, x.padding, x.stride, x.taps, x.dilation, x.results, loops.lanes};
  }
  // Returns the bands of results whose copies hold `channels` channels of x.
  Bands bands(int64_t channels) const {
    return {windows.y.results, windows.y.stride, windows.y.extent(), channels * row().size()};
  }
  // Copies `size` rows from row `begin` on of an image of height x width.
  void Copy(const SplitRow& row, const T* image, int64_t height, int64_t width, int64_t begin, int64_t size,
            T* to) const {
    CopyRows(row, height, begin, size, to, [&](int64_t first, int64_t rows, T* target) {
      loops.split(row, image + first * width, width, rows, target);
    });
  }
};

template <typename T>
struct Forward {
  Convolution<T> conv;
  SplitRow row = conv.row();
  Bands bands = conv.bands(conv.g.group_channels());
  bool has_bias;

  int64_t image_elements() const { return bands.rows_of(bands.size) * row.size(); }
  int64_t scratch_elements() const { return conv.g.group_channels() * image_elements(); }

  void operator()(const KernelArguments& arguments, int64_t image, int64_t band, T* scratch) const {
    const ConvGeometry& g = conv.g;
    const int64_t sample = image / g.groups, group = image % g.groups;
    const auto& [y, x] = conv.windows;
    const int64_t first = bands.begin(band), rows = bands.end(band) - first;
    for (int64_t c = 0; c < g.group_channels(); ++c) {
      conv.Copy(row,
                arguments.operand<T>(0) + sample * g.sample_size() +
                    (group * g.group_channels() + c) * conv.windows.image_size(),
                y.size, x.size, first * y.stride - y.padding, bands.rows_of(rows), scratch + c * image_elements());
    }
    for (int64_t o = group * g.group_outputs(); o < (group + 1) * g.group_outputs(); ++o) {
      conv.loops.sum({.x = scratch,
                      .x_row = row.size(),
                      .x_channel = image_elements(),
                      .x_stride = y.stride * row.size(),
                      .tap_row = y.dilation * row.size(),
                      .columns = row.columns.data(),
                      .channels = g.group_channels(),
                      .height = y.taps,
                      .width = x.taps,
                      .weights = arguments.operand<T>(1) + o * g.taps(),
                      .weight_channel = conv.filter_image(),
                      .weight_row = x.taps,
                      .weight_column = 1,
                      .bias = has_bias ? arguments.operand<T>(2)[o] : T(0),
                      .y = arguments.output<T>() + sample * g.output_size() + o * g.pixels() + first * x.results,
                      .y_row = x.results,
                      .rows = rows,
                      .count = x.results});
    }
  }
};

template <typename T>
struct InputGradient {
  Convolution<T> conv;
  WayBack<T> way = WayBack<T>(conv.windows, conv.loops.lanes);
  Bands bands = way.bands(conv.g.group_outputs());

  int64_t image_elements() const { return bands.rows_of(bands.size) * way.row.size(); }
  int64_t copied_elements() const { return conv.g.group_outputs() * image_elements(); }
  int64_t scratch_elements() const { return copied_elements() + way.merged_elements(bands.size); }

  void operator()(const KernelArguments& arguments, int64_t image, int64_t band, T* scratch) const {
    const ConvGeometry& g = conv.g;
    const int64_t sample = image / g.groups, group = image % g.groups;
    const auto& [y, x] = conv.windows;
    const int64_t first = bands.begin(band), last = bands.end(band);
    for (int64_t o = 0; o < g.group_outputs(); ++o) {
      conv.Copy(
          way.row, arguments.operand<T>(0) + sample * g.output_size() + (group * g.group_outputs() + o) * g.pixels(),
          y.results, x.results, first - way.down.reach, bands.rows_of(last - first), scratch + o * image_elements());
    }
    for (int64_t c = 0; c < g.group_channels(); ++c) {
      const T* const filter = arguments.operand<T>(1) + group * g.group_outputs() * g.taps() + c * conv.filter_image();
      T* const dx = arguments.output<T>() + sample * g.sample_size() +
                    (group * g.group_channels() + c) * conv.windows.image_size();
      way.Run(conv.loops, first, last, scratch + copied_elements(), dx, [&](const PhasePart<T>& part) {
        conv.loops.sum({.x = scratch + part.first_row * way.row.size() + part.x_column,
                        .x_row = way.row.size(),
                        .x_channel = image_elements(),
                        .x_stride = way.row.size(),
                        .tap_row = part.tap_rows * way.row.size(),
                        .columns = part.columns->data(),
                        .channels = g.group_outputs(),
                        .height = part.height,
                        .width = static_cast<int64_t>(part.columns->size()),
                        .weights = filter + part.last_y * x.taps + part.last_x,
                        .weight_channel = g.taps(),
                        .weight_row = -way.down.step * x.taps,
                        .weight_column = -way.across.step,
                        .bias = T(0),
                        .y = part.y,
                        .y_row = part.y_row,
                        .rows = part.rows,
                        .count = part.count});
      });
    }
  }
};

template <typename T>
struct FilterGradient {
  Convolution<T> conv;
  SplitRow row = conv.row();
  Bands bands = conv.bands(1);

  int64_t scratch_elements() const { return bands.rows_of(bands.size) * row.size(); }

  // Adds the products of one group of a sample to `sum`, [group outputs, taps].
  void Add(const T* x_group, const T* dy_group, T* scratch, T* sum) const {
    const ConvGeometry& g = conv.g;
    const auto& [y, x] = conv.windows;
    for (int64_t band = 0; band < bands.number(); ++band) {
      const int64_t first = bands.begin(band), rows = bands.end(band) - first;
      for (int64_t c = 0; c < g.group_channels(); ++c) {
        conv.Copy(row, x_group + c * conv.windows.image_size(), y.size, x.size, first * y.stride - y.padding,
                  bands.rows_of(rows), scratch);
        for (int64_t o = 0; o < g.group_outputs(); ++o) {
          conv.loops.add_to_filter({.x = scratch,
                                    .x_row = row.size(),
                                    .x_stride = y.stride * row.size(),
                                    .tap_row = y.dilation * row.size(),
                                    .columns = row.columns.data(),
                                    .height = y.taps,
                                    .width = x.taps,
                                    .dy = dy_group + o * g.pixels() + first * x.results,
                                    .dy_row = x.results,
                                    .rows = rows,
                                    .count = x.results,
                                    .df = sum + (o * g.group_channels() + c) * conv.filter_image(),
                                    .df_row = x.taps});
        }
      }
    }
  }
};

// Each chunk of samples has its own sums, which are added in order.
template <typename T>
Kernel FilterGradKernel(const KernelRequest& request, const FilterGradient<T>& gradient) {
  const ConvGeometry g = gradient.conv.g;
  const Chunks groups(g.groups, 1, kMostChunks);
  const Chunks samples(g.samples, 1, std::clamp<int64_t>(kMostChunks / groups.number, 1, kMostPartials));
  const int64_t scratch_elements = gradient.scratch_elements();
  const size_t scratch_bytes = RoundUp(ScratchBytes(request.threads, scratch_elements, sizeof(T)), kAlignment);
  const int64_t partials = samples.number == 1 ? 0 : samples.number;
  return {.name = "depthwise by rows",
          .run =
              [=](const KernelArguments& arguments) {
                T* const df = arguments.output<T>();
                T* const sums = partials == 0 ? df : reinterpret_cast<T*>(arguments.scratch + scratch_bytes);
                arguments.pool->ParallelFor(groups.number * samples.number, [&](int64_t task, int thread) {
                  if (arguments.stopped()) return;
                  T* const scratch = reinterpret_cast<T*>(arguments.scratch) + thread * scratch_elements;
                  std::fill_n(scratch, scratch_elements, T(0));
                  const int64_t chunk = task / groups.number, group_chunk = task % groups.number;
                  for (int64_t group = groups.begin(group_chunk); group < groups.end(group_chunk); ++group) {
                    T* const sum = sums + chunk * g.filter_size() + group * g.group_outputs() * g.taps();
                    std::fill_n(sum, g.group_outputs() * g.taps(), T(0));
                    for (int64_t sample = samples.begin(chunk); sample < samples.end(chunk); ++sample) {
                      gradient.Add(
                          arguments.operand<T>(0) + sample * g.sample_size() +
                              group * g.group_channels() * g.height * g.width,
                          arguments.operand<T>(1) + sample * g.output_size() + group * g.group_outputs() * g.pixels(),
                          scratch, sum);
                    }
                  }
                });
                if (partials > 0) std::fill_n(df, g.filter_size(), T(0));
                for (int64_t i = 0; i < partials * g.filter_size(); ++i) df[i % g.filter_size()] += sums[i];
                return absl::OkStatus();
              },
          .scratch_bytes = scratch_bytes + partials * g.filter_size() * sizeof(T)};
}

// The numbers that the cost of a kernel depends on, beside the convolution.
struct WayCost {
  const Bands& bands;
  const SplitRow& row;
  int64_t images;         // Images of a group whose rows are copied.
  int64_t rows, columns;  // Results of each pair of channels.
  int64_t calls;          // Calls for each pair of channels and band.
  int64_t merged_rows;    // Rows of each channel that are merged.
  double products = 1;    // Time of a product, as a multiple of one of a forward convolution.
};

template <typename T>
Estimate EstimateOf(const Convolution<T>& conv, const WayCost& way) {
  // Moved floats that take as long as a float that is merged.
  constexpr double kMovesPerMerged = 4;
  const ConvGeometry& g = conv.g;
  const double groups = static_cast<double>(g.samples) * static_cast<double>(g.groups);
  const double pairs = groups * static_cast<double>(g.group_channels() * g.group_outputs());
  const double bands = static_cast<double>(way.bands.number()), floats_per_element = sizeof(T) / 4.0;
  const double vectors =
      pairs * static_cast<double>(way.rows) * static_cast<double>(DivideUp(way.columns, conv.loops.lanes));
  const double copied = groups * bands * static_cast<double>(way.images * way.bands.rows_of(way.bands.size)) *
                        static_cast<double>(way.row.size());
  const double merged_rows = groups * static_cast<double>(g.group_channels() * way.merged_rows);
  return Estimate().Add(Loop::kWindowSums,
                        {.calls = (pairs * static_cast<double>(way.calls) + groups) * bands + 0.5 * merged_rows,
                         .products = way.products * vectors * static_cast<double>(conv.filter_image()),
                         .moved = floats_per_element *
                                  (copied + kMovesPerMerged * merged_rows * static_cast<double>(conv.windows.x.size))});
}

template <typename T>
void AddChoices(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices) {
  const Convolution<T> conv(g);
  const auto& [y, x] = conv.windows;
  const auto add = [&](const auto& way, const WayCost& cost, const auto& make) {
    if (way.scratch_elements() > kMostElements) return;
    choices.push_back({"depthwise by rows", EstimateOf(conv, cost), [=] { return make(way); }});
  };
  const auto of_bands = [=](const auto& way) {
    const int64_t work = std::max(g.sample_size(), g.output_size()) / g.groups * way.conv.filter_image();
    return BandKernel<T>("depthwise by rows", request, g.samples * g.groups, way.bands.number(),
                         std::max<int64_t>(1, kGrain * way.bands.number() / work), way.scratch_elements(), way);
  };
  if (request.node.op->kind == OpKind::kConv2D) {
    const Forward<T> forward{.conv = conv, .has_bias = request.operands.size() == 3};
    add(forward, {forward.bands, forward.row, g.group_channels(), y.results, x.results, 1, 0}, of_bands);
  } else if (request.node.op->kind == OpKind::kConv2DInputGrad) {
    const InputGradient<T> gradient{.conv = conv};
    add(gradient,
        {gradient.bands, gradient.way.row, g.group_outputs(), y.size, x.results, y.stride * x.stride,
         x.stride == 1 ? 0 : y.size},
        of_bands);
  } else {
    const FilterGradient<T> gradient{.conv = conv};
    add(gradient, {gradient.bands, gradient.row, g.group_channels(), y.results, x.results, x.taps, 0, 1.4},
        [=](const FilterGradient<T>& way) { return FilterGradKernel(request, way); });
  }
}

}  // namespace

void AddDepthwiseChoices(const KernelRequest& request, const ConvGeometry& g, std::vector<KernelChoice>& choices) {
  if (g.groups == 1 || g.samples == 0 || !WindowsOf(g).is_moderate() ||
      std::max(g.group_channels(), g.group_outputs()) > kMostGroupChannels)
    return;
  if (request.output().dtype == kFloat32) {
    AddChoices<float>(request, g, choices);
  } else {
    AddChoices<double>(request, g, choices);
  }
  AddLaneChoice(request, g, choices);
}

}  // namespace gradweave
