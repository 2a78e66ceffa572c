#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/cpu/product/bfloat16_product.h"
#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/cpu/product/matmul_product.h"
#include "gradweave/runtime/cpu/tile/blocks.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

constexpr double kChunkFlops = 500'000;  // A chunk that is worth many wake-ups of a thread.
constexpr double kColumnFlops = 40'000;  // For one product: a running thread starts a chunk in a tenth of that time.
constexpr int64_t kMostColumnChunks = 8;

// Multiplies with OpenBLAS: several small products at a time, or a large one divided by columns.
template <typename T>
Kernel GemmKernel(const MatMulSizes& sizes) {
  const double flops = std::max(1.0, sizes.flops());
  const double chunk_flops = sizes.matrices.total == 1 ? kColumnFlops : kChunkFlops;
  const int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(flops / chunk_flops), 1, kMostColumnChunks);
  const int64_t width = ((sizes.columns + wanted - 1) / wanted + 15) / 16 * 16;
  const Chunks columns(sizes.columns, std::max<int64_t>(width, 1), wanted);
  const int64_t at_a_time = columns.number > 1 ? 1 : std::max<int64_t>(1, static_cast<int64_t>(kChunkFlops / flops));
  const Chunks matrices(sizes.matrices.total, at_a_time);
  const auto run = [=](const KernelArguments& arguments) {
    const int64_t m = sizes.rows, n = sizes.columns, k = sizes.terms;
    if (m * n == 0 || sizes.matrices.total == 0) return absl::OkStatus();
    if (k == 0) {
      std::fill_n(arguments.output<T>(), sizes.matrices.total * m * n, T(0));
      return absl::OkStatus();
    }
    const OneBlasThread one_thread(m, n, k);
    arguments.pool->ParallelFor(matrices.number * columns.number, [&](int64_t task, int) {
      if (arguments.stopped()) return;
      const int64_t chunk = task / columns.number, part = task % columns.number, column = columns.begin(part);
      sizes.matrices.ForRuns(
          matrices.begin(chunk), matrices.end(chunk), [&](const auto& offsets, int64_t first, int64_t count) {
            for (int64_t i = 0; i < count; ++i) {
              const T* a = arguments.operand<T>(0) + (offsets[0] + i * sizes.matrices.is_vector(0)) * m * k;
              const T* b = arguments.operand<T>(1) + (offsets[1] + i * sizes.matrices.is_vector(1)) * k * n;
              Gemm(one_thread, sizes.transpose_a, sizes.transpose_b, m, columns.end(part) - column, k, T(1), a,
                   sizes.a_step, b + column * (sizes.transpose_b ? sizes.b_step : 1), sizes.b_step, T(0),
                   arguments.output<T>() + (first + i) * m * n + column, n);
            }
          });
    });
    return absl::OkStatus();
  };
  return {.name = "gemm", .run = run};
}

// A kernel lists the rows that it sums.
constexpr int64_t kMostSummedRows = 1 << 20;

// Returns true if the product can be summed row by row of b: an element of a, broadcast to all
// lanes, times a row of b in place.
bool SumsRows(const MatMulSizes& sizes) {
  return sizes.rows == 1 && !sizes.transpose_b && sizes.terms > 0 && sizes.matrices.total > 0 &&
         sizes.columns >= GetTileKernels().lanes && sizes.terms <= kMostSummedRows &&
         sizes.columns <= std::numeric_limits<int32_t>::max() / sizes.terms;
}

