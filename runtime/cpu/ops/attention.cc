// Attention by blocks of queries: a block's scores for all keys exist in scratch, one block for
// each thread, and the matrix of all scores nowhere (after Dao, "FlashAttention-2: faster attention
// with better parallelism and work partitioning", 2023). With a causal mask, the keys behind a
// block are left out. The gradient computes a block's weights again.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/cpu/product/panels.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"
#include "gradweave/runtime/cpu/simd/softmax_gradient.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

// A block of scores stays in the second-level cache, beside the keys or values that it is
// multiplied with.
constexpr int64_t kMostBlockScores = 32 << 10;
// Blocks of fewer rows leave out more scores of a causal mask, and more of them read the keys.
constexpr int64_t kMostBlockUnits = 2;  // In ProductKernels::rows.
// Parts of the queries of a head, if there are few heads. They pack the keys once each.
constexpr int64_t kWantedTasks = 16, kLeastTaskRows = 96;

// The rows of one head of an operand: row i begins at row_step * i.
struct Steps {
  int64_t batch, head, row, width;

  Steps(const Shape& shape, int64_t heads_axis)
      : batch((shape[1] * shape[2] * shape[3]).size()),
        head(heads_axis == 1 ? (shape[2] * shape[3]).size() : shape[3].size()),
        row(heads_axis == 1 ? shape[3].size() : (shape[2] * shape[3]).size()),
        width(shape[3].size()) {}
  int64_t At(int64_t b, int64_t h) const { return b * batch + h * head; }
};

struct Sizes {
  int64_t batch, heads, key_heads, queries, keys;
  Steps q, k, v, y;
  bool causal;
  double scale;
  int mask = 0;  // The operand of the mask; 0 if there is none.
  bool mask_is_bool = false;
  int64_t mask_steps[4] = {};  // Indexed by axis of the scores, 0 where the mask stretches.
  int64_t block, stride;       // Rows of a block, and elements between rows of its scores.

  Sizes(const KernelRequest& request, int required)
      : q(request.operand(0).shape, request.attribute<int64_t>("heads_axis")),
        k(request.operand(1).shape, request.attribute<int64_t>("heads_axis")),
        v(request.operand(2).shape, request.attribute<int64_t>("heads_axis")),
        y(q),
        causal(request.attribute<bool>("causal")),
        scale(request.attribute<double>("scale")) {
    const Shape &of_q = request.operand(0).shape, &of_k = request.operand(1).shape;
    const int axis = static_cast<int>(request.attribute<int64_t>("heads_axis")), time = 3 - axis;
    batch = of_q[0].size();
    heads = of_q[axis].size();
    key_heads = of_k[axis].size();
    queries = of_q[time].size();
    keys = of_k[time].size();
    Shape of_y = of_q;
    of_y[3] = request.operand(2).shape[3];
    y = Steps(of_y, axis);
    if (static_cast<int>(request.operands.size()) > required) {
      mask = required;
      const TensorType& type = request.operand(required);
      mask_is_bool = type.dtype == kBool;
      int64_t step = 1;
      for (int i = 1; i <= type.shape.rank(); ++i) {
        const int64_t size = type.shape[type.shape.rank() - i].size();
        mask_steps[4 - i] = size == 1 ? 0 : step;
        step *= size;
      }
    }
    // Rows that are a multiple of a few cache lines apart map to few sets of a cache.
    stride = RoundUp(std::max<int64_t>(keys, 1), kLineFloats);
    if (stride % (4 * kLineFloats) == 0) stride += kLineFloats;
    const int64_t unit = GetProductKernels().rows;
    block = std::clamp<int64_t>(kMostBlockScores / stride / unit, 1, kMostBlockUnits) * unit;
  }

  int64_t group() const { return heads / key_heads; }
  int64_t blocks() const { return (queries + block - 1) / block; }
  // The keys that some query of [0, end) sees.
  int64_t Seen(int64_t end) const { return causal ? std::min(keys, end) : keys; }
  bool empty() const { return batch * heads * queries * keys == 0; }
};

// A matrix with rows or columns next to each other: one of the steps is 1.
template <typename T>
struct LeftMatrix {
  const T* data;
  int64_t row_step, term_step;
};

