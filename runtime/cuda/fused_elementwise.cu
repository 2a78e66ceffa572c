// Groups of elementwise chains: a program is interpreted, each instruction for some elements of every thread at once.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "gradweave/runtime/cuda/device.h"
#include "gradweave/runtime/cuda/factories.h"
#include "gradweave/runtime/cuda/fusion.h"
#include "gradweave/runtime/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Elements for which a thread decodes an instruction, and elements of a block: enough that short tensors fill a GPU.
constexpr int kElements = 4, kPerBlock = kBlock * kElements * 2;

// One chain's tensors, operands before outputs; its blocks are [first_block, next's first_block).
struct Instance {
  void* tensors[FusedProgram::kMostTensors];
  uint32_t total, first_block;
};

// The chains of one program, as many as fit into a kernel's parameters, which are 4 KiB.
constexpr int kMostInstances = 30;
struct Instances {
  int32_t count;
  Instance chains[kMostInstances];
};
static_assert(sizeof(FusedProgram) + sizeof(Instances) <= 4096);

template <typename T>
struct Registers {
  T values[FusedProgram::kMostRegisters][kElements];
};

template <typename T, typename Formula>
__device__ void ApplyUnary(Registers<T>& r, FusedInstruction i, Formula formula) {
  for (int k = 0; k < kElements; ++k) r.values[i.to][k] = formula(r.values[i.a][k]);
}
template <typename T, typename Formula>
__device__ void ApplyBinary(Registers<T>& r, FusedInstruction i, Formula formula) {
  for (int k = 0; k < kElements; ++k) r.values[i.to][k] = static_cast<T>(formula(r.values[i.a][k], r.values[i.b][k]));
}

// One instruction for the elements from `at` on; those beyond total are the last one again, and are not stored.
template <typename T>
__device__ void Execute(FusedInstruction i, const double* numbers, const Instance& chain, uint32_t at,
                        Registers<T>& r) {
  const uint32_t last = chain.total - 1;
  switch (i.op) {
    case FusedOp::kNumber:
      for (int k = 0; k < kElements; ++k) r.values[i.to][k] = static_cast<T>(numbers[i.c]);
      break;
    case FusedOp::kLoad: {
      const T* x = static_cast<const T*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements; ++k) r.values[i.to][k] = x[at + k * kBlock < last ? at + k * kBlock : last];
      break;
    }
    case FusedOp::kLoadNumber: {
      const T x = *static_cast<const T*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements; ++k) r.values[i.to][k] = x;
      break;
    }
    case FusedOp::kLoadBool: {
      const bool* x = static_cast<const bool*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements; ++k) {
        r.values[i.to][k] = static_cast<T>(x[at + k * kBlock < last ? at + k * kBlock : last]);
      }
      break;
    }
    case FusedOp::kStore: {
      T* y = static_cast<T*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements && at + k * kBlock <= last; ++k) y[at + k * kBlock] = r.values[i.b][k];
      break;
    }
    case FusedOp::kStoreBool: {
      bool* y = static_cast<bool*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements && at + k * kBlock <= last; ++k) y[at + k * kBlock] = r.values[i.b][k] != T(0);
      break;
    }
