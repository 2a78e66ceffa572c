#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/tile/tile_lowering.h"

namespace gradweave {
namespace {

struct PoolGeometry {
  int64_t channels, height, width, output_height, output_width;
  int64_t window_y, window_x, stride_y, stride_x, top, left;
  // True if windows neither overlap nor reach outside and cover all rows. Rows of the result then
  // correspond to rows of x.
  bool exact_rows() const {
    return window_y == stride_y && window_x == stride_x && top == 0 && left == 0 &&
           output_height * stride_y == height && output_width * stride_x <= width;
  }
  bool covers() const { return output_width * stride_x == width; }
};

PoolGeometry PoolOf(const Node& pool, const Shape& x, const Shape& y) {
  const Integers& window = pool.attribute<Integers>("window");
  const Integers& stride = pool.attribute<Integers>("stride");
  const Integers& padding = pool.attribute<Integers>("padding");
  return {x[1].size(), x[2].size(), x[3].size(), y[2].size(), y[3].size(), window[0],
          window[1],   stride[0],   stride[1],   padding[0],  padding[2]};
}

// Adjacent windows of one size in a row of windows.
struct Windows {
  int64_t row, first, count;             // In the result.
  int64_t x_row, height, column, width;  // The first window in x.

  PoolRow Row(const PoolGeometry& g, const TileRun::Rows& x, const TileRun::Rows& y, int lanes) const {
    return {.x = x.at(0, x_row) + column * lanes,
            .x_step = g.stride_x * lanes,
            .x_row = x.row_step,
            .x_channel = x.channel_step,
            .channels = g.channels,
            .count = count,
            .height = height,
            .width = width,
            .y = y.at(0, row) + first * lanes,
            .y_channel = y.channel_step};
  }
  PoolIndices Indices(const PoolGeometry& g, const TileRun::Rows& at, int lanes) const {
    return {reinterpret_cast<int32_t*>(at.at(0, row)) + first * lanes, at.channel_step,
            static_cast<int32_t>(x_row * g.width + column), static_cast<int32_t>(g.stride_x),
            static_cast<int32_t>(g.width)};
  }
  float Factor(const PoolGeometry& g, bool count_padding) const {
    return 1.0f / static_cast<float>(count_padding ? g.window_y * g.window_x : height * width);
  }
};

// Calls body with the windows of rows [begin, end): all inner windows of a row at once, those at
// the edges one by one.
template <typename Body>
void ForWindowRows(const PoolGeometry& g, int64_t begin, int64_t end, Body body) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t y = i * g.stride_y - g.top;
    const int64_t y0 = std::max<int64_t>(y, 0), y1 = std::min(y + g.window_y, g.height);
    for (int64_t j = 0; j < g.output_width;) {
      const int64_t x = j * g.stride_x - g.left;
      const int64_t x0 = std::max<int64_t>(x, 0), x1 = std::min(x + g.window_x, g.width);
      int64_t count = 1;
      if (x1 - x0 == g.window_x) {
        count = std::min(g.output_width - j, (g.width - g.window_x - x) / g.stride_x + 1);
      }
      body(Windows{i, j, count, y0, y1 - y0, x0, x1 - x0});
      j += count;
    }
  }
}

// Returns the node that computed the indices of a MaxUnpool2D if it is a pool of the same image,
// else null. Its windows contain the indexed elements.
const Node* PoolOfIndices(const BatchNode& at) {
  const Node& pool = at.graph.node(at.node.inputs[1].node);
  const bool fits =
      pool.op->kind == OpKind::kMaxPool2D && at.graph.type(pool.inputs[0]).shape == at.node.outputs[0].shape;
  return fits ? &pool : nullptr;
}

}  // namespace

bool SupportsPool(const BatchNode& at) {
  const Node& node = at.node;
  const bool gradient = node.op->kind == OpKind::kAvgPool2DGrad;
  if (!IsFloat(OperandType(at, 0))) return false;
  const PoolGeometry g = PoolOf(node, gradient ? node.outputs[0].shape : OperandType(at, 0).shape,
                                gradient ? OperandType(at, 0).shape : node.outputs[0].shape);
  // Every window contains an element of x, since shape inference requires padding smaller than the
  // window.
  return g.output_height > 0 && g.output_width > 0;
}

void LowerAvgPool(TileBuilder& builder, const BatchNode& at) {
  const Node* node = &at.node;
  const PoolGeometry g = PoolOf(*node, OperandType(at, 0).shape, node->outputs[0].shape);
  const TileValueId x = builder.Read(node->inputs[0]), y = builder.NewValue(node->outputs[0].shape);
  const bool count_padding = node->attribute<bool>("count_padding");
  builder.Define({node->id, 0}, y);
  TileInstruction instruction{.name = "average", .node = node->id, .reads = {x}, .writes = {y}, .by_rows = {y}};
  if (g.exact_rows()) instruction.by_rows.push_back(x);
  instruction.run = [=](const TileRun& run) {
    const TileRun::Rows from = run.rows(x), to = run.rows(y);
    ForWindowRows(g, to.begin, to.end, [&](const Windows& w) {
      run.kernels.average_row(w.Row(g, from, to, run.lanes), w.Factor(g, count_padding));
    });
  };
  builder.Add(std::move(instruction));
}

