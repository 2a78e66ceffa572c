#include "gradweave/runtime/cpu/product/matmul_product.h"

#include <algorithm>
#include <new>

namespace gradweave {
namespace {

constexpr double kTaskFlops = 500'000;  // A task that is worth many wake-ups of a thread.
// For products of a few rows: a running thread starts a task in a tenth of that time.
constexpr double kColumnFlops = 40'000;
constexpr int64_t kPartsOfThread = 2;  // For one product: delayed threads leave parts to others.
constexpr int64_t kMostTasks = 64;

Shape LeadingAxes(const Shape& shape) { return Shape(absl::Span<const Dim>(shape.dims().data(), shape.rank() - 2)); }

BroadcastWalk WalkMatrices(const TensorType& y, absl::Span<const TensorType> operands) {
  const TensorType leading[] = {{y.dtype, LeadingAxes(operands[0].shape)}, {y.dtype, LeadingAxes(operands[1].shape)}};
  return BroadcastWalk(LeadingAxes(y.shape), leading);
}

int64_t LastAxis(const Shape& shape) { return shape[shape.rank() - 1].size(); }
int64_t AxisBefore(const Shape& shape) { return shape[shape.rank() - 2].size(); }

Product ProductOf(const MatMulSizes& sizes) {
  const MatrixLayout a = sizes.transpose_a ? MatrixLayout{1, sizes.a_step} : MatrixLayout{sizes.a_step, 1};
  const MatrixLayout b = sizes.transpose_b ? MatrixLayout{1, sizes.b_step} : MatrixLayout{sizes.b_step, 1};
  return Product(sizes.rows, sizes.columns, sizes.terms, a, b);
}

// Returns the number of matrices of a task. A task takes several small products.
int64_t MatricesOfTask(const MatMulSizes& sizes, int64_t parts) {
  return parts > 1 ? 1 : std::max<int64_t>(1, static_cast<int64_t>(kTaskFlops / std::max(1.0, sizes.flops())));
}

}  // namespace

MatMulSizes::MatMulSizes(const Node& node, absl::Span<const TensorType> operands)
    : transpose_a(node.attribute<bool>("transpose_a")),
      transpose_b(node.attribute<bool>("transpose_b")),
      rows(AxisBefore(node.outputs[0].shape)),
      columns(LastAxis(node.outputs[0].shape)),
      terms(transpose_a ? AxisBefore(operands[0].shape) : LastAxis(operands[0].shape)),
      a_step(LastAxis(operands[0].shape)),
      b_step(LastAxis(operands[1].shape)),
      matrices(WalkMatrices(node.outputs[0], operands)) {}

MatMulSizes::MatMulSizes(int64_t rows, int64_t columns, int64_t terms, bool transpose_a, bool transpose_b)
    : transpose_a(transpose_a),
      transpose_b(transpose_b),
      rows(rows),
      columns(columns),
      terms(terms),
      a_step(transpose_a ? rows : terms),
      b_step(transpose_b ? terms : columns),
      matrices(Shape(), {}) {}

MatMulProduct::MatMulProduct(const MatMulSizes& sizes, Product product, const Product::Parts& parts,
                             const Chunks& matrices)
    : sizes_(sizes), product_(product), parts_(parts), matrices_(matrices) {}

MatMulProduct::MatMulProduct(const MatMulSizes& sizes, int threads)
    : sizes_(sizes),
      product_(ProductOf(sizes)),
      parts_(product_.Split(
          std::clamp<int64_t>(
              static_cast<int64_t>(sizes.flops() / (sizes.matrices.total == 1 ? kColumnFlops : kTaskFlops)), 1,
              kPartsOfThread * threads),
          threads)),
      matrices_(sizes.matrices.total, MatricesOfTask(sizes, parts_.number())) {}

MatMulProduct MatMulProduct::OfWholeRows(const MatMulSizes& sizes, int most_tasks) {
  const Product product = ProductOf(sizes);
  const int64_t wanted = sizes.matrices.total > 1
                             ? 1
                             : std::clamp<int64_t>(static_cast<int64_t>(sizes.flops() / kTaskFlops), 1, most_tasks);
  const Product::Parts parts = product.SplitRows(wanted);
  return MatMulProduct(sizes, product, parts, Chunks(sizes.matrices.total, MatricesOfTask(sizes, 1), most_tasks));
}

Estimate MatMulProduct::CostOf(const MatMulSizes& sizes) {
  return Estimate().Add(Loop::kProduct, ProductOf(sizes).work(), static_cast<double>(sizes.matrices.total));
}

Estimate MatMulProduct::CostOfGemm(const MatMulSizes& sizes) {
  return Estimate().Add(GemmEstimate(sizes.rows, sizes.columns, sizes.terms),
                        static_cast<double>(sizes.matrices.total));
}

bool MatMulProduct::PaysInRegion(const MatMulSizes& sizes) {
  const double floats =
      static_cast<double>(sizes.matrices.total) * static_cast<double>(sizes.rows) * static_cast<double>(sizes.columns);
  Estimate apart = CostOfGemm(sizes);
  apart.Add(Loop::kElements, {.calls = 1}).Add(Loop::kElements, Moved(2 * floats, floats * sizeof(float)));
  return sizes.rows > 1 && sizes.terms > 0 && CostOf(sizes).nanoseconds() <= apart.nanoseconds();
}

size_t MatMulProduct::packed_bytes() const {
  const auto& strides = sizes_.matrices.strides;
  const bool is_shared = std::all_of(strides.begin(), strides.end(), [](const auto& axis) { return axis[1] == 0; });
  return is_shared ? product_.packed_floats() * sizeof(float) : 0;
}

void MatMulProduct::StartRun(const KernelArguments& arguments, int b, std::byte* workspaces, int threads,
                             bool in_blocks) const {
  float* const packed = reinterpret_cast<float*>(arguments.kept);
  if (packed != nullptr && !arguments.kept_is_current) {
    arguments.pool->ParallelFor(product_.pack_tasks(),
                                [&](int64_t task, int) { product_.Pack(arguments.operand<float>(b), task, packed); });
  }
  for (int thread = 0; thread < threads; ++thread)
    new (workspaces + thread * workspace_bytes(in_blocks)) Product::Workspace{.packed = packed};
}

// Calls body(a, b, y) with the offsets of each of a task's matrices, in elements.
template <typename Body>
void MatMulProduct::ForMatrices(int64_t task, Body body) const {
  const int64_t chunk = task / parts_.number();
  const int64_t size_a = sizes_.rows * sizes_.terms, size_b = sizes_.terms * sizes_.columns;
  sizes_.matrices.ForRuns(matrices_.begin(chunk), matrices_.end(chunk),
                          [&](const auto& offsets, int64_t first, int64_t count) {
                            for (int64_t i = 0; i < count; ++i)
                              body((offsets[0] + i * sizes_.matrices.is_vector(0)) * size_a,
                                   (offsets[1] + i * sizes_.matrices.is_vector(1)) * size_b, first + i);
                          });
}

void MatMulProduct::Run(const float* a, const float* b, int64_t task, std::byte* workspace, float* y) const {
  auto& own = *reinterpret_cast<Product::Workspace*>(workspace);
  ForMatrices(task, [&](int64_t offset_a, int64_t offset_b, int64_t matrix) {
    product_.Run(a + offset_a, b + offset_b, parts_, task % parts_.number(), false,
                 y + matrix * sizes_.rows * sizes_.columns, sizes_.columns, own);
  });
}

void MatMulProduct::RunInBlocks(const float* a, const float* b, int64_t task, std::byte* workspace,
                                Product::TakeBlock take) const {
  auto& own = *reinterpret_cast<Product::Workspace*>(workspace);
  ForMatrices(task, [&](int64_t offset_a, int64_t offset_b, int64_t matrix) {
    product_.RunInBlocks(a + offset_a, b + offset_b, parts_, task % parts_.number(), own,
                         [&](const Product::Block& block, float* y, int64_t step) {
                           take({matrix * sizes_.rows + block.row, block.rows, block.column, block.columns}, y, step);
                         });
  });
}

}  // namespace gradweave
