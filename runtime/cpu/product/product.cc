#include "gradweave/runtime/cpu/product/product.h"

#include <algorithm>
#include <utility>

#include "gradweave/runtime/cpu/product/product_kernels.h"

namespace gradweave {
namespace {

// A block's terms: a panel of two vectors of them fills half of a first-level cache of 32 KB, or streams from the
// second.
constexpr int64_t kMostTerms = 320;
// Copied columns of b, and rows of a that pass by them, are to stay in the second-level cache.
constexpr int64_t kMostCopiedFloats = 64 << 10;
constexpr int64_t kMostPassingFloats = 32 << 10;
// Steps between rows that are multiples of this, in floats, meet the same places of a first-level cache.
constexpr int64_t kCacheWay = 1024;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
int64_t PanelColumns() { return GetProductKernels().panel_vectors * GetProductKernels().lanes; }

}  // namespace

Product::Product(int64_t rows, int64_t columns, int64_t terms, MatrixLayout a, MatrixLayout b)
    : rows_(rows),
      columns_(columns),
      terms_(terms),
      a_(a),
      b_(b),
      blocks_((terms + kMostTerms - 1) / kMostTerms),
      copy_a_(a.column_step != 1 || (a.row_step % kCacheWay == 0 && columns >= 4 * PanelColumns())),
      rows_at_a_time_(std::max<int64_t>(1, kMostPassingFloats / kMostTerms / GetProductKernels().rows) *
                      GetProductKernels().rows) {}

bool Product::Pays(int64_t rows, int64_t columns, int64_t terms) {
  return rows > 1 && columns >= GetProductKernels().lanes / 2 && terms > 0;
}

bool Product::CopiesAllTerms(const Parts& parts) const {
  return RoundUp(parts.columns.size, PanelColumns()) * terms_ <= kMostCopiedFloats;
}

int64_t Product::ColumnsAtATime(const Parts& parts) const {
  const int64_t panel = PanelColumns(), all = RoundUp(parts.columns.size, panel);
  return CopiesAllTerms(parts) ? all : std::min(all, kMostCopiedFloats / kMostTerms / panel * panel);
}

size_t Product::workspace_bytes(const Parts& parts) const {
  const int64_t most_terms = std::min(terms_, kMostTerms);
  const int64_t copied = ColumnsAtATime(parts) * (CopiesAllTerms(parts) ? terms_ : most_terms);
  const int64_t rows = RoundUp(std::min(rows_at_a_time_, parts.rows.size), GetProductKernels().rows);
  return sizeof(Workspace) + RoundUp(copied + (copy_a_ ? rows * most_terms : 0), 16) * sizeof(float);
}

Product::Parts Product::Split(int64_t wanted, int threads) const {
  const int64_t unit_rows = GetProductKernels().rows, unit_columns = PanelColumns();
  const auto parts_of = [](int64_t count, int64_t unit, int64_t number) {
    return Chunks(count, RoundUp((count + number - 1) / std::max<int64_t>(number, 1), unit), number);
  };
  Parts best{parts_of(rows_, unit_rows, 1), parts_of(columns_, unit_columns, 1)};
  std::pair<int64_t, double> most{0, 0};  // Parts, up to as many as are wanted; and less floats that are moved.
  for (int64_t number = 1; number <= wanted; ++number) {
    const Parts parts{parts_of(rows_, unit_rows, number),
                      parts_of(columns_, unit_columns, (wanted + number - 1) / number)};
    // A part copies its columns of b, a thread only once if they are few, and reads its rows of a.
    const int64_t copies = CopiesAllTerms(parts) ? std::min<int64_t>(parts.rows.number, threads) : parts.rows.number;
    const double moved = static_cast<double>(copies) * columns_ + static_cast<double>(parts.columns.number) * rows_;
    const std::pair<int64_t, double> rank{std::min(parts.number(), wanted), -moved};
    if (number == 1 || rank > most) most = rank, best = parts;
  }
  return best;
}

void Product::CopyPanels(const float* b, int64_t block, int64_t first_column, int64_t columns, float* to) const {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t terms = TermsOf(block), width = PanelColumns(), rest = columns % width;
  const int64_t last_width = RoundUp(rest, kernels.lanes);
  const float* from = b + FirstTerm(block) * b_.row_step + first_column * b_.column_step;
  if (b_.column_step == 1) {
    kernels.pack(from, terms, columns, b_.row_step, width, last_width, to);
    return;
  }
  for (int64_t column = 0; column < columns; column += width) {
    const int64_t count = std::min(width, columns - column), step = count == width ? width : last_width;
    kernels.transpose(from + column * b_.column_step, count, terms, b_.column_step, to + column * terms, step);
    // What lies beside the last columns is multiplied too.
    for (int64_t t = 0; count < step && t < terms; ++t)
      std::fill_n(to + column * terms + t * step + count, step - count, 0.0f);
  }
}

void Product::RunBlock(const float* a, const float* panels, int64_t block, const Range& range, bool add, float* y,
                       int64_t y_step, float* scratch) const {
  const ProductKernels& kernels = GetProductKernels();
  const int64_t terms = TermsOf(block), unit = kernels.rows, lanes = kernels.lanes;
  alignas(64) float edge[kMostProductRows * kMostPanelVectors * 16];
  for (int64_t done = 0; done < range.rows; done += rows_at_a_time_) {
    const int64_t rows = std::min(rows_at_a_time_, range.rows - done);
    const float* from = a + (range.first_row + done) * a_.row_step + FirstTerm(block) * a_.column_step;
    if (copy_a_ && a_.column_step == 1) {
      for (int64_t row = 0; row < rows; row += unit)
        kernels.transpose(from + row * a_.row_step, std::min(unit, rows - row), terms, a_.row_step,
                          scratch + row * terms, unit);
    } else if (copy_a_) {
      kernels.pack(from, terms, rows, a_.column_step, unit, unit, scratch);
    }
    const float* panel = panels;
    for (int64_t column = 0; column < range.columns; column += PanelColumns()) {
      const int64_t count = std::min(PanelColumns(), range.columns - column), vectors = (count + lanes - 1) / lanes;
      const int64_t width = vectors * lanes;
      ProductBlock g;
      g.b = panel;
      g.terms = terms;
      for (int64_t row = 0; row < rows; row += unit) {
        const int64_t height = std::min(unit, rows - row);
        g.a = copy_a_ ? scratch + row * terms : from + row * a_.row_step;
        g.a_row = copy_a_ ? 1 : a_.row_step;
        g.a_term = copy_a_ ? unit : 1;
        float* to = y + (range.first_row + done + row) * y_step + range.first_column + column;
        const bool whole = count == width;
        g.c = whole ? to : edge;
        g.c_row = whole ? y_step : width;
        g.add = whole && add;
        kernels.block[height][vectors](g);
        for (int64_t i = 0; !whole && i < height; ++i) {
          for (int64_t j = 0; j < count; ++j)
            to[i * y_step + j] = add ? to[i * y_step + j] + edge[i * width + j] : edge[i * width + j];
        }
      }
      panel += terms * width;
    }
  }
}

void Product::Run(const float* a, const float* b, const Parts& parts, int64_t part, bool add, float* y, int64_t y_step,
                  Workspace& workspace) const {
  const int64_t row = part % parts.rows.number, column = part / parts.rows.number;
  Range range{parts.rows.begin(row), parts.rows.end(row) - parts.rows.begin(row), 0, 0};
  const int64_t at_a_time = ColumnsAtATime(parts);
  const bool all_terms = CopiesAllTerms(parts);
  const float* const first = b + parts.columns.begin(column) * b_.column_step;
  const int64_t end = parts.columns.end(column);
  float* const rows_of_a = workspace.floats() + at_a_time * (all_terms ? terms_ : std::min(terms_, kMostTerms));
  for (int64_t begin = parts.columns.begin(column); begin < end; begin += at_a_time) {
    range.first_column = begin;
    range.columns = std::min(at_a_time, end - begin);
    for (int64_t block = 0; block < blocks_; ++block) {
      float* panels = workspace.floats() + (all_terms ? FirstTerm(block) * at_a_time : 0);
      if (!all_terms || workspace.columns != first) CopyPanels(b, block, range.first_column, range.columns, panels);
      RunBlock(a, panels, block, range, add || block > 0, y, y_step, rows_of_a);
    }
  }
  workspace.columns = all_terms ? first : nullptr;
}

}  // namespace gradweave