#define GRADWEAVE_CASE(name)            \
  case FusedOp::k##name:                \
    ApplyUnary(r, i, formulas::name()); \
    break;
      GRADWEAVE_FUSED_UNARY(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
#define GRADWEAVE_CASE(name)             \
  case FusedOp::k##name:                 \
    ApplyBinary(r, i, formulas::name()); \
    break;
      GRADWEAVE_FUSED_BINARY(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
    case FusedOp::kWhere:
      for (int k = 0; k < kElements; ++k) {
        r.values[i.to][k] = r.values[i.a][k] != T(0) ? r.values[i.b][k] : r.values[i.c][k];
      }
      break;
    case FusedOp::kLeakyRelu:
      ApplyUnary(r, i, formulas::LeakyRelu<T>{static_cast<T>(numbers[i.c])});
      break;
    case FusedOp::kElu:
      ApplyUnary(r, i, formulas::Elu<T>{static_cast<T>(numbers[i.c])});
      break;
    case FusedOp::kClip:
      ApplyUnary(r, i, formulas::Clip<T>{static_cast<T>(numbers[i.c]), static_cast<T>(numbers[i.c + 1])});
      break;
    case FusedOp::kCopy:
      ApplyUnary(r, i, formulas::StopGradient());
      break;
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock)
    FusedElements(const __grid_constant__ FusedProgram program, const __grid_constant__ Instances instances) {
  int chain = 0;
  while (chain + 1 < instances.count && instances.chains[chain + 1].first_block <= blockIdx.x) ++chain;
  const Instance& own = instances.chains[chain];
  const uint32_t begin = (blockIdx.x - own.first_block) * kPerBlock;
  Registers<T> registers;
  for (uint32_t start = begin; start < begin + kPerBlock; start += kBlock * kElements) {
    // Neighbouring threads have neighbouring elements.
    const uint32_t at = start + threadIdx.x;
    if (at >= own.total) return;
    for (int i = 0; i < program.count; ++i) Execute(program.instructions[i], program.numbers, own, at, registers);
  }
}

bool SameProgram(const FusedChain& a, const FusedChain& b) {
  return a.dtype == b.dtype && a.program.count == b.program.count && a.program.num_numbers == b.program.num_numbers &&
         std::equal(a.program.instructions, a.program.instructions + a.program.count, b.program.instructions) &&
         std::equal(a.program.numbers, a.program.numbers + a.program.num_numbers, b.program.numbers);
}

// What is launched together.
struct Batch {
  DType dtype;
  FusedProgram program;
  struct Member {
    std::vector<int> operands, outputs;
    uint32_t total, first_block;
  };
  std::vector<Member> members;
  uint32_t blocks = 0;
};

std::vector<Batch> BatchesOf(const FusedGroup& group) {
  std::vector<Batch> batches;
  std::vector<const FusedChain*> of_batch;
  for (const FusedChain& chain : group.chains) {
    size_t k = 0;
    while (k < batches.size() &&
           (!SameProgram(*of_batch[k], chain) || batches[k].members.size() == size_t{kMostInstances}))
      ++k;
    if (k == batches.size()) {
      batches.push_back({chain.dtype, chain.program});
      of_batch.push_back(&chain);
    }
    Batch& batch = batches[k];
    batch.members.push_back({chain.operands, chain.outputs, static_cast<uint32_t>(chain.total), batch.blocks});
    batch.blocks += static_cast<uint32_t>((chain.total + kPerBlock - 1) / kPerBlock);
  }
  return batches;
}

}  // namespace

Kernel MakeFusedKernel(const Graph& graph, const FusedGroup& group) {
  auto batches = std::make_shared<const std::vector<Batch>>(BatchesOf(group));
  Kernel kernel{.name = "fused_elements"};
  kernel.run = [batches](const KernelArguments& arguments) {
    for (const Batch& batch : *batches) {
      Instances instances;
      instances.count = static_cast<int32_t>(batch.members.size());
      for (size_t k = 0; k < batch.members.size(); ++k) {
        const Batch::Member& member = batch.members[k];
        Instance& instance = instances.chains[k];
        instance.total = member.total;
        instance.first_block = member.first_block;
        int tensor = 0;
        for (int i : member.operands) instance.tensors[tensor++] = const_cast<void*>(arguments.operands[i]);
        for (int i : member.outputs) instance.tensors[tensor++] = arguments.outputs[i];
      }
      auto fused = batch.dtype == kFloat32 ? FusedElements<float> : FusedElements<double>;
      GW_RETURN_IF_ERROR(
          Launch(*arguments.cuda, "fused_elements", fused, {batch.blocks}, {kBlock}, 0, batch.program, instances));
    }
    return absl::OkStatus();
  };
  std::vector<int> readers(group.operands.size(), 0);
  for (const FusedChain& chain : group.chains) {
    for (int operand : chain.operands) ++readers[operand];
  }
  for (const FusedChain& chain : group.chains) {
    for (int output : chain.outputs) {
      for (int operand : chain.operands) {
        const TensorType& from = graph.type(group.operands[operand]);
        const TensorType& to = graph.type(group.outputs[output]);
        if (readers[operand] == 1 && from.dtype == to.dtype && from.shape == to.shape)
          kernel.overwrites.push_back({operand, output});
      }
    }
  }
  for (NodeId id : group.nodes) {
    const Node& node = graph.node(id);
    const TensorTypes operands = graph.OperandTypes(node);
    const double flops =
        node.op->flops == nullptr ? 0 : node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
    kernel.parts.push_back({"fused", id, flops});
  }
  return kernel;
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
