#include "gradweave/runtime/cpu/product/product.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/product/panels.h"
#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// Maximum terms of a block: a panel of two vectors then fills half of a first-level cache of 32 KB,
// or streams from the second level.
constexpr int64_t kMostTerms = 320;
// Packed columns of b, and the rows of a that are multiplied with them, should stay in the
// second-level cache.
constexpr int64_t kMostCopiedFloats = 64 << 10;
constexpr int64_t kMostPassingFloats = 32 << 10;
// A block of y for RunInBlocks should stay there too, beside them.
constexpr int64_t kMostBlockFloats = 16 << 10;
// With fewer panels at a time, passing rows by them does not pay.
constexpr int64_t kLeastPanels = 4;
// Terms that are multiples of this apart, in floats, map to too few sets for a block's terms.
constexpr int64_t kCacheTerms = 64;

// Products that take as long as a load of a block, as a result that is copied by itself, and as the
// copy of an element of a, whose rows fill no whole vectors.
constexpr double kProductsPerLoad = 1.3, kProductsPerResult = 3, kProductsPerCopy = 2;

// Returns the number of rows of `row` floats that fit into `floats`, in whole register blocks.
int64_t RowsIn(int64_t floats, int64_t row) {
  const int64_t unit = GetProductKernels().rows;
  return std::max<int64_t>(1, floats / row / unit) * unit;
}

// Returns true if blocks read a packed copy of their rows of a. Contiguous rows (column_step 1) are
// copied if many panels read cache lines that evict each other. Rows of a transposed matrix
// (row_step 1) are copied in that case too, and if enough panels pay for the copy.
bool CopiesRows(int64_t columns, const MatrixLayout& a) {
  if (a.column_step == 1) return a.row_step % kCacheWay == 0 && columns >= 4 * PanelColumns();
  return a.row_step != 1 || a.column_step % kCacheTerms == 0 || columns >= 16 * PanelColumns();
}

Chunks PartsOf(int64_t count, int64_t unit, int64_t number) {
  return Chunks(count, RoundUp((count + number - 1) / std::max<int64_t>(number, 1), unit), number);
}

}  // namespace

void MultiplyPanels(const LeftRows& a, const float* panels, int64_t terms, int64_t rows, int64_t columns, bool add,
                    float* y, int64_t y_step) {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t unit = kernels.rows, lanes = kernels.lanes;
  alignas(64) float edge[kMostProductRows * kMostPanelVectors * 16];
  for (int64_t column = 0; column < columns; column += PanelColumns()) {
    const int64_t count = std::min(PanelColumns(), columns - column), vectors = (count + lanes - 1) / lanes;
    const int64_t width = vectors * lanes;
    const bool whole = count == width;
    ProductBlock g;
    g.a_row = a.row_step;
    g.a_term = a.term_step;
    g.b = panels;
    g.terms = terms;
    g.c_row = whole ? y_step : width;
    g.add = whole && add;
    for (int64_t row = 0; row < rows; row += unit) {
      const int64_t height = std::min(unit, rows - row);
      g.a = a.data + row / unit * a.unit_step;
      float* to = y + row * y_step + column;
      g.c = whole ? to : edge;
      kernels.block[height][vectors](g);
      for (int64_t i = 0; !whole && i < height; ++i) {
        for (int64_t j = 0; j < count; ++j)
          to[i * y_step + j] = add ? to[i * y_step + j] + edge[i * width + j] : edge[i * width + j];
      }
    }
    panels += terms * width;
  }
}

int64_t PanelFloats(int64_t terms, int64_t columns) { return RoundUp(columns, GetProductKernels().lanes) * terms; }

void PackPanels(const float* b, MatrixLayout layout, int64_t terms, int64_t columns, float* to) {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t width = PanelColumns(), rest = columns % width, last_width = RoundUp(rest, kernels.lanes);
  if (layout.column_step == 1) {
    kernels.pack(b, terms, columns, layout.row_step, width, last_width, to);
    return;
  }
  for (int64_t column = 0; column < columns; column += width) {
    const int64_t count = std::min(width, columns - column), step = count == width ? width : last_width;
    kernels.transpose(b + column * layout.column_step, count, terms, layout.column_step, to + column * terms, step);
    // Columns beyond the last one are multiplied too, so they must be zero.
    for (int64_t t = 0; count < step && t < terms; ++t)
      std::fill_n(to + column * terms + t * step + count, step - count, 0.0f);
  }
}

double RegisterBlockProducts(double rows, double vectors) {
  return std::max(
      {rows * vectors, kProductsPerLoad * (rows + vectors), static_cast<double>(ThisMachine().products_in_flight)});
}

double BlockProducts(int64_t rows, int64_t vectors) {
  const ProductKernels& kernels = GetProductKernels();
  auto cost_of = [&](int64_t size, int64_t unit, auto&& cost) {
    return static_cast<double>(size / unit) * cost(unit) + (size % unit > 0 ? cost(size % unit) : 0.0);
  };
  return cost_of(rows, kernels.rows, [&](int64_t height) {
    return cost_of(vectors, kernels.panel_vectors, [&](int64_t width) {
      return RegisterBlockProducts(static_cast<double>(height), static_cast<double>(width));
    });
  });
}

