#include <algorithm>
#include <memory>

#include "gradweave/runtime/cpu/product/integer_product.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

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
    kernel.kept_operands = {1};
  }
  return kernel;
}

// Numbers of a chunk.
constexpr int64_t kQuantizedChunk = 1 << 14;

Kernel MakeQuantize(const KernelRequest& request) {
  const IntegerRounding rounding =
      IntegerRounding::To(request.output().dtype == kInt8, request.attribute<int64_t>("zero"));
  const int64_t count = request.output().shape.num_elements().size();
  const auto run = [rounding, count](const KernelArguments& arguments) {
    const auto *x = arguments.operand<float>(0), *scale = arguments.operand<float>(1);
    auto* const y = arguments.output<uint8_t>();
    ParallelForRange(*arguments.pool, count, kQuantizedChunk, [&](int64_t begin, int64_t end) {
      GetIntegerKernels().quantize(x + begin, end - begin, *scale, rounding, y + begin);
    });
    return absl::OkStatus();
  };
  return {.name = "quantize", .run = run};
}

Kernel MakePool(const KernelRequest& request) {
  const Shape &x = request.operand(0).shape, &y = request.output().shape;
  const Integers &window = request.attribute<Integers>("window"), &stride = request.attribute<Integers>("stride"),
                 &padding = request.attribute<Integers>("padding");
  const BytePool pool = {.height = x[2].size(),
                         .width = x[3].size(),
                         .output_height = y[2].size(),
                         .output_width = y[3].size(),
                         .window_y = window[0],
                         .window_x = window[1],
                         .stride_y = stride[0],
                         .stride_x = stride[1],
                         .top = padding[0],
                         .left = padding[2],
                         .is_signed = request.operand(0).dtype == kInt8};
  const int64_t images = x[0].size() * x[1].size(), image_size = pool.height * pool.width;
  const Chunks chunks(images, std::max<int64_t>(1, kQuantizedChunk / std::max<int64_t>(1, image_size)));
  const auto run = [pool, chunks, image_size](const KernelArguments& arguments) {
    const auto* const all = arguments.operand<uint8_t>(0);
    arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int thread) {
      auto* const row = reinterpret_cast<uint8_t*>(arguments.scratch) + thread * pool.row_size();
      for (int64_t image = chunks.begin(chunk); image < chunks.end(chunk); ++image) {
        GetIntegerKernels().pool(pool, all + image * image_size, all + chunks.count * image_size, row,
                                 arguments.output<uint8_t>() + image * pool.output_height * pool.output_width);
      }
    });
    return absl::OkStatus();
  };
  return {.name = "maxima of bytes", .run = run, .scratch_bytes = ScratchBytes(request.threads, pool.row_size(), 1)};
}

}  // namespace

void RegisterQuantizedKernels(KernelRegistry& registry) {
  registry.Add("QuantizedMatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const Shape& weights = request.operand(1).shape;
    const int64_t columns = weights[1].size();
    const int64_t rows = columns == 0 ? 0 : request.output().shape.num_elements().size() / columns;
    return MakeKernel(request, ConvGeometry(rows, weights[0].size(), columns), true);
  });
  registry.Add("Quantize",
               [](const KernelRequest& request) -> absl::StatusOr<Kernel> { return MakeQuantize(request); });
  registry.Add("QuantizedMaxPool2D",
               [](const KernelRequest& request) -> absl::StatusOr<Kernel> { return MakePool(request); });
  registry.Add("QuantizedConv2D", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return MakeKernel(
        request, ConvGeometry(request.node, request.operand(0).shape, request.operand(1).shape, request.output().shape),
        false);
  });
}

}  // namespace gradweave
