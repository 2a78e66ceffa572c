// Matrix products with the device's library. Leading axes that broadcast become the batch of one
// call, or several calls.
#include <memory>

#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/broadcast.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

template <typename T>
Kernel MatMulKernel(const KernelRequest& request, T) {
  const Shape& a = request.operand(0).shape;
  const Shape& b = request.operand(1).shape;
  const Shape& y = request.output().shape;
  CudaGemm gemm{.dtype = DTypeOf<T>,
                .transpose_a = request.attribute<bool>("transpose_a"),
                .transpose_b = request.attribute<bool>("transpose_b"),
                .m = y[y.rank() - 2].size(),
                .n = y[y.rank() - 1].size()};
  gemm.lda = a[a.rank() - 1].size();
  gemm.ldb = b[b.rank() - 1].size();
  gemm.ldc = gemm.n;
  gemm.k = gemm.transpose_a ? a[a.rank() - 2].size() : gemm.lda;

  // The leading axes broadcast like the operands of an elementwise op.
  auto leading = [](const Shape& shape) { return Shape(absl::Span<const Dim>(shape.dims().data(), shape.rank() - 2)); };
  const TensorType operands[] = {{request.output().dtype, leading(a)}, {request.output().dtype, leading(b)}};
  auto walk = std::make_shared<const BroadcastWalk>(leading(y), operands);
  const size_t bytes = request.output().byte_size();
  return {.name = "gemm",
          .run =
              [=](const KernelArguments& arguments) {
                const CudaContext& context = arguments.device<CudaContext>();
                if (bytes == 0) return absl::OkStatus();
                if (gemm.k == 0) return context.api->FillAsync(arguments.outputs[0], 0, bytes, context.stream);
                absl::Status status;
                walk->ForRuns(0, walk->total, [&](const auto& offsets, int64_t first, int64_t count) {
                  if (!status.ok()) return;
                  CudaGemm batch = gemm;
                  batch.precision = context.product_precision;
                  batch.batch = count;
                  batch.stride_a = walk->is_vector(0) ? gemm.m * gemm.k : 0;
                  batch.stride_b = walk->is_vector(1) ? gemm.k * gemm.n : 0;
                  batch.stride_c = gemm.m * gemm.n;
                  batch.a = arguments.operand<T>(0) + offsets[0] * gemm.m * gemm.k;
                  batch.b = arguments.operand<T>(1) + offsets[1] * gemm.k * gemm.n;
                  batch.c = arguments.output<T>() + first * gemm.m * gemm.n;
                  status = context.api->Gemm(batch, context.stream);
                });
                return status;
              },
          .needs_workspace = true};
}

}  // namespace

void RegisterMatMulKernels(KernelRegistry& registry) {
  AddFloating(registry, "MatMul", [](const KernelRequest& request, auto zero) { return MatMulKernel(request, zero); });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
