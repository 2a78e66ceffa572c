#include "gradweave/runtime/cpu/tile/packed_weights.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {

Blocks WeightedSumBlocks(const TileKernels& kernels, int64_t rows, int64_t columns) {
  return ChooseBlocks(kernels, rows, columns, [&](int a, int b) { return kernels.weighted_sum[a][b] != nullptr; });
}

std::string PackedWeights::layout() const {
  return absl::StrCat("packed ", source, " ", row_step, " ", place, ": ", absl::StrJoin(terms, " "), ": ",
                      absl::StrJoin(row_blocks, " "));
}

int64_t PackedWeights::size() const {
  int64_t rows = 0;
  for (int block : row_blocks) rows += block;
  return rows * static_cast<int64_t>(terms.size());
}

void PackedWeights::Pack(const void* const* operands, float* prepared, int64_t block) const {
  const float* from = static_cast<const float*>(operands[operand]) + source;
  float* to = prepared + place;
  for (int64_t i = 0; i < block; ++i) {
    from += row_blocks[i] * row_step;
    to += row_blocks[i] * terms.size();
  }
  const int rows = row_blocks[block];
  for (size_t r = 0; r < terms.size(); ++r) {
    for (int a = 0; a < rows; ++a) *to++ = from[a * row_step + terms[r]];
  }
}

std::shared_ptr<const std::vector<PackedWeights>> PrepareWeights(TileBuilder& builder,
                                                                 std::vector<PackedWeights> weights) {
  for (PackedWeights& w : weights) w.place = builder.AddPrepared(w.size());
  auto shared = std::make_shared<const std::vector<PackedWeights>>(std::move(weights));
  std::vector<std::pair<int, int>> tasks;
  std::string layout;
  for (size_t i = 0; i < shared->size(); ++i) {
    absl::StrAppend(&layout, (*shared)[i].layout(), "; ");
    for (size_t block = 0; block < (*shared)[i].row_blocks.size(); ++block)
      tasks.emplace_back(static_cast<int>(i), static_cast<int>(block));
  }
  builder.AddPreparation(shared->at(0).operand, static_cast<int64_t>(tasks.size()), std::move(layout),
                         [shared, tasks](int64_t task, const void* const* operands, float* prepared) {
                           (*shared)[tasks[task].first].Pack(operands, prepared, tasks[task].second);
                         });
  return shared;
}

}  // namespace gradweave
