#include "gradweave/graph/dim.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
// Limits of an expression: they bound time and memory of arithmetic, which files can ask for. The
// parser has the same ones, so every expression that a graph can hold can be read again.
constexpr int kMaxDepth = 16;          // Quotients in quotients.
constexpr size_t kMaxText = 1024;      // Characters of ToString.
constexpr size_t kMaxProducts = 1024;  // Products of terms that one multiplication makes.

// Both saturate at kMax and -kMax. The least int64 has no negative, and divided by -1 it traps.
int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? (a > 0 ? kMax : -kMax) : std::max(sum, -kMax);
}

int64_t SaturatingMultiply(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? ((a > 0) == (b > 0) ? kMax : -kMax) : std::max(product, -kMax);
}

int64_t FloorDivideInt(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

// The remainder in [0, b).
int64_t Remainder(int64_t a, int64_t b) { return a % b < 0 ? a % b + b : a % b; }

}  // namespace

// A sum of terms, each a coefficient times a product of factors. A factor's text orders and
// compares it. A floor quotient also keeps its numerator.
struct Dim::Expression {
  struct Factor {
    std::string text;  // The symbol, or "floor((numerator)/divisor)".
    std::shared_ptr<const Dim> numerator;
    int64_t divisor = 1;
    int depth = 0;  // Quotients in each other, this one included.
    bool operator<(const Factor& other) const { return text < other.text; }
    bool operator==(const Factor& other) const { return text == other.text; }
  };
  using Product = std::vector<Factor>;  // Sorted; empty for the constant term.
  std::map<Product, int64_t> terms;     // No coefficient is zero.

  void Add(const Product& product, int64_t coefficient) {
    int64_t& sum = terms[product];
    sum = SaturatingAdd(sum, coefficient);
    if (sum == 0) terms.erase(product);
  }

  int depth() const {
    int depth = 0;
    for (const auto& [product, coefficient] : terms) {
      for (const Factor& factor : product) depth = std::max(depth, factor.depth);
    }
    return depth;
  }
  // At least the number of characters of the text.
  size_t MostText() const {
    constexpr size_t kSignAndCoefficient = 24;
    size_t size = 0;
    for (const auto& [product, coefficient] : terms) {
      size += kSignAndCoefficient;
      for (const Factor& factor : product) size += factor.text.size() + 1;
    }
    return size;
  }
};

Dim::Dim(absl::string_view symbol) {
  Expression expression;
  expression.terms[{{std::string(symbol), nullptr, 1, 0}}] = 1;
  expression_ = std::make_shared<const Expression>(std::move(expression));
}

Dim Dim::FromExpression(Expression expression) {
  if (expression.terms.empty()) return Dim(0);
  if (expression.terms.size() == 1 && expression.terms.begin()->first.empty())
    return Dim(expression.terms.begin()->second);
  for (const auto& [product, coefficient] : expression.terms) {
    if (coefficient == kMax || coefficient == -kMax) return Dim(kMax);
  }
  Dim result;
  const bool may_be_long = expression.MostText() > kMaxText;
  result.expression_ = std::make_shared<const Expression>(std::move(expression));
  return may_be_long && result.ToString().size() > kMaxText ? Dim(kMax) : result;
}

const Dim::Expression& Dim::AsExpression(Expression& storage) const {
  if (expression_ != nullptr) return *expression_;
  if (size_ != 0) storage.terms[{}] = size_;
  return storage;
}

Dim operator+(const Dim& a, const Dim& b) {
  if (a.is_known() && b.is_known()) return Dim(SaturatingAdd(a.size_, b.size_));
  Dim::Expression storage_a, storage_b;
  Dim::Expression sum = a.AsExpression(storage_a);
  for (const auto& [product, coefficient] : b.AsExpression(storage_b).terms) sum.Add(product, coefficient);
  return Dim::FromExpression(std::move(sum));
}

Dim operator-(const Dim& a, const Dim& b) { return a + Dim(-1) * b; }

Dim operator*(const Dim& a, const Dim& b) {
  if (a.is_known() && b.is_known()) return Dim(SaturatingMultiply(a.size_, b.size_));
  Dim::Expression storage_a, storage_b, result;
  const Dim::Expression &left = a.AsExpression(storage_a), &right = b.AsExpression(storage_b);
  if (left.terms.size() * right.terms.size() > kMaxProducts) return Dim(kMax);
  for (const auto& [product_a, coefficient_a] : left.terms) {
    for (const auto& [product_b, coefficient_b] : right.terms) {
      Dim::Expression::Product product;
      std::merge(product_a.begin(), product_a.end(), product_b.begin(), product_b.end(), std::back_inserter(product));
      result.Add(product, SaturatingMultiply(coefficient_a, coefficient_b));
    }
  }
  return Dim::FromExpression(std::move(result));
}

