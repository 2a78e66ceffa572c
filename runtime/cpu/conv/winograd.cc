#include "gradweave/runtime/cpu/conv/winograd.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/even_chunks.h"
#include "gradweave/runtime/cpu/conv/winograd_kernels.h"
#include "gradweave/runtime/cpu/conv/winograd_tiles.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

constexpr int64_t kMostPackedFloats = 64 << 20;
// The most transformed inputs and sums of a task, as a multiple of the second-level cache. It is
// above 1 because each task reads large filters from beyond that cache, so larger tasks read them
// less often.
constexpr double kMostResident = 4;
// Moved floats that take as long as a weight that is packed, if every second run packs.
constexpr double kMovesPerWeight = 1;

}  // namespace

bool Is3x3(const ConvGeometry& g) {
  return g.groups == 1 && g.unit_strides() && g.kernel_height == 3 && g.kernel_width == 3;
}

Convolution3x3 Convolution3x3Of(const ConvGeometry& g) {
  return {.samples = g.samples,
          .channels = g.channels,
          .height = g.height,
          .width = g.width,
          .outputs = g.outputs,
          .output_height = g.output_height,
          .output_width = g.output_width,
          .top = g.top,
          .left = g.left,
          .output_step = g.taps(),
          .input_step = 9,
          .flipped = false};
}

// dx is the convolution of dy with the flipped filter, whose channels and outputs trade places.
Convolution3x3 InputGrad3x3Of(const ConvGeometry& g) {
  Convolution3x3 c = Convolution3x3Of(g);
  std::swap(c.channels, c.outputs);
  std::swap(c.height, c.output_height);
  std::swap(c.width, c.output_width);
  std::swap(c.output_step, c.input_step);
  c.top = 2 - c.top;
  c.left = 2 - c.left;
  c.flipped = true;
  return c;
}

Winograd::Winograd(const Convolution3x3& convolution, int pairs)
    : c_(convolution),
      pairs_(pairs),
      size_out_(2 * pairs),
      size_in_(2 * pairs + 2),
      strips_(c_.samples, c_.output_height, c_.output_width, size_out_),
      packed_outputs_(RoundUp(c_.outputs, ProductLanes())) {}

bool Winograd::Fits(const Convolution3x3& c) {
  // Products of sizes may exceed int64_t.
  auto product = [](std::initializer_list<int64_t> sizes) {
    double result = 1;
    for (int64_t size : sizes) result *= static_cast<double>(size);
    return result;
  };
  constexpr double kMostElements = 1e15;
  const double y = product({c.samples, c.outputs, c.output_height, c.output_width});
  // Tiles must not read inputs that no output needs: these would count in their errors.
  const bool is_covered =
      c.top >= 0 && c.left >= 0 && c.output_height + 2 - c.top >= c.height && c.output_width + 2 - c.left >= c.width;
  return y > 0 && y < kMostElements && c.channels > 0 && is_covered &&
         product({c.samples, c.channels, c.height, c.width}) < kMostElements &&
         product({36, c.channels, RoundUp(c.outputs, 16)}) < kMostPackedFloats;
}

int64_t Winograd::num_panels() const { return DivideUp(c_.outputs, PanelColumns()); }

// The odd line keeps points from mapping to the same sets of a cache.
int64_t Winograd::panel_point() const { return c_.channels * PanelColumns() + kLineFloats; }

int64_t Winograd::packed_floats() const { return num_panels() * points() * panel_point(); }

std::string Winograd::packed_layout() const {
  return absl::StrCat("winograd ", absl::StrJoin({int64_t{pairs_}, c_.channels, c_.outputs, c_.output_step,
                                                  c_.input_step, int64_t{c_.flipped}},
                                                 " "));
}

// Transformed filters are [panel][point][channel][output of the panel].
int64_t Winograd::pack_tasks() const { return num_panels(); }

