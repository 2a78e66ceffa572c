// Collection of a region's values and instructions (TileBuilder of tile_program.h).
#include <algorithm>
#include <cstring>
#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"

namespace gradweave {
namespace {

// Returns the sizes of a sample's tensor as channels, rows and columns.
TileValue ViewOf(const Shape& shape_with_batch) {
  TileValue value;
  const int rank = shape_with_batch.rank();
  for (int axis = 1; axis < rank; ++axis) {
    int64_t& size = axis == rank - 1 ? value.columns : axis == rank - 2 ? value.rows : value.channels;
    size *= shape_with_batch[axis].size();
  }
  return value;
}

}  // namespace

TileBuilder::TileBuilder(const RegionRequest& request)
    : graph_(request.graph),
      region_(request.region),
      tiled_operands_(request.tiled_operands),
      kernels_(GetTileKernels(LanesOfTiles(request.region.batch))),
      toom_cook_(request.toom_cook) {}

TileValueId TileBuilder::NewValue(const Shape& shape_with_batch) {
  const TileValue view = ViewOf(shape_with_batch);
  return NewValue(view.channels, view.rows, view.columns);
}

TileValueId TileBuilder::NewValue(int64_t channels, int64_t rows, int64_t columns) {
  TileValue value;
  value.channels = channels;
  value.rows = value.stored_rows = rows;
  value.columns = columns;
  value.root = static_cast<int>(values_.size());
  values_.push_back(value);
  return value.root;
}

TileValueId TileBuilder::Alias(TileValueId of, const Shape& shape_with_batch) {
  const TileValueId id = NewValue(shape_with_batch);
  values_[id].root = values_[of].root;
  return id;
}

int TileBuilder::Operand(Port port, bool batched) const {
  const auto& operands = region_.operands;
  const auto found = std::find(operands.begin(), operands.end(), BatchRegion::Operand{port, batched});
  GW_CHECK(found != operands.end(), graph_.node(port.node).display_name());
  return static_cast<int>(found - operands.begin());
}

TileValueId TileBuilder::Defined(Port port) const {
  auto found = of_port_.find(port);
  return found == of_port_.end() ? -1 : found->second;
}

TileValueId TileBuilder::Read(Port port) {
  if (const TileValueId known = Defined(port); known >= 0) return known;
  if (auto deferred = deferred_.find(port); deferred != deferred_.end()) {
    deferred->second.lower();
    return Defined(port);
  }
  const int operand = Operand(port, true);
  const TileValueId id = NewValue(graph_.type(port).shape);
  Define(port, id);
  if (tiled_operands_[operand]) {
    values_[id].place = TileValue::Place::kOperand;
    values_[id].index = operand;
    return id;
  }
  const int64_t elements = values_[id].elements();
  Add({.name = "load", .node = port.node, .writes = {id}, .run = [id, operand, elements](const TileRun& run) {
         const float* samples = static_cast<const float*>(run.operands[operand]);
         run.kernels.gather_lanes(samples + run.first_sample * elements, elements, run.samples, elements,
                                  run.whole(id));
       }});
  return id;
}

TileValueId TileBuilder::Padded(TileValueId x, int64_t top, int64_t left, int64_t rows, int64_t columns, NodeId node) {
  const TileValue& from = values_[x];
  if (top == 0 && left == 0 && rows == from.rows && columns == from.columns) return x;
  const auto [known, is_new] = padded_.emplace(std::vector<int64_t>{x, top, left, rows, columns}, -1);
  if (!is_new) return known->second;
  const int64_t channels = from.channels;
  const TileValueId to = known->second = NewValue(channels, rows, columns);
  // The part of x that lies inside the result.
  const int64_t first_column = std::max<int64_t>(0, -left);
  const int64_t count = std::min(values_[x].columns, columns - left) - first_column;
  Add({.name = "pad",
       .node = node,
       .reads = {x},
       .writes = {to},
       .by_rows = {x},
       .run =
           [=](const TileRun& run) {
             if (count <= 0) return;
             const TileRun::Rows source = run.rows(x);
             float* target = run.whole(to) + (left + first_column) * run.lanes;
             for (int64_t c = 0; c < channels; ++c) {
               for (int64_t r = std::max(source.begin, -top); r < std::min(source.end, rows - top); ++r) {
                 std::memcpy(target + (c * rows + r + top) * columns * run.lanes,
                             source.at(c, r) + first_column * run.lanes, count * run.lanes * sizeof(float));
               }
             }
           },
       .begin =
           [=](const TileRun& run) {
             // Clears the elements that no row of x covers.
             const TileValue& inside = run.values[x];
             float* target = run.whole(to);
             auto clear = [&](int64_t row, int64_t begin, int64_t end) {
               if (begin < end)
                 std::memset(target + (row * columns + begin) * run.lanes, 0,
                             (end - begin) * run.lanes * sizeof(float));
             };
             for (int64_t c = 0; c < channels; ++c) {
               for (int64_t r = 0; r < rows; ++r) {
                 const bool covered = r >= top && r < top + inside.rows && count > 0;
                 clear(c * rows + r, 0, covered ? left + first_column : columns);
                 if (covered) clear(c * rows + r, left + first_column + count, columns);
               }
             }
           }});
  return to;
}

int64_t TileBuilder::AddPrepared(int64_t floats) {
  const int64_t place = prepared_floats_;
  prepared_floats_ += (floats + 15) / 16 * 16;
  return place;
}

void TileBuilder::StoreOutput(Port port, int output, bool tiled) {
  const TileValueId id = Read(port);
  TileValue& value = values_[id];
  if (tiled && value.root == id && value.place == TileValue::Place::kMemory) {
    value.place = TileValue::Place::kOutput;
    value.index = output;
    return;
  }
  const int64_t elements = value.elements();
  Add({.name = "store", .node = port.node, .reads = {id}, .run = [=](const TileRun& run) {
         float* samples = static_cast<float*>(run.outputs[output]);
         if (tiled) {
           std::memcpy(samples + run.tile * elements * run.lanes, run.whole(id), elements * run.lanes * sizeof(float));
         } else {
           run.kernels.scatter_lanes(run.whole(id), elements, run.samples, samples + run.first_sample * elements,
                                     elements);
         }
       }});
}

int64_t TileBuilder::AddSums(Port port, int64_t elements, Finish finish) {
  sums_.push_back({port, false, sums_elements_, elements, std::move(finish)});
  sums_elements_ += elements;
  return sums_.back().offset * lanes();
}

int64_t TileBuilder::AddFoldedSums(Port port, int64_t elements, Finish finish) {
  sums_.push_back({port, true, folded_elements_, elements, std::move(finish)});
  folded_elements_ += elements;
  return sums_.back().offset * kernels_.folded_lanes;
}

}  // namespace gradweave