// The right matrix of several products, [terms, columns], times a factor.
template <typename T>
class RightMatrix;

// In packed panels.
template <>
class RightMatrix<float> {
 public:
  static int64_t Elements(int64_t terms, int64_t columns) { return RoundUp(PanelFloats(terms, columns), kLineFloats); }

  RightMatrix(const OneBlasThread*, const float* b, MatrixLayout layout, int64_t terms, int64_t columns, float factor,
              float* memory)
      : panels_(memory), terms_(terms), all_columns_(columns) {
    PackPanels(b, layout, terms, columns, memory);
    if (factor != 1) GetRowLoops<float>().scale(memory, factor, memory, PanelFloats(terms, columns));
  }

  // y [rows, columns] = a [rows, terms] times the first terms and columns, or adds that to y. May
  // write more columns, up to all.
  void Multiply(const LeftMatrix<float>& a, int64_t rows, int64_t terms, int64_t columns, bool add, float* y,
                int64_t y_step) const {
    const int64_t width = PanelColumns();
    const LeftRows left = {a.data, GetProductKernels().rows * a.row_step, a.row_step, a.term_step};
    for (int64_t column = 0; column < columns; column += width) {
      MultiplyPanels(left, panels_ + column * terms_, terms, rows, std::min(width, all_columns_ - column), add,
                     y + column, y_step);
    }
  }

 private:
  const float* panels_;
  int64_t terms_, all_columns_;
};

// In place, for OpenBLAS.
template <>
class RightMatrix<double> {
 public:
  static int64_t Elements(int64_t, int64_t) { return 0; }

  RightMatrix(const OneBlasThread* one_thread, const double* b, MatrixLayout layout, int64_t, int64_t, double factor,
              double*)
      : one_thread_(*one_thread), b_(b), layout_(layout), factor_(factor) {}

  void Multiply(const LeftMatrix<double>& a, int64_t rows, int64_t terms, int64_t columns, bool add, double* y,
                int64_t y_step) const {
    const bool transpose_a = a.term_step != 1, transpose_b = layout_.column_step != 1;
    Gemm(one_thread_, transpose_a, transpose_b, rows, columns, terms, factor_, a.data,
         transpose_a ? a.term_step : a.row_step, b_, transpose_b ? layout_.column_step : layout_.row_step,
         add ? 1.0 : 0.0, y, y_step);
  }

 private:
  const OneBlasThread& one_thread_;
  const double* b_;
  MatrixLayout layout_;
  double factor_;
};

// Memory of a thread, taken piece by piece.
template <typename T>
struct Area {
  T* next;
  T* Take(int64_t elements) {
    T* const taken = next;
    next += RoundUp(elements, kLineFloats);
    return taken;
  }
};

// The loops for the rows of scores.
template <typename T>
struct Loops {
  const RowLoops<T>& rows = GetRowLoops<T>();
  LoopFunction where = FindElementLoop("Where", DTypeOf<T>).run, add = FindElementLoop("Add", DTypeOf<T>).run,
               not_equal = FindElementLoop("NotEqual", DTypeOf<T>).run;
};

// Applies the mask to the first n scores of a row.
template <typename T>
void ApplyMask(const Loops<T>& loops, const Sizes& sizes, const void* mask, int64_t offset, int64_t n, T* scores,
               bool* keep) {
  const T excluded = -std::numeric_limits<T>::infinity();
  const bool is_vector = sizes.mask_steps[3] != 0;
  LoopOperand kept = {static_cast<const bool*>(mask) + offset, is_vector};
  if (!sizes.mask_is_bool) {
    const LoopOperand numbers = {static_cast<const T*>(mask) + offset, is_vector}, none = {&excluded, false};
    const LoopOperand compared[] = {numbers, none}, added[] = {{scores, true}, numbers};
    loops.not_equal(compared, keep, is_vector ? n : 1, nullptr);
    loops.add(added, scores, n, nullptr);
    kept.data = keep;
  }
  const LoopOperand selected[] = {kept, {scores, true}, {&excluded, false}};
  loops.where(selected, scores, n, nullptr);
}

// The elements of scratch for a block: the scores, 1 over the sum of each row, and what a mask
// keeps.
template <typename T>
struct Block {
  T* scores;
  T* inverse_sums;
  bool* keep;

