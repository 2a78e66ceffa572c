#include "gradweave/graph/shape.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {

bool Shape::is_static() const {
  return std::all_of(dims_.begin(), dims_.end(), [](const Dim& dim) { return dim.is_known(); });
}

std::vector<int64_t> Shape::sizes() const {
  std::vector<int64_t> sizes;
  sizes.reserve(dims_.size());
  for (const Dim& dim : dims_) sizes.push_back(dim.size());
  return sizes;
}

Dim Shape::num_elements() const {
  Dim product(1);
  for (const Dim& dim : dims_) product = product * dim;
  return product;
}

Shape Shape::Substitute(const DimBindings& bindings) const {
  Shape result;
  for (const Dim& dim : dims_) result.Append(dim.Substitute(bindings));
  return result;
}

void Shape::CollectSymbols(std::set<std::string>& symbols) const {
  for (const Dim& dim : dims_) dim.CollectSymbols(symbols);
}

std::string Shape::ToString() const {
  return absl::StrCat(
      "[", absl::StrJoin(dims_, ",", [](std::string* out, const Dim& dim) { out->append(dim.ToString()); }), "]");
}

std::string TensorType::ToString() const { return absl::StrCat(DTypeName(dtype), shape.ToString()); }

std::string ToString(absl::Span<const TensorType> types) {
  return absl::StrJoin(types, ", ", [](std::string* out, const TensorType& type) { out->append(type.ToString()); });
}

}  // namespace gradweave
