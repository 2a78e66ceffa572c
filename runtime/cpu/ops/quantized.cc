#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/runtime/cpu/product/integer_product.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

Kernel MakeKernel(const KernelRequest& request, const ConvGeometry& geometry, bool matrices) {
  const IntegerProduct::Options options = {.x_dtype = request.operand(0).dtype,
                                           .y_dtype = request.output().dtype,
                                           .x_zero = request.attribute<int64_t>("x_zero"),
                                           .zero = request.attribute<int64_t>("zero"),
                                           .relu = request.attribute<bool>("relu"),
                                           .matrices = matrices};
  auto product = std::make_shared<const IntegerProduct>(geometry, options);
  // Scratch: the packed weights, unless they are kept, and the rest.
  const size_t packed_bytes = product->packed_bytes(), scratch_bytes = product->scratch_bytes(request.threads);
  const auto run = [product, packed_bytes](const KernelArguments& arguments) {
    const IntegerOperands operands = {.x = arguments.operand<uint8_t>(0),
                                      .weights = arguments.operand<int8_t>(1),
                                      .scale = arguments.operand<float>(2),
                                      .bias = arguments.operand<int32_t>(3),
                                      .y = arguments.outputs[0]};
    const bool kept = arguments.kept != nullptr;
    std::byte* const packed = kept ? arguments.kept : arguments.scratch;
    if (!kept || !arguments.kept_is_current) product->Pack(operands, packed, *arguments.pool);
    product->Run(operands, packed, arguments.scratch + (kept ? 0 : packed_bytes), *arguments.pool);
    return absl::OkStatus();
  };
  Kernel kernel = {.name = "integers", .run = run, .scratch_bytes = packed_bytes + scratch_bytes};
  if (packed_bytes > 0) {
    kernel.kept_bytes = packed_bytes;
    kernel.scratch_bytes_with_kept = scratch_bytes;
    kernel.kept_operands = {1, 2, 3};
  }
  return kernel;
}

}  // namespace

void RegisterQuantizedKernels(KernelRegistry& registry) {
  registry.Add("QuantizedMatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const Shape &x = request.operand(0).shape, &weights = request.operand(1).shape;
    int64_t rows = 1;
    for (int axis = 0; axis + 1 < x.rank(); ++axis) rows *= x[axis].size();
    return MakeKernel(request, ConvGeometry(rows, weights[0].size(), weights[1].size()), true);
  });
  registry.Add("QuantizedConv2D", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return MakeKernel(
        request,
        ConvGeometry(request.node, request.operand(0).shape, request.operand(1).shape, request.output().shape), false);
  });
}

}  // namespace gradweave