Product::Product(int64_t rows, int64_t columns, int64_t terms, MatrixLayout a, MatrixLayout b)
    : rows_(rows),
      columns_(columns),
      terms_(terms),
      packed_columns_(RoundUp(columns, GetProductKernels().lanes)),
      a_(a),
      b_(b),
      blocks_((terms + kMostTerms - 1) / kMostTerms),
      copy_a_(CopiesRows(columns, a)),
      copies_all_terms_(std::min(RoundUp(columns, PanelColumns()), kLeastPanels * PanelColumns()) * terms <=
                        kMostCopiedFloats),
      rows_at_a_time_(RowsIn(kMostPassingFloats, copies_all_terms_ ? std::max(terms, kMostTerms) : kMostTerms)) {}

Work Product::work() const {
  const ProductKernels& kernels = GetProductKernels();
  const double sums = BlockProducts(rows_, packed_columns_ / kernels.lanes);
  const double rows = static_cast<double>(rows_), terms = static_cast<double>(terms_);
  const double copied = static_cast<double>(packed_columns_) * terms;
  // The cache has to hold a copy and its source.
  Work work = Moved(copied, 2 * copied * sizeof(float));
  work.calls = std::ceil(rows / kernels.rows) * static_cast<double>(pack_tasks()) * static_cast<double>(blocks_);
  // The block loops write whole vectors, so results of a partial one are copied one by one.
  const double edge = columns_ % kernels.lanes == 0 ? 0 : static_cast<double>(columns_ % PanelColumns());
  work.products = sums * terms + kProductsPerResult * rows * edge * static_cast<double>(blocks_);
  if (copy_a_) work.products += kProductsPerCopy * rows * terms;
  work.moved += rows * static_cast<double>(columns_);
  return work;
}

int64_t Product::block_columns(const Parts& parts) const {
  const int64_t panel = PanelColumns(), all = RoundUp(parts.columns.size, panel);
  const int64_t terms = copies_all_terms_ ? std::max<int64_t>(terms_, 1) : kMostTerms;
  return std::min(all, kMostCopiedFloats / terms / panel * panel);
}

int64_t Product::PanelFloats(const Parts& parts) const {
  return block_columns(parts) * (copies_all_terms_ ? terms_ : std::min(terms_, kMostTerms));
}

int64_t Product::BlockRows(const Parts& parts) const {
  return std::min(rows_at_a_time_, RowsIn(kMostBlockFloats, block_columns(parts)));
}

size_t Product::workspace_bytes(const Parts& parts, bool in_blocks) const {
  const int64_t rows = RoundUp(std::min(rows_at_a_time_, parts.rows.size), GetProductKernels().rows);
  const int64_t floats = RoundUp(PanelFloats(parts), 16) +
                         (copy_a_ ? RoundUp(rows * std::min(terms_, kMostTerms), 16) : 0) +
                         (in_blocks ? RoundUp(BlockRows(parts) * block_columns(parts), 16) : 0);
  return sizeof(Workspace) + floats * sizeof(float);
}

Product::Parts Product::SplitRows(int64_t number) const {
  return {PartsOf(rows_, GetProductKernels().rows, number), PartsOf(columns_, PanelColumns(), 1)};
}

Product::Parts Product::Split(int64_t wanted, int threads) const {
  const int64_t unit_rows = GetProductKernels().rows, unit_columns = PanelColumns();
  Parts best = SplitRows(1);
  std::pair<int64_t, double> most{0, 0};  // Number of parts, up to `wanted`, and the negated number of floats moved.
  for (int64_t number = 1; number <= wanted; ++number) {
    const Parts parts{PartsOf(rows_, unit_rows, number),
                      PartsOf(columns_, unit_columns, (wanted + number - 1) / number)};
    // A part packs its columns of b and reads its rows of a. If the columns are few, each thread
    // packs them only once.
    const bool once = copies_all_terms_ && block_columns(parts) >= parts.columns.size;
    const int64_t copies = once ? std::min<int64_t>(parts.rows.number, threads) : parts.rows.number;
    const double moved = static_cast<double>(copies) * columns_ + static_cast<double>(parts.columns.number) * rows_;
    const std::pair<int64_t, double> rank{std::min(parts.number(), wanted), -moved};
    if (number == 1 || rank > most) most = rank, best = parts;
  }
  return best;
}

void Product::CopyPanels(const float* b, int64_t block, int64_t first_column, int64_t columns, float* to) const {
  PackPanels(b + FirstTerm(block) * b_.row_step + first_column * b_.column_step, b_, TermsOf(block), columns, to);
}

void Product::CopyAllPanels(const float* b, int64_t first_column, int64_t columns, Workspace& workspace) const {
  const float* const first = b + first_column * b_.column_step;
  if (workspace.packed != nullptr || workspace.columns == first) return;
  const int64_t width = RoundUp(columns, PanelColumns());
  for (int64_t block = 0; block < blocks_; ++block)
    CopyPanels(b, block, first_column, columns, workspace.floats() + FirstTerm(block) * width);
  workspace.columns = first;
}

