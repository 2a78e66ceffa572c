#include "gradweave/runtime/cuda/fusion/fused_chain.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {
namespace {

int64_t NumElements(const TensorType& type) { return type.shape.num_elements().size(); }

}  // namespace

std::optional<FusedOp> FindFusedOp(absl::string_view op) {
  static const auto* const kOps = new absl::flat_hash_map<absl::string_view, FusedOp>{
#define GRADWEAVE_ENTRY(takes, name, ...) {#name, FusedOp::k##name},
      GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_ENTRY) GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_ENTRY)
          GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_ENTRY) GRADWEAVE_NUMBERED_FORMULAS(GRADWEAVE_ENTRY)  //
      {"Where", FusedOp::kWhere},
      {"Cast", FusedOp::kCopy},
      {"BroadcastTo", FusedOp::kCopy},
      {"AvgPool2DGrad", FusedOp::kMeanGrad},
#undef GRADWEAVE_ENTRY
  };
  auto found = kOps->find(op);
  return found == kOps->end() ? std::nullopt : std::optional<FusedOp>(found->second);
}

std::optional<FusedReductionKind> FindFusedReduction(absl::string_view op) {
#define GRADWEAVE_ENTRY(name) \
  if (op == #name) return FusedReductionKind::k##name;
  GRADWEAVE_FUSED_REDUCTIONS(GRADWEAVE_ENTRY)
#undef GRADWEAVE_ENTRY
  return std::nullopt;
}

bool IsConstantNumber(const Graph& graph, Port port) {
  return graph.node(port.node).op->kind == OpKind::kConstant && IsFloating(graph.type(port).dtype) &&
         NumElements(graph.type(port)) == 1;
}

bool IsRepeatedMean(const Node& pool_gradient) {
  const Integers& window = pool_gradient.attribute<Integers>("window");
  const Integers& padding = pool_gradient.attribute<Integers>("padding");
  const Shape& x = pool_gradient.outputs[0].shape;
  const int64_t elements = window[0] * window[1];
  return window == pool_gradient.attribute<Integers>("stride") && x[2].size() % window[0] == 0 &&
         x[3].size() % window[1] == 0 && (elements & (elements - 1)) == 0 &&
         std::all_of(padding.begin(), padding.end(), [](int64_t amount) { return amount == 0; });
}

std::optional<DType> FusedDType(const Graph& graph, const Node& node) {
  if (node.outputs.size() != 1 || !FindFusedOp(node.op->name).has_value()) return std::nullopt;
  const TensorType& output = node.outputs[0];
  if (NumElements(output) == 0 || NumElements(output) > INT32_MAX) return std::nullopt;
  if (node.op->kind == OpKind::kAvgPool2DGrad && !IsRepeatedMean(node)) return std::nullopt;
  // A cast to truth values compares with 0.
  if (node.op->kind == OpKind::kCast && output.dtype == kBool) return std::nullopt;
  return FloatingDTypeOf(graph, node);
}

FormulaNumbers FusedNumbers(const Node& node) {
  if (node.op->kind == OpKind::kAvgPool2DGrad) {
    const Integers& window = node.attribute<Integers>("window");
    return {1.0 / static_cast<double>(window[0] * window[1])};
  }
  return NumbersOf(node);
}

namespace {

// Builds the program of a chain.
class ChainBuilder {
 public:
  ChainBuilder(const Graph& graph, const std::vector<NodeId>& nodes, const FusedChainEnds& ends)
      : graph_(graph), nodes_(nodes), ends_(ends) {}

  std::optional<FusedChainProgram> Build() {
    for (int i = FusedProgram::kMostRegisters; i-- > 0;) free_.push_back(static_cast<uint8_t>(i));
    absl::flat_hash_set<Port> own;
    for (NodeId id : nodes_) own.insert({id, 0});
    if (ends_.produced.has_value()) {
      own.insert(*ends_.produced);
      AddOutput(*ends_.produced);
    }
    for (NodeId id : nodes_) {
      if (graph_.node(id).op->kind == OpKind::kAvgPool2DGrad && !AddPooled(graph_.node(id))) return std::nullopt;
      for (Port input : graph_.node(id).inputs) {
        ++uses_[input];
        if (!own.contains(input) && !IsConstantNumber(graph_, input) &&
            std::find(result_.operands.begin(), result_.operands.end(), input) == result_.operands.end())
          result_.operands.push_back(input);
      }
      AddOutput({id, 0});
    }
    for (Port port : ends_.reduced) ++uses_[port];
    if (ends_.pooled.has_value()) ++uses_[*ends_.pooled];
    if (result_.operands.size() + result_.outputs.size() > FusedProgram::kMostTensors) return std::nullopt;
    if (!AddAxes(graph_.type(ends_.produced.value_or(Port{nodes_.empty() ? 0 : nodes_[0], 0})).shape))
      return std::nullopt;
    if (ends_.produced.has_value()) {
      registers_[*ends_.produced] = free_.back();
      free_.pop_back();
      if (!Add({FusedOp::kProduced, registers_[*ends_.produced]})) return std::nullopt;
    }
    for (NodeId id : nodes_) {
      if (!AddNode(graph_.node(id))) return std::nullopt;
    }
    for (size_t i = 0; i < result_.outputs.size(); ++i) {
      const Port port = result_.outputs[i];
      const FusedOp op = graph_.type(port).dtype == kBool ? FusedOp::kStoreBool : FusedOp::kStore;
      if (!Add({op, 0, static_cast<uint8_t>(result_.operands.size() + i), registers_[port]})) return std::nullopt;
    }
    for (size_t i = 0; i < ends_.reduced.size(); ++i) {
      if (!Add({FusedOp::kReduce, 0, static_cast<uint8_t>(i), registers_[ends_.reduced[i]]})) return std::nullopt;
    }
    if (ends_.pooled.has_value() && !Add({FusedOp::kPool, 0, 0, registers_[*ends_.pooled]})) return std::nullopt;
    return result_;
  }

 private:
  // All pooled operands must share one window.
  bool AddPooled(const Node& gradient) {
    const Integers& window = gradient.attribute<Integers>("window");
    if (!pooled_.empty() && window != window_) return false;
    window_ = window;
    pooled_.insert(gradient.inputs[0]);
    return true;
  }

  void AddOutput(Port port) {
    if (!ends_.outputs.contains(port)) return;
    ++uses_[port];
    result_.outputs.push_back(port);
  }

  bool AddNode(const Node& node) {
    FusedInstruction instruction{*FindFusedOp(node.op->name)};
    uint8_t sources[3] = {0, 0, 0};
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (!Load(node.inputs[i], NumElements(node.outputs[0]))) return false;
      sources[i] = registers_[node.inputs[i]];
    }
    instruction.a = sources[0];
    instruction.b = sources[1];
    instruction.c = sources[2];
    FusedProgram& program = result_.program;
    if (const auto numbers = FusedNumbers(node); !numbers.empty()) {
      instruction.c = static_cast<uint8_t>(program.num_numbers);
      if (program.num_numbers + static_cast<int>(numbers.size()) > FusedProgram::kMostNumbers) return false;
      for (double number : numbers) program.numbers[program.num_numbers++] = number;
    }
    for (Port input : node.inputs) {
      if (--uses_[input] == 0) free_.push_back(registers_[input]);
    }
    if (free_.empty()) return false;
    instruction.to = registers_[{node.id, 0}] = free_.back();
    free_.pop_back();
    // Dead-node elimination has removed results that nothing reads.
    return Add(instruction);
  }

  // Returns the load instruction for an operand of a result with `total` elements.
  static FusedOp LoadOf(const TensorType& type, int64_t total) {
    const int64_t elements = NumElements(type);
    if (type.dtype == kBool) return elements == total ? FusedOp::kLoadBool : FusedOp::kLoadBroadcastBool;
    return elements == total ? FusedOp::kLoad : elements == 1 ? FusedOp::kLoadNumber : FusedOp::kLoadBroadcast;
  }

  // Adds the axes along which operands broadcast, and their strides. Returns false if there are too
  // many axes.
  bool AddAxes(const Shape& result) {
    FusedProgram& program = result_.program;
    std::vector<std::pair<size_t, const Shape*>> broadcast;
    for (size_t i = 0; i < result_.operands.size(); ++i) {
      const TensorType& type = graph_.type(result_.operands[i]);
      const FusedOp op = LoadOf(type, result.num_elements().size());
      if (op == FusedOp::kLoadBroadcast || op == FusedOp::kLoadBroadcastBool) broadcast.push_back({i, &type.shape});
    }
    if (broadcast.empty()) return true;
    // Collect from the innermost axis outwards, and reverse at the end.
    std::vector<int64_t> next(broadcast.size(), 1);  // Elements of each operand in the axes so far.
    for (int axis = result.rank() - 1; axis >= 0; --axis) {
      // First the positions within a window, then the windows.
      const int side = axis - (result.rank() - 2);
      const int64_t within = pooled_.empty() || side < 0 ? 1 : window_[side];
      for (const auto& [size, is_within] : {std::pair(within, true), std::pair(result[axis].size() / within, false)}) {
        if (size == 1) continue;
        std::vector<int64_t> strides(broadcast.size(), 0);
        for (size_t k = 0; k < broadcast.size(); ++k) {
          const Shape& shape = *broadcast[k].second;
          const int own = axis - (result.rank() - shape.rank());
          if (own < 0 || shape[own].size() == 1) continue;
          if (is_within && pooled_.contains(result_.operands[broadcast[k].first])) continue;
          strides[k] = next[k];
          next[k] *= size;
        }
        const int inner = program.num_axes - 1;
        bool joins = inner >= 0;
        for (size_t k = 0; k < broadcast.size() && joins; ++k) {
          joins = strides[k] == int64_t{program.strides[broadcast[k].first][inner]} * program.sizes[inner];
        }
        if (joins) {
          program.sizes[inner] *= static_cast<uint32_t>(size);
          continue;
        }
        if (program.num_axes == FusedProgram::kMostAxes) return false;
        program.sizes[program.num_axes] = static_cast<uint32_t>(size);
        for (size_t k = 0; k < broadcast.size(); ++k) {
          program.strides[broadcast[k].first][program.num_axes] = static_cast<uint32_t>(strides[k]);
        }
        ++program.num_axes;
      }
    }
    std::reverse(program.sizes, program.sizes + program.num_axes);
    for (const auto& [operand, shape] : broadcast) {
      std::reverse(program.strides[operand], program.strides[operand] + program.num_axes);
    }
    return true;
  }

  // Loads an operand of the chain into a register unless it is in one already.
  bool Load(Port port, int64_t total) {
    if (registers_.contains(port)) return true;
    if (free_.empty()) return false;
    if (IsConstantNumber(graph_, port)) {
      FusedProgram& program = result_.program;
      if (program.num_numbers == FusedProgram::kMostNumbers) return false;
      program.numbers[program.num_numbers] = graph_.node(port.node).attribute<Tensor>("value").ToDouble();
      registers_[port] = free_.back();
      free_.pop_back();
      return Add({FusedOp::kNumber, registers_[port], 0, 0, static_cast<uint8_t>(program.num_numbers++)});
    }
    const auto tensor = std::find(result_.operands.begin(), result_.operands.end(), port) - result_.operands.begin();
    registers_[port] = free_.back();
    free_.pop_back();
    return Add({LoadOf(graph_.type(port), total), registers_[port], static_cast<uint8_t>(tensor)});
  }

  bool Add(FusedInstruction instruction) {
    FusedProgram& program = result_.program;
    if (program.count == FusedProgram::kMostInstructions) return false;
    program.instructions[program.count++] = instruction;
    return true;
  }

  const Graph& graph_;
  const std::vector<NodeId>& nodes_;
  const FusedChainEnds& ends_;
  absl::flat_hash_set<Port> pooled_;  // Operands with one element for each window.
  Integers window_;
  FusedChainProgram result_;
  absl::flat_hash_map<Port, int> uses_;
  absl::flat_hash_map<Port, uint8_t> registers_;
  std::vector<uint8_t> free_;
};

}  // namespace

std::optional<FusedChainProgram> BuildFusedChain(const Graph& graph, const std::vector<NodeId>& nodes,
                                                 const FusedChainEnds& ends) {
  return ChainBuilder(graph, nodes, ends).Build();
}

}  // namespace gradweave
