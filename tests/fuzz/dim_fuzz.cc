// Dimension text: what parses is printed and parsed again, and arithmetic agrees with that of
// numbers.
#include <cstdlib>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/dim.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kSymbolSize = 3;

// Returns a bound of all numbers that the text's value can contain if each symbol is kSymbolSize:
// the product of all numbers plus 1, since |a + b|, |a*b| and |a/b| are at most (|a| + 1)*(|b| +
// 1).
double BoundOf(absl::string_view text) {
  double bound = 1, number = 0;
  bool in_word = false, is_number = false;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    const bool is_word = absl::ascii_isalnum(c) || c == '_';
    if (is_word && !in_word) {
      is_number = absl::ascii_isdigit(c);
      number = 0;
    }
    if (is_word && is_number) number = number * 10 + (c - '0');
    if (!is_word && in_word) bound *= (is_number ? number : kSymbolSize) + 1;
    in_word = is_word;
  }
  return bound;
}

int64_t SizeOf(const Dim& dim) {
  std::set<std::string> symbols;
  dim.CollectSymbols(symbols);
  DimBindings bindings;
  for (const std::string& symbol : symbols) bindings[symbol] = kSymbolSize;
  const Dim size = dim.Substitute(bindings);
  GW_CHECK(size.is_known(), dim.ToString());
  return size.size();
}

int64_t FloorOf(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0 ? 1 : 0); }

void CheckText(const Dim& dim) {
  const std::string text = dim.ToString();
  const std::optional<Dim> again = DimFromString(text);
  GW_CHECK(again.has_value() && *again == dim && again->ToString() == text, text);
}

// The input is one or two dimensions, with a line end between them.
void Run(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('\n', 1));
  const std::optional<Dim> a = DimFromString(parts.first), b = DimFromString(parts.second);
  if (!a.has_value()) return;
  CheckText(*a);
  const int64_t size = SizeOf(*a);
  if (!b.has_value()) return;
  CheckText(*b);
  const int64_t other = SizeOf(*b);
  const Dim sum = *a + *b, difference = *a - *b, product = *a * *b;
  const Dim quotient = FloorDivide(*a, 7);
  const std::optional<Dim> exact = DivideExactly(product, *b);
  for (const Dim& dim : {sum, difference, product, quotient}) CheckText(dim);
  // Beyond it, numbers may saturate on the way.
  if (BoundOf(text) > 1e12) return;
  GW_CHECK(SizeOf(sum) == size + other, sum.ToString());
  GW_CHECK(SizeOf(difference) == size - other, difference.ToString());
  GW_CHECK(SizeOf(product) == size * other, product.ToString());
  GW_CHECK(SizeOf(quotient) == FloorOf(size, 7), quotient.ToString());
  if (exact.has_value()) GW_CHECK(SizeOf(*exact * *b) == size * other, exact->ToString());
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gradweave::fuzz::Run(gradweave::fuzz::AsText(data, size));
  return 0;
}
