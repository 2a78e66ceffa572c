#include "gradweave/runtime/cpu/rows/row_lowering.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace gradweave {
namespace {

// Maximum number of operands that are offered for an output to overwrite, since the planner
// searches all offers.
constexpr size_t kMostOverwrites = 4;

// y = x, or a single element as often as y has elements.
template <typename T>
void Stretch(const LoopOperand* operands, void* y, int64_t n, const double*) {
  const T* x = static_cast<const T*>(operands[0].data);
  T* to = static_cast<T*>(y);
  if (operands[0].is_vector) {
    std::copy(x, x + n, to);
  } else {
    std::fill(to, to + n, *x);
  }
}

// Returns the loop of an elementwise node. A Cast to truth values is a comparison with 0, and a
// Cast from them a choice between 1 and 0.
LoopFunction FindLoop(const Graph& graph, const Node& node) {
  const DType dtype = FloatingDTypeOf(graph, node).value_or(kBool);
  if (node.op->kind == OpKind::kBroadcastTo) return dtype == kFloat32 ? Stretch<float> : Stretch<double>;
  if (node.op->kind != OpKind::kCast) return FindElementLoop(node.op->name, dtype).run;
  return FindElementLoop(node.outputs[0].dtype == kBool ? "NotEqual" : "Where", dtype).run;
}

// Indexed by value: the instruction that computes it, the last one that reads it, and its output.
// Indexed by value and the way in which it is read: its operand.
struct RegionValues {
  absl::flat_hash_map<Port, int> maker, last_read, output_of;
  absl::flat_hash_map<RowRegion::Operand, int> operand_of;
};

// Places that no later instruction reads: operands, which an output may overwrite, and scratch
// slots. Index 0 has places of rows, index 1 those of one number per row.
struct FreePlaces {
  std::vector<int> operands[2], slots[2];

  static void Append(const std::vector<int> (&from)[2], std::vector<int> (&to)[2]) {
    for (int i : {0, 1}) to[i].insert(to[i].end(), from[i].begin(), from[i].end());
  }
  void AppendOperands(const FreePlaces& other) { Append(other.operands, operands); }
  void AppendSlots(const FreePlaces& other) { Append(other.slots, slots); }
};

RegionValues FindValues(const RowRegion& region) {
  RegionValues values;
  for (size_t i = 0; i < region.nodes.size(); ++i) {
    values.maker[{region.nodes[i].node, 0}] = static_cast<int>(i);
    for (const RowRegion::Operand& operand : region.nodes[i].operands)
      values.last_read[operand.port] = static_cast<int>(i);
  }
  for (size_t i = 0; i < region.outputs.size(); ++i) values.output_of[region.outputs[i].port] = static_cast<int>(i);
  for (size_t i = 0; i < region.operands.size(); ++i) {
    const RowRegion::Operand& operand = region.operands[i];
    values.operand_of[operand] = static_cast<int>(i);
  }
  return values;
}

class RowLowering {
 public:
  RowLowering(const Graph& graph, const RowRegion& region, absl::Span<const RowWindow> windows)
      : graph_(graph),
        region_(region),
        windows_(windows),
        values_(FindValues(region)),
        element_bytes_(static_cast<int64_t>(DTypeSize(region.dtype))) {}

  RowCode Run(bool by_samples);

 private:
  int64_t BytesOf(Port port) const { return static_cast<int64_t>(DTypeSize(graph_.type(port).dtype)); }
  RowInstruction MakeInstruction(const RowRegion::Member& member) const;
  // Adds the places of the instruction's operands, and returns those that it is the last to read.
  FreePlaces PlaceOperands(const RowRegion::Member& member, RowInstruction& instruction);
  // Adds the numbers 1 and 0, or 0, that FindLoop needs.
  void AddNumbersOfCast(RowInstruction& instruction) const;
  // Chooses the place of the result, whose size of an element is set. `period` is the number of its
  // elements.
  void PlaceResult(const RowRegion::Member& member, int64_t period, FreePlaces& free, RowPlace& result);
  void FindProductOutput();

