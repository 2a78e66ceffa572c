// The table of ONNX ops: all rows, by family.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "gradweave/frontend/onnx/importer.h"

namespace gradweave::onnx {

const std::vector<absl::Span<const OpRow>>& AllRows() {
  static const auto* const kAll = new std::vector<absl::Span<const OpRow>>{
      ElementwiseRows(), ActivationRows(), ReductionRows(), ShapeRows(),        SourceRows(),
      IndexingRows(),    ConvRows(),       PoolRows(),      MatMulRows(),       NormalizationRows(),
      LossRows(),        RecurrentRows(),  ImageRows(),     QuantizationRows(), ControlRows(),
      TrainingRows(),    AttentionRows(),  TextRows(),      MicrosoftRows(),
  };
  return *kAll;
}

const OpRow* FindRow(absl::string_view domain, absl::string_view op, int64_t opset) {
  using Key = std::pair<std::string, std::string>;
  static const auto* const kByName = [] {
    auto* by_name = new std::map<Key, std::vector<const OpRow*>>;
    for (const absl::Span<const OpRow> rows : AllRows()) {
      for (const OpRow& row : rows) (*by_name)[{row.domain, row.name}].push_back(&row);
    }
    return by_name;
  }();
  const auto found = kByName->find({std::string(domain), std::string(op)});
  if (found == kByName->end()) return nullptr;
  const OpRow* newest = nullptr;
  for (const OpRow* row : found->second) {
    if (row->since <= opset && (newest == nullptr || row->since > newest->since)) newest = row;
  }
  return newest;
}

}  // namespace gradweave::onnx