bool operator==(const Dim& a, const Dim& b) {
  if (a.is_known() || b.is_known()) return a.is_known() && b.is_known() && a.size_ == b.size_;
  return a.expression_ == b.expression_ || a.expression_->terms == b.expression_->terms;
}

Dim FloorDivide(const Dim& a, int64_t divisor) {
  if (divisor == 1) return a;
  if (a.is_known()) return Dim(FloorDivideInt(a.size_, divisor));
  // floor((divisor*q + r)/divisor) = q + floor(r/divisor), so multiples of the divisor leave the
  // quotient.
  Dim::Expression quotient, rest;
  for (const auto& [product, coefficient] : a.expression_->terms) {
    const int64_t whole = FloorDivideInt(coefficient, divisor), left = Remainder(coefficient, divisor);
    if (product.empty() || left == 0) {
      if (whole != 0) quotient.Add(product, whole);
      if (left != 0) rest.Add(product, left);
    } else {
      rest.Add(product, coefficient);
    }
  }
  const Dim remaining = Dim::FromExpression(std::move(rest));
  Dim result = Dim::FromExpression(std::move(quotient));
  if (remaining.is_known()) return result + Dim(FloorDivideInt(remaining.size_, divisor));
  // floor((floor(x/a) + b)/c) = floor((x + a*b)/(a*c)), so layer after layer of strides makes no
  // quotient in a quotient.
  const auto& [product, coefficient] = *remaining.expression_->terms.rbegin();
  const auto constant = remaining.expression_->terms.find({});
  const int64_t offset = constant == remaining.expression_->terms.end() ? 0 : constant->second;
  const bool is_quotient = remaining.expression_->terms.size() == (offset == 0 ? 1 : 2) && coefficient == 1 &&
                           product.size() == 1 && product[0].numerator != nullptr;
  int64_t joined_divisor, joined_offset;
  if (is_quotient && !__builtin_mul_overflow(product[0].divisor, divisor, &joined_divisor) &&
      !__builtin_mul_overflow(product[0].divisor, offset, &joined_offset)) {
    return result + FloorDivide(*product[0].numerator + Dim(joined_offset), joined_divisor);
  }
  const int depth = remaining.expression_->depth() + 1;
  if (depth > kMaxDepth) return Dim(kMax);
  Dim::Expression atom;
  atom.terms[{{absl::StrCat("floor((", remaining.ToString(), ")/", divisor, ")"),
               std::make_shared<const Dim>(remaining), divisor, depth}}] = 1;
  return result + Dim::FromExpression(std::move(atom));
}

std::optional<Dim> DivideExactly(const Dim& a, const Dim& b) {
  if (a == b) return Dim(1);
  Dim::Expression storage_a, storage_b, quotient;
  const Dim::Expression& denominator = b.AsExpression(storage_b);
  if (denominator.terms.size() != 1) return std::nullopt;
  const auto& [divisor, divisor_coefficient] = *denominator.terms.begin();
  for (const auto& [product, coefficient] : a.AsExpression(storage_a).terms) {
    if (coefficient % divisor_coefficient != 0) return std::nullopt;
    if (!std::includes(product.begin(), product.end(), divisor.begin(), divisor.end())) return std::nullopt;
    Dim::Expression::Product rest;
    std::set_difference(product.begin(), product.end(), divisor.begin(), divisor.end(), std::back_inserter(rest));
    quotient.Add(rest, coefficient / divisor_coefficient);
  }
  return Dim::FromExpression(std::move(quotient));
}

Dim Dim::Substitute(const DimBindings& bindings) const {
  if (is_known()) return *this;
  Dim sum(0);
  for (const auto& [product, coefficient] : expression_->terms) {
    Dim term(coefficient);
    for (const Expression::Factor& factor : product) {
      if (factor.numerator != nullptr) {
        term = term * FloorDivide(factor.numerator->Substitute(bindings), factor.divisor);
      } else if (auto bound = bindings.find(factor.text); bound != bindings.end()) {
        term = term * Dim(bound->second);
      } else {
        term = term * Dim(absl::string_view(factor.text));
      }
    }
    sum = sum + term;
  }
  return sum;
}

void Dim::CollectSymbols(std::set<std::string>& symbols) const {
  if (is_known()) return;
  for (const auto& [product, coefficient] : expression_->terms) {
    for (const Expression::Factor& factor : product) {
      if (factor.numerator != nullptr) {
        factor.numerator->CollectSymbols(symbols);
      } else {
        symbols.insert(factor.text);
      }
    }
  }
}