  static int64_t Elements(const Sizes& sizes) {
    return sizes.block * sizes.stride + RoundUp(sizes.block, kLineFloats) +
           RoundUp((sizes.keys + static_cast<int64_t>(sizeof(T)) - 1) / static_cast<int64_t>(sizeof(T)), kLineFloats);
  }
  Block(const Sizes& sizes, Area<T>& area)
      : scores(area.Take(sizes.block * sizes.stride)),
        inverse_sums(area.Take(sizes.block)),
        keep(reinterpret_cast<bool*>(area.Take((sizes.keys + sizeof(T) - 1) / sizeof(T)))) {}
};

// Computes e^(score - largest score of the row) for the queries [first, first + count) of a head
// and the keys that they see, with zeros for keys that other queries of the block see.
template <typename T>
void ComputeWeights(const Loops<T>& loops, const Sizes& sizes, const KernelArguments& arguments,
                    const RightMatrix<T>& keys, int64_t b, int64_t h, int64_t first, int64_t count,
                    const Block<T>& block) {
  const int64_t seen = sizes.Seen(first + count);
  const T* const q = arguments.operand<T>(0) + sizes.q.At(b, h) + first * sizes.q.row;
  keys.Multiply({q, sizes.q.row, 1}, count, sizes.q.width, seen, false, block.scores, sizes.stride);
  for (int64_t i = 0; i < count; ++i) {
    T* const row = block.scores + i * sizes.stride;
    const int64_t n = sizes.Seen(first + i + 1);
    if (sizes.mask != 0) {
      const int64_t offset = b * sizes.mask_steps[0] + h * sizes.mask_steps[1] + (first + i) * sizes.mask_steps[2];
      ApplyMask(loops, sizes, arguments.operands[sizes.mask], offset, n, row, block.keep);
    }
    // Loops take whole vectors.
    const int64_t width = RoundUp(n, kLineFloats);
    std::fill(row + n, row + width, -std::numeric_limits<T>::infinity());
    const T largest = loops.rows.max(row, width);
    if (largest == -std::numeric_limits<T>::infinity()) {
      std::fill_n(row, width, T(0));
      block.inverse_sums[i] = 0;
    } else {
      block.inverse_sums[i] = 1 / loops.rows.exp_shifted(row, largest, row, width);
    }
    if (width < seen) std::fill(row + width, row + seen, T(0));
  }
}

// Products of OpenBLAS, which are those of float64, run on the thread that asks for them.
template <typename T>
void StartBlas(const Sizes& sizes, std::optional<OneBlasThread>& one_thread) {
  if constexpr (sizeof(T) == 8) one_thread.emplace(sizes.block, sizes.keys, sizes.q.width);
}
const OneBlasThread* AddressOf(const std::optional<OneBlasThread>& one) { return one.has_value() ? &*one : nullptr; }