void Winograd::Pack(const float* filter, int64_t task, float* packed) const {
  const int64_t lanes = ProductLanes(), first = task * PanelColumns(),
                width = std::min(PanelColumns(), packed_outputs_ - first);
  alignas(64) float taps[9 * 16] = {}, flipped[9 * 16];
  WinogradFilter f{.w = c_.flipped ? flipped : taps, .u_point = panel_point()};
  float* const to = packed + task * points() * panel_point();
  for (int64_t i = 0; i < c_.channels; ++i) {
    for (int64_t vector = 0; vector < width; vector += lanes) {
      const int64_t output = first + vector, count = std::min(lanes, c_.outputs - output);
      if (count < lanes) std::fill_n(taps, 9 * lanes, 0.0f);
      GetProductKernels().transpose(filter + output * c_.output_step + i * c_.input_step, count, 9, c_.output_step,
                                    taps, lanes);
      for (int tap = 0; c_.flipped && tap < 9; ++tap)
        std::memcpy(flipped + tap * lanes, taps + (8 - tap) * lanes, lanes * sizeof(float));
      f.u = to + i * width + vector;
      GetWinogradKernels().filter[pairs_](f);
    }
  }
}

double Winograd::TileFloats() const {
  return static_cast<double>(RoundUp(c_.channels, ProductLanes()) + PanelColumns());
}

Estimate Winograd::TaskEstimate(int64_t tiles, int64_t panels) const {
  const double number = static_cast<double>(tiles), channels = static_cast<double>(c_.channels);
  const double blocks = std::ceil(number / GetProductKernels().rows),
               block = RegisterBlockProducts(number / blocks, GetProductKernels().panel_vectors);
  const double at_points = static_cast<double>(points()), passes = static_cast<double>(panels);
  const double calls = at_points * passes * blocks, outputs = passes * static_cast<double>(PanelColumns());
  const double inputs = at_points * number * static_cast<double>(RoundUp(c_.channels, ProductLanes()));
  const double resident = at_points * number * TileFloats() * sizeof(float);
  // Products read each panel of the filters once and all transformed inputs once for each panel.
  return Estimate()
      .Add(Loop::kWinograd, {.calls = calls, .products = calls * block * channels, .moved = inputs})
      .Add(Loop::kWinograd, Moved(at_points * number * outputs, resident))
      .Add(Loop::kWinograd, Moved(at_points * channels * outputs, static_cast<double>(packed_floats()) * sizeof(float)))
      .Add(Loop::kWinograd, {.far = Moved(inputs * passes, resident).far});
}

Estimate Winograd::estimate() const {
  const Tasks tasks = Divide(1);
  const double packed = static_cast<double>(packed_floats()), samples = static_cast<double>(c_.samples);
  const double x = samples * static_cast<double>(c_.channels * c_.height * c_.width);
  const double y = samples * static_cast<double>(c_.outputs * c_.output_height * c_.output_width);
  return Estimate()
      .Add(Loop::kWinograd, Moved(x, x * sizeof(float)))
      .Add(Loop::kWinograd, Moved(y, y * sizeof(float)))
      .Add(TaskEstimate(tasks.strips.size * strips_.columns.size, tasks.panels.size),
           static_cast<double>(strips_.number()) / static_cast<double>(tasks.strips.size) *
               static_cast<double>(tasks.panels.number))
      .Add(Loop::kWinograd, Moved(kMovesPerWeight * packed, packed * sizeof(float)));
}

Winograd::Tasks Winograd::Divide(int threads) const {
  const double tile_bytes = static_cast<double>(points()) * TileFloats() * sizeof(float);
  const double tiles = kMostResident * ThisMachine().second_level_bytes / tile_bytes;
  const int64_t most = std::clamp<int64_t>(static_cast<int64_t>(tiles) / strips_.columns.size, 1, strips_.number());
  Tasks best{EvenChunks(strips_.number(), 1), EvenChunks(num_panels(), num_panels())};
  double least = std::numeric_limits<double>::infinity();
  for (int64_t strips = 1; strips <= most; strips += 1 + strips / 8) {
    for (int64_t parts = 1; parts <= std::min<int64_t>(num_panels(), threads); ++parts) {
      const Tasks tasks{EvenChunks(strips_.number(), strips), EvenChunks(num_panels(), DivideUp(num_panels(), parts))};
      const double cost = static_cast<double>(DivideUp(tasks.number(), threads)) *
                          TaskEstimate(tasks.strips.size * strips_.columns.size, tasks.panels.size).nanoseconds();
      if (cost < least) least = cost, best = tasks;
    }
  }
  return best;
}

