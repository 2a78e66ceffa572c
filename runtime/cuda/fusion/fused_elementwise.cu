// Groups of elementwise chains. A program without a generated kernel is interpreted: each
// instruction runs for several elements of every thread. Chains that end in reductions are in
// fused_reduction.cu, rows in row_kernel.cc and convolutions in conv_kernel.cc.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "gradweave/runtime/cuda/api/loaded_kernel.h"
#include "gradweave/runtime/cuda/fusion/conv_kernel.h"
#include "gradweave/runtime/cuda/fusion/fused_kernel.h"
#include "gradweave/runtime/cuda/fusion/fused_reduction.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/row_kernel.h"
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

constexpr int kElements = 4;  // Elements for which a thread decodes an instruction once.

// Divisors for a program's axes.
struct Dividers {
  Divider sizes[FusedProgram::kMostAxes];
};

static_assert(kFusedThreads == kBlock && kFusedPerBlock % (kBlock * kElements) == 0);
static_assert(sizeof(FusedProgram) + sizeof(Dividers) + sizeof(FusedInstances) <= 4096 &&
                  sizeof(FusedParameters<double>) <= 4096,
              "a kernel has 4 KiB of parameters");

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

// Returns the index of a broadcast tensor's element for an element of the result.
__device__ uint32_t BroadcastOffset(const FusedProgram& program, const Dividers& dividers, int tensor,
                                    uint32_t element) {
  uint32_t offset = 0;
  for (int axis = program.num_axes - 1; axis >= 0; --axis) {
    uint32_t index = element;
    element = dividers.sizes[axis].Split(index);
    offset += index * program.strides[tensor][axis];
  }
  return offset;
}

// Executes one instruction for the elements from `at` on. Elements beyond the total repeat the last
// one and are not stored.
template <typename T>
__device__ void Execute(FusedInstruction i, const FusedProgram& program, const Dividers& dividers,
                        const FusedInstance& chain, uint32_t at, Registers<T>& r) {
  const double* numbers = program.numbers;
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
    case FusedOp::kLoadBroadcast: {
      const T* x = static_cast<const T*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements; ++k) {
        const uint32_t element = at + k * kBlock < last ? at + k * kBlock : last;
        r.values[i.to][k] = x[BroadcastOffset(program, dividers, i.a, element)];
      }
      break;
    }
    case FusedOp::kLoadBroadcastBool: {
      const bool* x = static_cast<const bool*>(chain.tensors[i.a]);
      for (int k = 0; k < kElements; ++k) {
        const uint32_t element = at + k * kBlock < last ? at + k * kBlock : last;
        r.values[i.to][k] = static_cast<T>(x[BroadcastOffset(program, dividers, i.a, element)]);
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
#define GRADWEAVE_CASE(takes, name, ...) \
  case FusedOp::k##name:                 \
    ApplyUnary(r, i, formulas::name());  \
    break;
      GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
#define GRADWEAVE_CASE(takes, name, ...) \
  case FusedOp::k##name:                 \
    ApplyBinary(r, i, formulas::name()); \
    break;
      GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_CASE)
      GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
#define GRADWEAVE_CASE(takes, name, ...)                                                  \
  case FusedOp::k##name:                                                                  \
    ApplyUnary(r, i, formulas::WithNumbers<formulas::name<T>, T>(program.numbers + i.c)); \
    break;
      GRADWEAVE_NUMBERED_FORMULAS(GRADWEAVE_CASE)
#undef GRADWEAVE_CASE
    case FusedOp::kWhere:
      for (int k = 0; k < kElements; ++k) {
        r.values[i.to][k] = r.values[i.a][k] != T(0) ? r.values[i.b][k] : r.values[i.c][k];
      }
      break;
    case FusedOp::kMeanGrad: {
      const T share = static_cast<T>(numbers[i.c]);
      ApplyUnary(r, i, [share](T x) { return x * share + T(0); });
      break;
    }
    case FusedOp::kReduce:  // Only generated kernels have this one and the next two.
    case FusedOp::kProduced:
    case FusedOp::kPool:
      break;
    case FusedOp::kCopy:
      ApplyUnary(r, i, formulas::StopGradient());
      break;
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock)
    FusedElements(const __grid_constant__ FusedProgram program, const __grid_constant__ Dividers dividers,
                  const __grid_constant__ FusedInstances instances) {
  int chain = 0;
  while (chain + 1 < instances.count && instances.chains[chain + 1].first_block <= blockIdx.x) ++chain;
  const FusedInstance& own = instances.chains[chain];
  const uint32_t begin = (blockIdx.x - own.first_block) * kFusedPerBlock;
  Registers<T> registers;
  for (uint32_t start = begin; start < begin + kFusedPerBlock; start += kBlock * kElements) {
    // Neighbouring threads have neighbouring elements.
    const uint32_t at = start + threadIdx.x;
    if (at >= own.total) return;
    for (int i = 0; i < program.count; ++i) Execute(program.instructions[i], program, dividers, own, at, registers);
  }
}