template <typename T>
Kernel ForwardKernel(const Sizes& sizes, int threads) {
  // A task is some blocks of the heads that share their keys.
  const int64_t sets = sizes.batch * sizes.key_heads, blocks = sizes.group() * sizes.blocks();
  const int64_t most_parts = std::max<int64_t>(1, sizes.group() * sizes.queries / kLeastTaskRows);
  const Chunks parts(blocks, 1,
                     std::clamp<int64_t>((kWantedTasks + sets - 1) / std::max<int64_t>(sets, 1), 1, most_parts));
  const int64_t elements = Block<T>::Elements(sizes) + RightMatrix<T>::Elements(sizes.k.width, sizes.keys) +
                           RightMatrix<T>::Elements(sizes.keys, sizes.v.width);
  const auto run = [=](const KernelArguments& arguments) {
    std::optional<OneBlasThread> one_thread;
    StartBlas<T>(sizes, one_thread);
    const Loops<T> loops;
    arguments.pool->ParallelFor(sets * parts.number, [&](int64_t task, int thread) {
      if (arguments.stopped()) return;
      const int64_t set = task / parts.number, part = task % parts.number;
      const int64_t b = set / sizes.key_heads, key_head = set % sizes.key_heads;
      const int64_t begin = parts.begin(part), end = parts.end(part);
      // A part of one head sees the keys of its last query.
      const bool one_head = begin / sizes.blocks() == (end - 1) / sizes.blocks();
      const int64_t seen = sizes.Seen(one_head ? std::min(sizes.queries, ((end - 1) % sizes.blocks() + 1) * sizes.block)
                                               : sizes.queries);
      Area<T> area{reinterpret_cast<T*>(arguments.scratch) + thread * elements};
      const Block<T> block(sizes, area);
      const RightMatrix<T> keys(AddressOf(one_thread), arguments.operand<T>(1) + sizes.k.At(b, key_head),
                                {1, sizes.k.row}, sizes.k.width, seen, static_cast<T>(sizes.scale),
                                area.Take(RightMatrix<T>::Elements(sizes.k.width, seen)));
      const RightMatrix<T> values(AddressOf(one_thread), arguments.operand<T>(2) + sizes.v.At(b, key_head),
                                  {sizes.v.row, 1}, seen, sizes.v.width, 1,
                                  area.Take(RightMatrix<T>::Elements(seen, sizes.v.width)));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t h = key_head * sizes.group() + i / sizes.blocks(), first = i % sizes.blocks() * sizes.block;
        const int64_t count = std::min(sizes.block, sizes.queries - first);
        ComputeWeights(loops, sizes, arguments, keys, b, h, first, count, block);
        T* const y = arguments.output<T>() + sizes.y.At(b, h) + first * sizes.y.row;
        values.Multiply({block.scores, sizes.stride, 1}, count, sizes.Seen(first + count), sizes.v.width, false, y,
                        sizes.y.row);
        for (int64_t row = 0; row < count; ++row)
          loops.rows.scale(y + row * sizes.y.row, block.inverse_sums[row], y + row * sizes.y.row, sizes.v.width);
      }
    });
    return absl::OkStatus();
  };
  return {.name = "attention by blocks", .run = run, .scratch_bytes = ScratchBytes(threads, elements, sizeof(T))};
}

// Sets the rows of one head to zero.
template <typename T>
void Clear(T* rows, int64_t count, const Steps& steps) {
  for (int64_t row = 0; row < count; ++row) std::fill_n(rows + row * steps.row, steps.width, T(0));
}