int64_t Winograd::strip_floats() const { return size_in_ * (strips_.columns.size * size_out_ + 2) * ProductLanes(); }

// Rows and points are not a multiple of a cache way apart, so that they do not evict each other.
Winograd::Scratch Winograd::Layout(const Tasks& tasks, float* floats) const {
  const int64_t tiles = tasks.strips.size * strips_.columns.size;
  Scratch scratch;
  scratch.v_tile = RoundUp(c_.channels, ProductLanes()) + ProductLanes();
  scratch.v_point = tiles * scratch.v_tile + ProductLanes();
  scratch.sums_point = tiles * PanelColumns() + ProductLanes();
  scratch.strip = floats;
  scratch.v = scratch.strip + strip_floats();
  scratch.sums = scratch.v + points() * scratch.v_point;
  return scratch;
}

int64_t Winograd::scratch_floats(const Tasks& tasks) const {
  const Scratch scratch = Layout(tasks, nullptr);
  return RoundUp(strip_floats() + points() * (scratch.v_point + scratch.sums_point), kLineFloats);
}

// Copies the outputs of a strip for one vector of channels to y.
void Winograd::WriteStrip(const TileStrip& strip, const float* from, const Block& block) const {
  const int64_t row = strip.tiles * size_out_ * ProductLanes();
  for (int64_t i = 0; i < block.rows; ++i) {
    GetProductKernels().transpose(from + i * row, block.columns, block.channels, ProductLanes(),
                                  block.y + i * c_.output_width, c_.output_height * c_.output_width);
  }
}

void Winograd::Run(const float* x, const float* packed, const float* bias, float* y, const Tasks& tasks, int64_t task,
                   float* floats, TakeBlock take) const {
  const ProductKernels& kernels = GetProductKernels();
  const WinogradKernels& transforms = GetWinogradKernels();
  const int64_t lanes = ProductLanes(), strips = task % tasks.strips.number, panels = task / tasks.strips.number;
  const int64_t first = tasks.strips.begin(strips), last = tasks.strips.end(strips);
  const Scratch scratch = Layout(tasks, floats);
  int64_t tiles = 0;
  for (int64_t s = first; s < last; ++s) {
    const TileStrip strip = strips_.At(s);
    for (int64_t channel = 0; channel < c_.channels; channel += lanes) {
      FillStrip(x + (strip.sample * c_.channels + channel) * c_.height * c_.width, c_.height, c_.width,
                {.top = strip.row * size_out_ - c_.top,
                 .rows = size_in_,
                 .left = strip.column * size_out_ - c_.left,
                 .columns = strip.tiles * size_out_ + 2,
                 .channels = std::min(lanes, c_.channels - channel)},
                scratch.strip);
      transforms.input[pairs_]({.strip = scratch.strip,
                                .tiles = strip.tiles,
                                .v = scratch.v + tiles * scratch.v_tile + channel,
                                .v_point = scratch.v_point,
                                .v_tile = scratch.v_tile});
    }
    tiles += strip.tiles;
  }
  const Chunks rows = EvenChunks(tiles, kernels.rows);
  alignas(64) float bias_vector[16] = {};
  for (int64_t panel = tasks.panels.begin(panels); panel < tasks.panels.end(panels); ++panel) {
    const int64_t output = panel * PanelColumns(), width = std::min(PanelColumns(), packed_outputs_ - output);
    const float* weights = packed + panel * points() * panel_point();
    for (int64_t point = 0; point < points(); ++point, weights += panel_point()) {
      for (int64_t block = 0; block < rows.number; ++block) {
        const int64_t row = rows.begin(block);
        kernels.block[rows.end(block) - row][width / lanes](
            {.a = scratch.v + point * scratch.v_point + row * scratch.v_tile,
             .a_row = scratch.v_tile,
             .a_term = 1,
             .b = weights,
             .terms = c_.channels,
             .c = scratch.sums + point * scratch.sums_point + row * width,
             .c_row = width,
             .add = false});
      }
    }
    const float* sums = scratch.sums;
    for (int64_t s = first; s < last; ++s) {
      const TileStrip strip = strips_.At(s);
      Block block{.sample = strip.sample, .row = strip.row * size_out_, .column = strip.column * size_out_};
      block.rows = std::min(size_out_, c_.output_height - block.row);
      block.columns = std::min(strip.tiles * size_out_, c_.output_width - block.column);
      for (int64_t vector = 0; vector < width; vector += lanes) {
        block.channel = output + vector;
        block.channels = std::min(lanes, c_.outputs - block.channel);
        block.y = y + (strip.sample * c_.outputs + block.channel) * c_.output_height * c_.output_width +
                  block.row * c_.output_width + block.column;
        if (bias != nullptr) std::copy_n(bias + block.channel, block.channels, bias_vector);
        transforms.output[pairs_]({.sums = sums + vector,
                                   .point_step = scratch.sums_point,
                                   .tile_step = width,
                                   .tiles = strip.tiles,
                                   .bias = bias_vector,
                                   .strip = scratch.strip});
        WriteStrip(strip, scratch.strip, block);
        take(block);
      }
      sums += strip.tiles * width;
    }
  }
}