std::optional<std::string> Dim::AsSymbol() const {
  if (is_known() || expression_->terms.size() != 1) return std::nullopt;
  const auto& [product, coefficient] = *expression_->terms.begin();
  if (coefficient != 1 || product.size() != 1 || product[0].numerator != nullptr) return std::nullopt;
  return product[0].text;
}

std::string Dim::ToString() const {
  if (is_known()) return absl::StrCat(size_);
  std::string text;
  auto append = [&text](const Expression::Product& product, int64_t coefficient) {
    const char* sign = coefficient < 0 ? (text.empty() ? "-" : " - ") : (text.empty() ? "" : " + ");
    const uint64_t magnitude = coefficient < 0 ? -static_cast<uint64_t>(coefficient) : coefficient;
    absl::StrAppend(&text, sign);
    if (product.empty() || magnitude != 1) absl::StrAppend(&text, magnitude, product.empty() ? "" : "*");
    absl::StrAppend(&text, absl::StrJoin(product, "*", [](std::string* out, const Expression::Factor& factor) {
      out->append(factor.text);
    }));
  };
  for (const auto& [product, coefficient] : expression_->terms) {
    if (!product.empty()) append(product, coefficient);
  }
  if (auto constant = expression_->terms.find({}); constant != expression_->terms.end()) append({}, constant->second);
  return text;
}

bool IsSymbolName(absl::string_view name) {
  if (name.empty() || name == "floor" || absl::ascii_isdigit(name[0])) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_isalnum(c) || c == '_'; });
}

namespace {

// Grammar:
//   sum := ["-"] product {(" + " | " - ") product}
//   product := factor {"*" factor}
//   factor := number | symbol | "floor((" sum ")/" number ")"
class DimParser {
 public:
  explicit DimParser(absl::string_view text) : text_(text) {}

  std::optional<Dim> Parse() {
    std::optional<Dim> dim = Sum(0);
    return text_.empty() ? dim : std::nullopt;
  }

 private:
  bool Take(absl::string_view prefix) {
    if (text_.substr(0, prefix.size()) != prefix) return false;
    text_.remove_prefix(prefix.size());
    return true;
  }

  std::optional<int64_t> Number() {
    size_t length = 0;
    int64_t value = 0;
    while (length < text_.size() && absl::ascii_isdigit(text_[length])) {
      value = SaturatingAdd(SaturatingMultiply(value, 10), text_[length++] - '0');
    }
    if (length == 0) return std::nullopt;
    text_.remove_prefix(length);
    return value;
  }

  std::optional<Dim> Factor(int depth) {
    if (Take("floor((")) {
      std::optional<Dim> numerator = depth < kMaxDepth ? Sum(depth + 1) : std::nullopt;
      if (!numerator || !Take(")/")) return std::nullopt;
      std::optional<int64_t> divisor = Number();
      if (!divisor || *divisor < 1 || !Take(")")) return std::nullopt;
      return FloorDivide(*numerator, *divisor);
    }
    if (std::optional<int64_t> number = Number()) return Dim(*number);
    size_t length = 0;
    while (length < text_.size() && (absl::ascii_isalnum(text_[length]) || text_[length] == '_')) ++length;
    const absl::string_view name = text_.substr(0, length);
    if (!IsSymbolName(name)) return std::nullopt;
    text_.remove_prefix(length);
    return Dim(name);
  }

  std::optional<Dim> Product(int depth) {
    std::optional<Dim> product = Factor(depth);
    while (product && Take("*")) {
      std::optional<Dim> factor = Factor(depth);
      if (!factor) return std::nullopt;
      product = *product * *factor;
    }
    return product;
  }

  std::optional<Dim> Sum(int depth) {
    const bool negative = Take("-");
    std::optional<Dim> sum = Product(depth);
    if (sum && negative) sum = Dim(-1) * *sum;
    while (sum) {
      const bool minus = Take(" - ");
      if (!minus && !Take(" + ")) break;
      std::optional<Dim> term = Product(depth);
      if (!term) return std::nullopt;
      sum = minus ? *sum - *term : *sum + *term;
    }
    return sum;
  }

  absl::string_view text_;
};

}  // namespace

std::optional<Dim> DimFromString(absl::string_view text) {
  // Products of sums multiply out. Text this short cannot create many terms.
  if (text.size() > 1024) return std::nullopt;
  return DimParser(text).Parse();
}

}  // namespace gradweave
