// The size of a tensor along one axis: a number, or an expression over sizes that are known only at
// run time.
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

// Maps the name of a symbol to its size.
using DimBindings = std::map<std::string, int64_t, std::less<>>;

// A known dimension is an integer. Dim("batch") is a symbol. Arithmetic on symbols gives
// polynomials with integer coefficients over symbols and floor quotients: the output of a
// convolution has the height (height - 3)/2 + 1, a flattened image has 64*batch elements.
// Expressions have one canonical form, so equal polynomials compare equal. Copying is cheap.
// Quotients of quotients become one quotient. Arithmetic that leaves the range of int64 saturates.
// An expression of more than 1024 characters, with quotients more than 16 deep or with a
// coefficient that saturates becomes the largest number. Graph::AddNode refuses dimensions of that
// size.
class Dim {
 public:
  Dim(int64_t size = 0) : size_(size) {}  // NOLINT: 28 is a dimension
  explicit Dim(absl::string_view symbol);

  bool is_known() const { return expression_ == nullptr; }
  // The size of a known dimension; meaningless if is_known() is false.
  int64_t size() const { return size_; }

  // Replaces each bound symbol by its size. The result is known if all symbols are bound.
  Dim Substitute(const DimBindings& bindings) const;

  // Adds the names of this expression's symbols to the set.
  void CollectSymbols(std::set<std::string>& symbols) const;

  // Returns the symbol's name if the dimension is a single symbol, else nullopt.
  std::optional<std::string> AsSymbol() const;

  // Formats the expression: "28", "batch", "64*batch", "floor((height - 3)/2) + 1". DimFromString
  // parses all of these.
  std::string ToString() const;

  friend Dim operator+(const Dim& a, const Dim& b);
  friend Dim operator-(const Dim& a, const Dim& b);
  friend Dim operator*(const Dim& a, const Dim& b);
  friend bool operator==(const Dim& a, const Dim& b);

  // Returns floor(a/divisor). The divisor is positive.
  friend Dim FloorDivide(const Dim& a, int64_t divisor);

  // Returns the q with q*b == a for all values of the symbols. Returns nullopt if there is no such
  // q or if b has more than one term.
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

// Parses the output of Dim::ToString. Returns nullopt for any other text, for text longer than 1024
// characters and for quotients nested more than 16 deep.
std::optional<Dim> DimFromString(absl::string_view text);

// Returns true if a symbol may have this name: letters, digits and underscores, with no digit
// first, and not "floor".
bool IsSymbolName(absl::string_view name);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_DIM_H_