namespace {

Kernel WinogradKernel(const KernelRequest& request, const Convolution3x3& convolution, int pairs) {
  const auto winograd = std::make_shared<const Winograd>(convolution, pairs);
  const bool has_bias = request.operands.size() == 3;
  const Winograd::Tasks tasks = winograd->Divide(request.threads);
  const size_t kept_bytes = winograd->packed_floats() * sizeof(float);
  const int64_t thread_floats = winograd->scratch_floats(tasks);
  const size_t scratch_bytes = ScratchBytes(request.threads, thread_floats, sizeof(float));
  return {.name = absl::StrCat("Winograd ", 2 * pairs, "x", 2 * pairs),
          .run =
              [=](const KernelArguments& arguments) {
                float* const scratch = reinterpret_cast<float*>(arguments.scratch);
                float* const packed = arguments.kept != nullptr ? reinterpret_cast<float*>(arguments.kept)
                                                                : scratch + scratch_bytes / sizeof(float);
                if (!arguments.kept_is_current) {
                  arguments.pool->ParallelFor(winograd->pack_tasks(), [&](int64_t task, int) {
                    winograd->Pack(arguments.operand<float>(1), task, packed);
                  });
                }
                arguments.pool->ParallelFor(tasks.number(), [&](int64_t task, int thread) {
                  if (arguments.stopped()) return;
                  winograd->Run(arguments.operand<float>(0), packed, has_bias ? arguments.operand<float>(2) : nullptr,
                                arguments.output<float>(), tasks, task, scratch + thread * thread_floats,
                                [](const Winograd::Block&) {});
                });
                return absl::OkStatus();
              },
          .scratch_bytes = scratch_bytes + kept_bytes,
          .kept_bytes = kept_bytes,
          .scratch_bytes_with_kept = scratch_bytes,
          .kept_operands = {1},
          .kept_layout = winograd->packed_layout()};
}

}  // namespace

void AddWinogradChoices(const KernelRequest& request, const Convolution3x3& convolution,
                        std::vector<KernelChoice>& choices) {
  if (!Winograd::Fits(convolution)) return;
  for (int pairs = 1; pairs <= kMostWinogradPairs; ++pairs) {
    choices.push_back({absl::StrCat("Winograd ", 2 * pairs, "x", 2 * pairs), Winograd(convolution, pairs).estimate(),
                       [=] { return WinogradKernel(request, convolution, pairs); }});
  }
}

}  // namespace gradweave
