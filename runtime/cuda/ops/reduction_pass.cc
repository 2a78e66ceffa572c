#include "gradweave/runtime/cuda/ops/reduction_pass.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"

namespace gradweave {
namespace {

// Number of blocks that fills a large GPU. A pass with fewer blocks splits its reduced axis into
// parts of at least kLeastPart elements.
constexpr uint32_t kFullGrid = 264, kLeastPart = 2048, kMostParts = 256;

}  // namespace

PassForm FormOf(const ReductionPass& pass) {
  constexpr uint32_t kShortRow = 512;
  if (pass.inner != 1) return PassForm::kColumns;
  return pass.reduced <= kShortRow ? PassForm::kShortRows : PassForm::kLongRows;
}

uint32_t BlocksOf(const ReductionPass& pass) {
  switch (FormOf(pass)) {
    case PassForm::kShortRows:
      return (pass.outer + 7) / 8;  // A block has 8 warps.
    case PassForm::kLongRows:
      return pass.outer;
    case PassForm::kColumns:
      return pass.outer * ((pass.inner + kReducedColumns - 1) / kReducedColumns);
  }
  return 0;
}

ReductionPass MakeReductionPass(int64_t outer, int64_t reduced, int64_t inner) {
  ReductionPass pass = {static_cast<uint32_t>(outer), static_cast<uint32_t>(reduced), static_cast<uint32_t>(inner), 1};
  const uint32_t blocks = std::max<uint32_t>(BlocksOf(pass), 1);
  // All threads of a block read a row, but only 8 threads read a column.
  const uint32_t least = inner == 1 ? kLeastPart : 64;
  pass.parts = std::clamp<uint32_t>(kFullGrid / blocks, 1, std::clamp<uint32_t>(pass.reduced / least, 1, kMostParts));
  return pass;
}

// Joins neighbouring axes of one kind and drops axes of size 1.
std::vector<ReductionPass> ReductionPasses(const Shape& shape, const Integers& axes) {
  absl::InlinedVector<int64_t, 6> sizes = {1};  // Alternately kept and reduced.
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis].size() == 1) continue;
    const bool reduced = std::find(axes.begin(), axes.end(), axis) != axes.end();
    if (reduced == (sizes.size() % 2 == 0)) {
      sizes.back() *= shape[axis].size();
    } else {
      sizes.push_back(shape[axis].size());
    }
  }
  std::vector<ReductionPass> passes;
  while (sizes.size() > 1) {
    const size_t last = sizes.size() / 2 * 2 - 1;
    int64_t outer = 1, inner = 1;
    for (size_t i = 0; i < last; ++i) outer *= sizes[i];
    for (size_t i = last + 1; i < sizes.size(); ++i) inner *= sizes[i];
    passes.push_back(MakeReductionPass(outer, sizes[last], inner));
    sizes[last - 1] *= inner;
    sizes.resize(last);
  }
  return passes;
}

}  // namespace gradweave