std::string Product::packed_layout() const {
  return absl::StrCat("product ", columns_, " ", terms_, " ", b_.row_step, " ", b_.column_step);
}

int64_t Product::pack_tasks() const { return (columns_ + PanelColumns() - 1) / PanelColumns(); }

void Product::Pack(const float* b, int64_t task, float* packed) const {
  const int64_t column = task * PanelColumns(), columns = std::min(PanelColumns(), columns_ - column);
  for (int64_t block = 0; block < blocks_; ++block)
    CopyPanels(b, block, column, columns, packed + FirstTerm(block) * packed_columns_ + column * TermsOf(block));
}

void Product::RunRows(const float* a, const float* panels, int64_t block, const Block& rows, bool add, float* y,
                      int64_t y_step, float* scratch) const {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t terms = TermsOf(block), unit = kernels.rows;
  const float* from = a + rows.row * a_.row_step + FirstTerm(block) * a_.column_step;
  if (copy_a_ && a_.column_step == 1) {
    for (int64_t row = 0; row < rows.rows; row += unit)
      kernels.transpose(from + row * a_.row_step, std::min(unit, rows.rows - row), terms, a_.row_step,
                        scratch + row * terms, unit);
  } else if (copy_a_) {
    kernels.pack(from, terms, rows.rows, a_.column_step, unit, unit, scratch);
  }
  MultiplyPanels(copy_a_ ? LeftRows{scratch, unit * terms, 1, unit}
                         : LeftRows{from, unit * a_.row_step, a_.row_step, a_.column_step},
                 panels, terms, rows.rows, rows.columns, add, y, y_step);
}

void Product::RunAllTerms(const float* a, const Block& rows, bool add, float* y, int64_t y_step, float* scratch,
                          Workspace& workspace) const {
  const int64_t width = RoundUp(rows.columns, PanelColumns());
  for (int64_t block = 0; block < blocks_; ++block) {
    const float* panels = workspace.packed != nullptr ? Packed(workspace, block, rows.column)
                                                      : workspace.floats() + FirstTerm(block) * width;
    RunRows(a, panels, block, rows, add || block > 0, y, y_step, scratch);
  }
}

Product::Block Product::PartOf(const Parts& parts, int64_t part) const {
  const int64_t row = part % parts.rows.number, column = part / parts.rows.number;
  return {parts.rows.begin(row), parts.rows.end(row) - parts.rows.begin(row), parts.columns.begin(column),
          parts.columns.end(column) - parts.columns.begin(column)};
}

void Product::Run(const float* a, const float* b, const Parts& parts, int64_t part, bool add, float* y, int64_t y_step,
                  Workspace& workspace) const {
  const Block whole = PartOf(parts, part);
  const int64_t most_columns = block_columns(parts);
  float* const scratch = workspace.floats() + RoundUp(PanelFloats(parts), 16);
  for (int64_t done = 0; done < whole.columns; done += most_columns) {
    const int64_t column = whole.column + done, columns = std::min(most_columns, whole.columns - done);
    const auto for_rows = [&](auto&& run) {
      for (int64_t row = 0; row < whole.rows; row += rows_at_a_time_) {
        const Block rows{whole.row + row, std::min(rows_at_a_time_, whole.rows - row), column, columns};
        run(rows, y + rows.row * y_step + column);
      }
    };
    if (copies_all_terms_) {
      CopyAllPanels(b, column, columns, workspace);
      for_rows([&](const Block& rows, float* to) { RunAllTerms(a, rows, add, to, y_step, scratch, workspace); });
      continue;
    }
    for (int64_t block = 0; block < blocks_; ++block) {
      const float* panels = workspace.floats();
      if (workspace.packed != nullptr) {
        panels = Packed(workspace, block, column);
      } else {
        CopyPanels(b, block, column, columns, workspace.floats());
      }
      for_rows([&](const Block& rows, float* to) {
        RunRows(a, panels, block, rows, add || block > 0, to, y_step, scratch);
      });
    }
  }
}

void Product::RunInBlocks(const float* a, const float* b, const Parts& parts, int64_t part, Workspace& workspace,
                          TakeBlock take) const {
  const Block whole = PartOf(parts, part);
  const int64_t most_columns = block_columns(parts), most_rows = BlockRows(parts);
  float* const y = workspace.floats() + RoundUp(PanelFloats(parts), 16);
  float* const scratch = y + RoundUp(most_rows * most_columns, 16);
  for (int64_t done = 0; done < whole.columns; done += most_columns) {
    const int64_t column = whole.column + done, columns = std::min(most_columns, whole.columns - done);
    CopyAllPanels(b, column, columns, workspace);
    for (int64_t row = 0; row < whole.rows; row += most_rows) {
      const Block rows{whole.row + row, std::min(most_rows, whole.rows - row), column, columns};
      RunAllTerms(a, rows, false, y, most_columns, scratch, workspace);
      take(rows, y, most_columns);
    }
  }
}

}  // namespace gradweave