// Returns the tensors of a batch in one run.
FusedInstances InstancesOf(const FusedBatch& batch, const KernelArguments& arguments) {
  FusedInstances instances;
  instances.count = static_cast<int32_t>(batch.members.size());
  bool aligned = true;
  for (size_t k = 0; k < batch.members.size(); ++k) {
    const FusedBatch::Member& member = batch.members[k];
    FusedInstance& instance = instances.chains[k];
    instance.total = member.total;
    instance.first_block = member.first_block;
    int count = 0;
    for (int i : member.operands) instance.tensors[count++] = const_cast<void*>(arguments.operands[i]);
    for (int i : member.outputs) instance.tensors[count++] = arguments.outputs[i];
    aligned &= std::all_of(instance.tensors, instance.tensors + count,
                           [](const void* tensor) { return IsAligned(tensor, 16); });
  }
  instances.aligned = aligned;
  return instances;
}

absl::Status Interpret(const FusedBatch& batch, const FusedInstances& instances, const CudaContext& context) {
  auto fused = batch.dtype == kFloat32 ? FusedElements<float> : FusedElements<double>;
  Dividers dividers;
  for (int axis = 0; axis < batch.program.num_axes; ++axis) dividers.sizes[axis] = Divider(batch.program.sizes[axis]);
  return Launch(context, "fused_elements", fused, {batch.blocks}, {kBlock}, 0, batch.program, dividers, instances);
}

template <typename T>
absl::Status RunGenerated(const LoadedKernel& kernel, const FusedBatch& batch, const FusedInstances& instances,
                          const CudaContext& context) {
  FusedParameters<T> parameters = {instances, {}};
  for (int i = 0; i < batch.program.num_numbers; ++i) parameters.numbers[i] = static_cast<T>(batch.program.numbers[i]);
  void* addresses[] = {&parameters};
  return context.api->Launch({.name = "generated_elements",
                              .kernel = kernel.function(),
                              .grid = {batch.blocks},
                              .block = {kFusedThreads},
                              .arguments = addresses},
                             context.stream);
}

// Makes the kernel of a group of chains without reductions.
Kernel MakeFusedElements(const FusedGroup& group, absl::Span<const std::shared_ptr<const LoadedKernel>> generated) {
  struct Part {
    FusedBatch batch;
    std::shared_ptr<const LoadedKernel> generated;
  };
  auto parts = std::make_shared<std::vector<Part>>();
  for (size_t k = 0; k < group.batches.size(); ++k) {
    parts->push_back({group.batches[k], generated.empty() ? nullptr : generated[k]});
  }
  const bool all_generated =
      std::all_of(parts->begin(), parts->end(), [](const Part& part) { return part.generated != nullptr; });
  Kernel kernel{.name = all_generated ? "generated_elements" : "fused_elements"};
  kernel.run = [parts](const KernelArguments& arguments) {
    for (const auto& [batch, generated] : *parts) {
      const FusedInstances instances = InstancesOf(batch, arguments);
      if (generated == nullptr) {
        GW_RETURN_IF_ERROR(Interpret(batch, instances, arguments.device<CudaContext>()));
      } else if (batch.dtype == kFloat32) {
        GW_RETURN_IF_ERROR(RunGenerated<float>(*generated, batch, instances, arguments.device<CudaContext>()));
      } else {
        GW_RETURN_IF_ERROR(RunGenerated<double>(*generated, batch, instances, arguments.device<CudaContext>()));
      }
    }
    return absl::OkStatus();
  };
  return kernel;
}

}  // namespace

Kernel MakeFusedKernel(const Graph& graph, const FusedGroup& group,
                       absl::Span<const std::shared_ptr<const LoadedKernel>> generated) {
  const std::shared_ptr<const LoadedKernel> first = generated.empty() ? nullptr : generated[0];
  Kernel kernel = group.rows != nullptr          ? MakeRowKernel(group, first)
                  : group.convolution != nullptr ? MakeConvKernel(graph, group, first)
                  : group.has_reductions()       ? MakeFusedReduction(group, first)
                                                 : MakeFusedElements(group, generated);
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
    kernel.parts.push_back({node.op->name, id, flops});
  }
  return kernel;
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