// A product of one row, in blocks of as many vectors of columns as registers hold sums of. The last
// block ends with the row, so it may recompute some columns of the one before.
Kernel RowSumKernel(const MatMulSizes& sizes) {
  const int64_t lanes = GetTileKernels().lanes, n = sizes.columns, k = sizes.terms;
  const int64_t wanted = std::clamp<int64_t>(static_cast<int64_t>(sizes.flops() / kColumnFlops), 1, kMostColumnChunks);
  const int64_t vectors = (n + lanes - 1) / lanes;
  const int64_t largest = std::min<int64_t>({kMostBlockColumns, n / lanes, (vectors + wanted - 1) / wanted});
  std::vector<int32_t> rows;
  for (int64_t term = 0; term < k; ++term) rows.push_back(static_cast<int32_t>(term * n));
  struct Block {
    int64_t column;
    DirectSum sum;
  };
  std::vector<Block> blocks;
  int64_t column = 0;
  for (int size : Parts(vectors, static_cast<int>(largest))) {
    blocks.push_back({std::min(column, n - size * lanes), GetTileKernels().direct_sum[1][size]});
    column += size * lanes;
  }
  const Chunks chunks(sizes.matrices.total * static_cast<int64_t>(blocks.size()),
                      std::max<int64_t>(1, static_cast<int64_t>(kColumnFlops * blocks.size() / sizes.flops())));
  const auto run = [sizes, rows, blocks, chunks, n, k](const KernelArguments& arguments) {
    arguments.pool->ParallelFor(chunks.number, [&](int64_t chunk, int) {
      for (int64_t task = chunks.begin(chunk); task < chunks.end(chunk); ++task) {
        const int64_t matrix = task / static_cast<int64_t>(blocks.size());
        const Block& block = blocks[task % static_cast<int64_t>(blocks.size())];
        sizes.matrices.ForRuns(matrix, matrix + 1, [&](const auto& offsets, int64_t, int64_t) {
          block.sum({.x = arguments.operand<float>(1) + offsets[1] * k * n + block.column,
                     .offsets = rows.data(),
                     .terms = k,
                     .weights = arguments.operand<float>(0) + offsets[0] * k,
                     .weight_step = 0,
                     .bias = nullptr,
                     .y = arguments.output<float>() + matrix * n + block.column,
                     .y_step_a = 0});
        });
      }
    });
    return absl::OkStatus();
  };
  return {.name = "sum of rows", .run = run};
}

Kernel ProductKernel(const MatMulSizes& sizes, int threads) {
  auto product = std::make_shared<const MatMulProduct>(sizes, threads);
  const size_t bytes = product->workspace_bytes(false);
  const auto run = [product, bytes](const KernelArguments& arguments) {
    product->StartRun(arguments, 1, arguments.scratch, arguments.pool->num_threads(), false);
    arguments.pool->ParallelFor(product->tasks(), [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      product->Run(arguments.operand<float>(0), arguments.operand<float>(1), task, arguments.scratch + thread * bytes,
                   arguments.output<float>());
    });
    return absl::OkStatus();
  };
  return {.name = "product",
          .run = run,
          .scratch_bytes = bytes * threads,
          .kept_bytes = product->packed_bytes(),
          .scratch_bytes_with_kept = bytes * threads,
          .kept_operands = {1},
          .kept_layout = product->packed_layout()};
}

}  // namespace

std::vector<KernelChoice> MatMulChoices(const KernelRequest& request) {
  const MatMulSizes sizes(request.node, request.operands);
  if (request.output().dtype == kFloat64) return {{"gemm", {}, [=] { return GemmKernel<double>(sizes); }}};
  std::vector<KernelChoice> choices;
  if (SumsRows(sizes)) {
    const double weights = static_cast<double>(sizes.terms) * static_cast<double>(sizes.columns),
                 vectors = weights / GetTileKernels().lanes;
    Estimate estimate;
    estimate.Add(Loop::kRowSums, {.calls = vectors / static_cast<double>(sizes.terms) / kMostBlockColumns});
    estimate.Add(Loop::kRowSums, Moved(weights, weights * sizeof(float)));
    choices.push_back({"sum of rows", Estimate().Add(estimate, static_cast<double>(sizes.matrices.total)),
                       [=] { return RowSumKernel(sizes); }});
  }
  if (sizes.rows > 1 && sizes.columns > 0 && sizes.terms > 0 && sizes.matrices.total > 0) {
    choices.push_back({"product", MatMulProduct::CostOf(sizes),
                       [=, threads = request.threads] { return ProductKernel(sizes, threads); }});
  }
  choices.push_back({"gemm", MatMulProduct::CostOfGemm(sizes), [=] { return GemmKernel<float>(sizes); }});
  return choices;
}

void RegisterMatMulKernels(KernelRegistry& registry) {
  registry.Add("MatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return Cheapest(MatMulChoices(request)).make();
  });
  // See runtime/cpu/bfloat16_products.h.
  registry.Add("BFloat16MatMul", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return BFloat16ProductKernel(MatMulSizes(request.node, request.operands), request.threads);
  });
}

}  // namespace gradweave