template <typename T>
Kernel BackwardKernel(const Sizes& sizes, int threads) {
  const int64_t d = sizes.q.width, e = sizes.v.width;
  // One task adds up all gradients of a key head, block by block.
  const int64_t sets = sizes.batch * sizes.key_heads;
  const int64_t elements = Block<T>::Elements(sizes) + sizes.block * sizes.stride +
                           RightMatrix<T>::Elements(d, sizes.keys) + RightMatrix<T>::Elements(sizes.keys, d) +
                           RightMatrix<T>::Elements(e, sizes.keys) + RightMatrix<T>::Elements(sizes.block, d) +
                           RightMatrix<T>::Elements(sizes.block, e);
  const auto run = [=](const KernelArguments& arguments) {
    std::optional<OneBlasThread> one_thread;
    StartBlas<T>(sizes, one_thread);
    const OneBlasThread* const blas = AddressOf(one_thread);
    const Loops<T> loops;
    const SoftmaxGradientRow<T> gradient_row = GetSoftmaxGradientRow<T>();
    arguments.pool->ParallelFor(sets, [&](int64_t set, int thread) {
      if (arguments.stopped()) return;
      const int64_t b = set / sizes.key_heads, key_head = set % sizes.key_heads;
      const int64_t seen = sizes.Seen(sizes.queries);
      const T* const k = arguments.operand<T>(1) + sizes.k.At(b, key_head);
      const T* const v = arguments.operand<T>(2) + sizes.v.At(b, key_head);
      T* const dk = arguments.output<T>(1) + sizes.k.At(b, key_head);
      T* const dv = arguments.output<T>(2) + sizes.v.At(b, key_head);
      Clear(dk, sizes.keys, sizes.k);
      Clear(dv, sizes.keys, sizes.v);
      Area<T> area{reinterpret_cast<T*>(arguments.scratch) + thread * elements};
      const Block<T> block(sizes, area);
      T* const ds = area.Take(sizes.block * sizes.stride);
      auto right = [&](const T* x, MatrixLayout layout, int64_t terms, int64_t columns, double factor, T* memory) {
        return RightMatrix<T>(blas, x, layout, terms, columns, static_cast<T>(factor), memory);
      };
      auto take = [&](int64_t terms, int64_t columns) { return area.Take(RightMatrix<T>::Elements(terms, columns)); };
      const RightMatrix<T> scaled_keys = right(k, {1, sizes.k.row}, d, seen, sizes.scale, take(d, seen));
      const RightMatrix<T> keys = right(k, {sizes.k.row, 1}, seen, d, 1, take(seen, d));
      const RightMatrix<T> values = right(v, {1, sizes.v.row}, e, seen, 1, take(e, seen));
      T* const memory_of_q = take(sizes.block, d);
      T* const memory_of_dy = take(sizes.block, e);
      for (int64_t i = 0; i < sizes.group() * sizes.blocks(); ++i) {
        const int64_t h = key_head * sizes.group() + i / sizes.blocks(), first = i % sizes.blocks() * sizes.block;
        const int64_t count = std::min(sizes.block, sizes.queries - first), used = sizes.Seen(first + count);
        ComputeWeights(loops, sizes, arguments, scaled_keys, b, h, first, count, block);
        const T* const q = arguments.operand<T>(0) + sizes.q.At(b, h) + first * sizes.q.row;
        const T* const dy = arguments.operand<T>(3) + sizes.y.At(b, h) + first * sizes.y.row;
        values.Multiply({dy, sizes.y.row, 1}, count, e, used, false, ds, sizes.stride);
        for (int64_t row = 0; row < count; ++row) {
          const int64_t n = sizes.Seen(first + row + 1), width = RoundUp(n, kLineFloats);
          T* const of_row = ds + row * sizes.stride;
          std::fill(of_row + n, of_row + width, T(0));
          gradient_row(block.scores + row * sizes.stride, block.inverse_sums[row], of_row, static_cast<T>(sizes.scale),
                       width);
          if (width < used) std::fill(of_row + width, of_row + used, T(0));
        }
        keys.Multiply({ds, sizes.stride, 1}, count, used, d, false,
                      arguments.output<T>(0) + sizes.q.At(b, h) + first * sizes.q.row, sizes.q.row);
        right(q, {sizes.q.row, 1}, count, d, 1, memory_of_q)
            .Multiply({ds, 1, sizes.stride}, used, count, d, true, dk, sizes.k.row);
        right(dy, {sizes.y.row, 1}, count, e, 1, memory_of_dy)
            .Multiply({block.scores, 1, sizes.stride}, used, count, e, true, dv, sizes.v.row);
      }
    });
    return absl::OkStatus();
  };
  return {.name = "attention by blocks", .run = run, .scratch_bytes = ScratchBytes(threads, elements, sizeof(T))};
}

// Without keys or queries there is nothing but zeros.
Kernel ZeroKernel(const KernelRequest& request) {
  std::vector<size_t> bytes;
  for (const TensorType& type : request.node.outputs) bytes.push_back(static_cast<size_t>(type.byte_size()));
  return {.name = "zeros", .run = [bytes](const KernelArguments& arguments) {
            for (size_t i = 0; i < bytes.size(); ++i) {
              if (bytes[i] > 0) std::memset(arguments.outputs[i], 0, bytes[i]);
            }
            return absl::OkStatus();
          }};
}

absl::StatusOr<Kernel> MakeAttention(const KernelRequest& request) {
  const Sizes sizes(request, 3);
  if (sizes.empty()) return ZeroKernel(request);
  return request.output().dtype == kFloat32 ? ForwardKernel<float>(sizes, request.threads)
                                            : ForwardKernel<double>(sizes, request.threads);
}

absl::StatusOr<Kernel> MakeAttentionGrad(const KernelRequest& request) {
  const Sizes sizes(request, 4);
  if (sizes.empty()) return ZeroKernel(request);
  return request.output().dtype == kFloat32 ? BackwardKernel<float>(sizes, request.threads)
                                            : BackwardKernel<double>(sizes, request.threads);
}

}  // namespace

void RegisterAttentionKernels(KernelRegistry& registry) {
  registry.Add("ScaledDotProductAttention", MakeAttention);
  registry.Add("ScaledDotProductAttentionGrad", MakeAttentionGrad);
}

}  // namespace gradweave