void LowerAvgPoolGrad(TileBuilder& builder, const BatchNode& at) {
  const Node* node = &at.node;
  const PoolGeometry g = PoolOf(*node, node->outputs[0].shape, OperandType(at, 0).shape);
  const TileValueId dy = builder.Read(node->inputs[0]);
  const bool count_padding = node->attribute<bool>("count_padding");
  const bool set = g.exact_rows() && g.covers();
  const auto lower = [=, &builder] {
    const TileValueId dx = builder.NewValue(node->outputs[0].shape);
    builder.Define({node->id, 0}, dx);
    TileInstruction instruction{.name = "spread", .node = node->id, .reads = {dy}, .writes = {dx}};
    if (set) instruction.by_rows = {dy, dx};
    instruction.run = [=](const TileRun& run) {
      const TileRun::Rows from = run.rows(dy), to = run.rows(dx);
      if (!set) std::fill_n(run.whole(dx), run.values[dx].elements() * run.lanes, 0.0f);
      ForWindowRows(g, from.begin, from.end, [&](const Windows& w) {
        run.kernels.spread_row(w.Row(g, to, from, run.lanes), w.Factor(g, count_padding), set);
      });
    };
    builder.Add(std::move(instruction));
  };
  if (!set) {
    lower();
    return;
  }
  const float factor = 1.0f / static_cast<float>(g.window_y * g.window_x);
  builder.Defer({node->id, 0}, {dy, g.window_y, g.window_x, factor}, lower);
}

bool LowerBinaryOfSpread(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const Spread* spread = builder.DeferredSpread(node.inputs[0]);
  if (spread == nullptr || !at.batched[1] || node.inputs[0] == node.inputs[1]) return false;
  if (OperandType(at, 0).shape != node.outputs[0].shape || OperandType(at, 1).shape != node.outputs[0].shape)
    return false;
  const TileKernels& kernels = builder.kernels();
  const SpreadLoop* loop = std::find_if(std::begin(kernels.spread_binary), std::end(kernels.spread_binary),
                                        [&](const SpreadLoop& candidate) { return node.op->name == candidate.op; });
  if (loop == std::end(kernels.spread_binary)) return false;
  const Spread s = *spread;
  const TileValueId other = builder.Read(node.inputs[1]), y = builder.NewValue(node.outputs[0].shape);
  builder.Define({node.id, 0}, y);
  builder.Add({.name = absl::StrCat(node.op->name, " of spread"),
               .node = node.id,
               .reads = {s.dy, other},
               .writes = {y},
               .by_rows = {s.dy, other, y},
               .overwrites = {{other, y}},
               .run = [s, other, y, run_loop = loop->run](const TileRun& run) {
                 const TileRun::Rows from = run.rows(s.dy), with = run.rows(other), to = run.rows(y);
                 for (int64_t row = from.begin; row < from.end; ++row) {
                   run_loop({.row = {.x = to.at(0, row * s.height),
                                     .x_step = s.width * run.lanes,
                                     .x_row = to.row_step,
                                     .x_channel = to.channel_step,
                                     .channels = run.values[y].channels,
                                     .count = run.values[s.dy].columns,
                                     .height = s.height,
                                     .width = s.width,
                                     .y = from.at(0, row),
                                     .y_channel = from.channel_step},
                             .factor = s.factor,
                             .other = with.at(0, row * s.height),
                             .other_row = with.row_step,
                             .other_channel = with.channel_step});
                 }
               }});
  return true;
}

void LowerMaxPool(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const PoolGeometry g = PoolOf(node, OperandType(at, 0).shape, node.outputs[0].shape);
  const TileValueId x = builder.Read(node.inputs[0]);
  const TileValueId y = builder.NewValue(node.outputs[0].shape), places = builder.NewValue(node.outputs[1].shape);
  builder.Define({node.id, 0}, y);
  builder.Define({node.id, 1}, places);
  TileInstruction instruction{
      .name = "max", .node = node.id, .reads = {x}, .writes = {y, places}, .by_rows = {y, places}};
  if (g.exact_rows()) instruction.by_rows.push_back(x);
  instruction.run = [=](const TileRun& run) {
    const TileRun::Rows from = run.rows(x), to = run.rows(y), at = run.rows(places);
    ForWindowRows(g, to.begin, to.end, [&](const Windows& w) {
      run.kernels.max_row(w.Row(g, from, to, run.lanes), w.Indices(g, at, run.lanes));
    });
  };
  builder.Add(std::move(instruction));
}

bool SupportsUnpool(const BatchNode& at) {
  return IsFloat(OperandType(at, 0)) && at.batched[0] && at.batched[1] && PoolOfIndices(at) != nullptr;
}

void LowerUnpool(TileBuilder& builder, const BatchNode& at) {
  const Node& node = at.node;
  const PoolGeometry g = PoolOf(*PoolOfIndices(at), node.outputs[0].shape, OperandType(at, 0).shape);
  const TileValueId dy = builder.Read(node.inputs[0]), places = builder.Read(node.inputs[1]);
  const TileValueId dx = builder.NewValue(node.outputs[0].shape);
  const bool set = g.exact_rows() && g.covers();
  builder.Define({node.id, 0}, dx);
  TileInstruction instruction{.name = "unpool", .node = node.id, .reads = {dy, places}, .writes = {dx}};
  if (set) instruction.by_rows = {dy, places, dx};
  instruction.run = [=](const TileRun& run) {
    const TileRun::Rows from = run.rows(dy), at = run.rows(places), to = run.rows(dx);
    if (!set) std::fill_n(run.whole(dx), run.values[dx].elements() * run.lanes, 0.0f);
    ForWindowRows(g, from.begin, from.end, [&](const Windows& w) {
      run.kernels.unpool_row(w.Row(g, to, from, run.lanes), w.Indices(g, at, run.lanes), set);
    });
  };
  builder.Add(std::move(instruction));
}

}  // namespace gradweave
