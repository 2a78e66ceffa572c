// The size of a tensor along one axis: a number, or an expression over sizes that are known only at run time.
#ifndef GRADWEAVE_GRAPH_DIM_H_
#define GRADWEAVE_GRAPH_DIM_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/string_view.h"

namespace gradweave {

// Sizes of symbols by name.
using DimBindings = std::map<std::string, int64_t, std::less<>>;

// Known dimensions are integers. Dim("batch") is a symbol, and arithmetic on it gives polynomials with integer
// coefficients over symbols and floor quotients: a convolution's output has height (height - 3)/2 + 1, a flattened
// image 64*batch elements. An expression is kept in one canonical form, so equal polynomials compare equal. Cheap to
// copy. Arithmetic that leaves the range of int64 saturates, and a graph refuses dimensions of that size.
class Dim {
 public:
  Dim(int64_t size = 0) : size_(size) {}  // NOLINT: 28 is a dimension
  explicit Dim(absl::string_view symbol);

  bool is_known() const { return expression_ == nullptr; }
  // The size of a known dimension; meaningless for others.
  int64_t size() const { return size_; }

  // The expression with sizes put in for the symbols that are bound; known when all are.
  Dim Substitute(const DimBindings& bindings) const;

  // Adds the names of the symbols in it.
  void CollectSymbols(std::set<std::string>& symbols) const;

  // The name, if the dimension is a bare symbol.
  std::optional<std::string> AsSymbol() const;

  // "28", "batch", "64*batch", "floor((height - 3)/2) + 1". DimFromString reads all of these.
  std::string ToString() const;

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  friend bool operator==(const Dim& a, const Dim& b);

  // The largest integer not above a/divisor; divisor > 0.
  friend Dim FloorDivide(const Dim& a, int64_t divisor);

  // The q with q*b == a for all values of the symbols; nothing where there is none, or b has several terms.
  friend std::optional<Dim> DivideExactly(const Dim& a, const Dim& b);

 private:
  struct Expression;
  static Dim FromExpression(Expression expression);
  const Expression& AsExpression(Expression& storage) const;

  int64_t size_ = 0;
  std::shared_ptr<const Expression> expression_;  // Null for a known size.
};

Dim FloorDivide(const Dim& a, int64_t divisor);
std::optional<Dim> DivideExactly(const Dim& a, const Dim& b);

// Reads what Dim::ToString writes; nothing for other text. Nested deeper than 16 quotients is other text too.
std::optional<Dim> DimFromString(absl::string_view text);

// Whether a symbol may have that name: letters, digits and _, with no digit first.
bool IsSymbolName(absl::string_view name);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_DIM_H_
