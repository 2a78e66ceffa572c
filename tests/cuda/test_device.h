// Runs of single nodes on the CPU and on an emulated CUDA device.
#ifndef GRADWEAVE_TESTS_CUDA_TEST_DEVICE_H_
#define GRADWEAVE_TESTS_CUDA_TEST_DEVICE_H_

#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cuda/emulation/emulated_api.h"
#include "gradweave/runtime/cuda/ops/kernels.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gtest/gtest.h"

namespace gradweave {

inline constexpr uint64_t kSeed = 5, kRunNumber = 3;  // For all runs.

// Makes the node's kernel for operands of these types.
inline absl::StatusOr<Kernel> MakeKernel(const KernelRegistry& kernels, const Node& node,
                                         absl::Span<const Tensor> operands) {
  const KernelFactory* factory = kernels.Find(node.op->name);
  if (factory == nullptr) return absl::UnimplementedError(absl::StrCat("no kernel for ", node.op->name));
  TensorTypes types;
  for (const Tensor& operand : operands) types.push_back(operand.type());
  return (*factory)({node, types, 1});
}

// Runs a node on the CPU.
inline absl::StatusOr<std::vector<Tensor>> RunOnCpu(const Node& node, absl::Span<const Tensor> operands) {
  GW_ASSIGN_OR_RETURN(const Kernel kernel, MakeKernel(CpuKernels(), node, operands));
  std::vector<const void*> inputs;
  for (const Tensor& operand : operands) inputs.push_back(operand.raw_data());
  std::vector<Tensor> results;
  std::vector<void*> outputs;
  for (const TensorType& type : node.outputs) {
    results.emplace_back(type.dtype, type.shape.sizes());
    outputs.push_back(results.back().mutable_raw_data());
  }
  Tensor scratch(kUint8, {static_cast<int64_t>(kernel.scratch_bytes)});
  ThreadPool caller_only(1);
  KernelArguments arguments;
  arguments.operands = inputs;
  arguments.outputs = outputs;
  arguments.scratch = static_cast<std::byte*>(scratch.mutable_raw_data());
  arguments.pool = &caller_only;
  arguments.seed = kSeed;
  arguments.run_number = kRunNumber;
  GW_RETURN_IF_ERROR(kernel.run(arguments));
  return results;
}

// An emulated device with the state that kernels expect of a run.
class TestDevice {
 public:
  explicit TestDevice(const EmulatedCudaOptions& options = {}) : api_(options) {
    context_.api = &api_;
    context_.stream = *api_.CreateStream();
    const CudaRunState state = {kSeed, kRunNumber};
    context_.run_state = static_cast<const CudaRunState*>(Put(&state, sizeof state));
    const int32_t zero = 0;
    context_.error = static_cast<int32_t*>(Put(&zero, sizeof zero));
  }

  // Runs the node's kernel. `in_place` is the index of one of its {operand, output} pairs to place
  // in the same memory; -1 means none.
  absl::StatusOr<std::vector<Tensor>> Run(const Node& node, absl::Span<const Tensor> operands, int in_place = -1) {
    GW_ASSIGN_OR_RETURN(const Kernel kernel, MakeKernel(cuda_emulated::CudaKernels(), node, operands));
    return Run(kernel, node.outputs, operands, in_place);
  }
  absl::StatusOr<std::vector<Tensor>> Run(const Kernel& kernel, absl::Span<const TensorType> types,
                                          absl::Span<const Tensor> operands, int in_place = -1) {
    std::vector<void*> owned;
    std::vector<const void*> inputs;
    for (const Tensor& operand : operands) {
      owned.push_back(Put(operand.raw_data(), operand.byte_size()));
      inputs.push_back(owned.back());
    }
    std::vector<void*> outputs;
    for (int i = 0; i < static_cast<int>(types.size()); ++i) {
      if (in_place >= 0 && kernel.overwrites[in_place].second == i) {
        outputs.push_back(owned[kernel.overwrites[in_place].first]);
      } else {
        GW_ASSIGN_OR_RETURN(void* memory, api_.Allocate(types[i].byte_size()));
        owned.push_back(memory);
        outputs.push_back(memory);
      }
    }
    GW_ASSIGN_OR_RETURN(void* scratch, api_.Allocate(kernel.scratch_bytes));
    owned.push_back(scratch);
    KernelArguments arguments;
    arguments.operands = inputs;
    arguments.outputs = outputs;
    arguments.scratch = static_cast<std::byte*>(scratch);
    arguments.context = &context_;
    const int products = api_.CountCalls("Gemm");
    absl::Status status = kernel.run(arguments);
    EXPECT_TRUE(kernel.needs_workspace || api_.CountCalls("Gemm") == products) << kernel.name;
    if (status.ok()) status = api_.Synchronize(context_.stream);
    std::vector<Tensor> results;
    for (size_t i = 0; status.ok() && i < outputs.size(); ++i) {
      results.emplace_back(types[i].dtype, types[i].shape.sizes());
      status = api_.CopyAsync(results.back().mutable_raw_data(), outputs[i], results.back().byte_size(),
                              CudaCopyKind::kDeviceToHost, context_.stream);
    }
    for (void* memory : owned) {
      if (absl::Status freed = api_.Free(memory); status.ok()) status = freed;
    }
    if (!status.ok()) return status;
    return results;
  }

  // Returns the number of {operand, output} pairs for `in_place`.
  int OverwritesOf(const Node& node, absl::Span<const Tensor> operands) {
    const absl::StatusOr<Kernel> kernel = MakeKernel(cuda_emulated::CudaKernels(), node, operands);
    return kernel.ok() ? static_cast<int>(kernel->overwrites.size()) : 0;
  }

  // Returns the error that kernels reported since the last call, and resets it.
  int32_t TakeError() {
    int32_t error = 0;
    EXPECT_TRUE(
        api_.CopyAsync(&error, context_.error, sizeof error, CudaCopyKind::kDeviceToHost, context_.stream).ok());
    EXPECT_TRUE(api_.FillAsync(context_.error, 0, sizeof error, context_.stream).ok());
    return error;
  }

  EmulatedCudaApi& api() { return api_; }

 private:
  void* Put(const void* data, size_t bytes) {
    void* memory = *api_.Allocate(bytes);
    EXPECT_TRUE(api_.CopyAsync(memory, data, bytes, CudaCopyKind::kHostToDevice, context_.stream).ok());
    return memory;
  }

  EmulatedCudaApi api_;
  CudaContext context_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_TEST_DEVICE_H_