  const Graph& graph_;
  const RowRegion& region_;
  const absl::Span<const RowWindow> windows_;
  const RegionValues values_;
  const int64_t element_bytes_;
  RowCode code_;
};

RowInstruction RowLowering::MakeInstruction(const RowRegion::Member& member) const {
  const Node& node = graph_.node(member.node);
  RowInstruction instruction{.action = RowAction::kElements, .node = member.node, .name = node.op->name};
  if (node.op->flops != nullptr) {
    const TensorTypes types = graph_.OperandTypes(node);
    instruction.flops = node.op->flops(OpView(*node.op, node.attributes, types), node.outputs);
  }
  if (node.op->elementwise) {
    instruction.loop = FindLoop(graph_, node);
    instruction.numbers = NumbersOf(node);
  } else if (node.op->kind == OpKind::kSoftmax) {
    instruction.action = RowAction::kSoftmax;
  } else if (node.op->kind == OpKind::kMax) {
    instruction.action = RowAction::kRowMax;
  } else {
    instruction.action = member.result == RowExtent::kPerColumn ? RowAction::kSumRows : RowAction::kRowSum;
  }
  return instruction;
}

FreePlaces RowLowering::PlaceOperands(const RowRegion::Member& member, RowInstruction& instruction) {
  const int position = static_cast<int>(code_.instructions.size());
  FreePlaces last_read;
  for (size_t k = 0; k < member.operands.size(); ++k) {
    const RowRegion::Operand& operand = member.operands[k];
    const bool is_last_read = values_.last_read.at(operand.port) == position;
    if (const auto made = values_.maker.find(operand.port); made != values_.maker.end()) {
      const RowPlace& place = code_.instructions[made->second].result;
      instruction.operands.push_back(place);
      const bool again = std::any_of(member.operands.begin(), member.operands.begin() + k,
                                     [&](const RowRegion::Operand& other) { return other.port == operand.port; });
      if (place.kind == RowPlace::kScratch && is_last_read && !again)
        last_read.slots[place.extent != RowExtent::kFull].push_back(place.index);
    } else {
      const int index = values_.operand_of.at(operand);
      const int64_t bytes = BytesOf(operand.port);
      const RowWindow window = windows_.empty() ? RowWindow() : windows_[index];
      instruction.operands.push_back({.kind = RowPlace::kOperand,
                                      .index = index,
                                      .extent = operand.extent,
                                      .bytes = bytes,
                                      .repeat = operand.repeat,
                                      .period = operand.period,
                                      .window = window});
      const bool has_rows = operand.extent == RowExtent::kFull || operand.extent == RowExtent::kPerRow;
      if (has_rows && bytes == element_bytes_ && is_last_read && window.step == 0)
        last_read.operands[operand.extent != RowExtent::kFull].push_back(index);
    }
  }
  return last_read;
}

void RowLowering::AddNumbersOfCast(RowInstruction& instruction) const {
  const bool from_truths = instruction.operands[0].bytes == 1;
  for (int number = from_truths ? 1 : 0; number >= 0; --number)
    instruction.operands.push_back(
        {.kind = RowPlace::kNumber, .index = number, .extent = RowExtent::kScalar, .bytes = element_bytes_});
}

void RowLowering::PlaceResult(const RowRegion::Member& member, int64_t period, FreePlaces& free, RowPlace& result) {
  result.extent = member.result;
  const bool is_full = member.result == RowExtent::kFull;
  const auto output = values_.output_of.find({member.node, 0});
  if (member.result == RowExtent::kPerColumn) {
    result.kind = RowPlace::kPartial;
    result.offset = static_cast<int64_t>(code_.sums.size()) * region_.columns;
    code_.sums.push_back({output->second, result.offset});
  } else if (member.result == RowExtent::kPerRowPeriodic) {
    result.kind = RowPlace::kRowSums;
    result.extent = RowExtent::kPerRow;
    result.offset = static_cast<int64_t>(code_.row_sums.size()) * region_.rows;
    code_.row_sums.push_back({output->second, result.offset, period});
  } else if (output != values_.output_of.end()) {
    result.kind = RowPlace::kOutput;
    result.index = output->second;
    const std::vector<int>& choices = free.operands[!is_full];
    const bool may_overwrite = result.bytes == element_bytes_ && result.index != code_.product_output;
    const size_t number = may_overwrite ? std::min(choices.size(), kMostOverwrites) : 0;
    for (size_t c = choices.size() - number; c < choices.size(); ++c)
      code_.overwrites.push_back({choices[c], result.index});
    code_.streams += is_full;
  } else {
    result.kind = RowPlace::kScratch;
    std::vector<int>& slots = free.slots[!is_full];
    if (slots.empty()) slots.push_back(is_full ? code_.full_slots++ : code_.number_slots++);
    result.index = slots.back();
    slots.pop_back();
  }
}

// Finds an output whose memory the convolution may use for its result: the first output that is
// computed by the last reader of the result, or later.
void RowLowering::FindProductOutput() {
  const int last_read = values_.last_read.at({region_.nodes[0].node, 0});
  for (size_t i = last_read; i < region_.nodes.size() && code_.product_output < 0; ++i) {
    const Port port = {region_.nodes[i].node, 0};
    const auto output = values_.output_of.find(port);
    const bool fits = region_.nodes[i].result == RowExtent::kFull && BytesOf(port) == element_bytes_;
    if (fits && output != values_.output_of.end()) code_.product_output = output->second;
  }
}

RowCode RowLowering::Run(bool by_samples) {
  for (const RowRegion::Operand& operand : region_.operands) code_.streams += operand.extent == RowExtent::kFull;
  if (by_samples) FindProductOutput();
  FreePlaces free;
  for (const RowRegion::Member& member : region_.nodes) {
    RowInstruction instruction = MakeInstruction(member);
    if (code_.instructions.empty() && region_.has_producer) {
      instruction.action = RowAction::kProduct;
      instruction.result = {.kind = RowPlace::kProduct, .bytes = element_bytes_};
      for (const RowRegion::Operand& operand : member.operands)
        code_.product_operands.push_back(values_.operand_of.at(operand));
    } else {
      const FreePlaces last_read = PlaceOperands(member, instruction);
      if (graph_.node(member.node).op->kind == OpKind::kCast) AddNumbersOfCast(instruction);
      RowPlace& result = instruction.result;
      result.bytes = BytesOf({member.node, 0});
      free.AppendOperands(last_read);
      // The result may lie where an operand does, if their elements have one size.
      const bool one_size = std::all_of(instruction.operands.begin(), instruction.operands.end(),
                                        [&](const RowPlace& place) { return place.bytes == result.bytes; });
      if (one_size) free.AppendSlots(last_read);
      PlaceResult(member, graph_.node(member.node).outputs[0].shape.num_elements().size(), free, result);
      if (!one_size) free.AppendSlots(last_read);
    }
    code_.instructions.push_back(std::move(instruction));
  }
  return std::move(code_);
}

}  // namespace

RowCode LowerRows(const Graph& graph, const RowRegion& region, bool by_samples, absl::Span<const RowWindow> windows) {
  return RowLowering(graph, region, windows).Run(by_samples);
}

}  // namespace gradweave
