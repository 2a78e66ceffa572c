#include "gradweave/frontend/onnx/open_sizes.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kMostMultiple = 256;

std::set<std::string> SymbolsOf(const Dim& dim) {
  std::set<std::string> symbols;
  dim.CollectSymbols(symbols);
  return symbols;
}

// True if a and b are equal where the symbol is any multiple. Compares numbers only; the import
// shows if the guess is right.
bool EqualAtMultiples(const Dim& a, const Dim& b, const std::string& symbol, int64_t multiple) {
  std::set<std::string> symbols = SymbolsOf(a);
  b.CollectSymbols(symbols);
  for (int64_t k = 1; k <= 5; ++k) {
    DimBindings bindings;
    // The other symbols have the least number of divisors in common.
    int64_t prime = 1009 + 2 * k;
    for (const std::string& other : symbols) bindings[other] = other == symbol ? multiple * (2 * k + 1) : prime += 210;
    const Dim left = a.Substitute(bindings), right = b.Substitute(bindings);
    if (!left.is_known() || !(left == right)) return false;
  }
  return true;
}

// The symbol and its size for which a and b are equal.
std::optional<std::pair<std::string, Dim>> Equate(const Dim& a, const Dim& b) {
  for (const auto& [from, to] : {std::make_pair(b, a), std::make_pair(a, b)}) {
    const std::optional<std::string> symbol = from.AsSymbol();
    if (symbol.has_value() && !to.is_known() && !SymbolsOf(to).contains(*symbol)) return std::make_pair(*symbol, to);
  }
  std::set<std::string> symbols = SymbolsOf(a);
  b.CollectSymbols(symbols);
  for (const std::string& symbol : symbols) {
    for (int64_t multiple = 2; multiple <= kMostMultiple; multiple *= 2) {
      if (EqualAtMultiples(a, b, symbol, multiple))
        return std::make_pair(symbol, Dim(multiple) * Dim(absl::StrCat(symbol, "_", multiple)));
    }
  }
  return std::nullopt;
}

void Add(const SizeGuess& guess, std::vector<SizeGuess>& guesses) {
  if (!guess.empty() && std::find(guesses.begin(), guesses.end(), guess) == guesses.end()) guesses.push_back(guess);
}

}  // namespace

Dim OpenSizes::Of(const std::string& symbol) const {
  const auto found = sizes_.find(symbol);
  if (found == sizes_.end()) return Dim(symbol);
  const Dim& size = found->second;
  const std::set<std::string> symbols = SymbolsOf(size);
  if (symbols.size() != 1) return size;
  // A multiple of a symbol that itself stands for another size.
  const std::optional<Dim> factor = DivideExactly(size, Dim(*symbols.begin()));
  return factor.has_value() && factor->is_known() ? *factor * Of(*symbols.begin()) : size;
}

bool OpenSizes::Set(const std::string& symbol, const Dim& size) {
  for (const std::string& part : SymbolsOf(size)) {
    if (SymbolsOf(Of(part)).contains(symbol)) return false;
  }
  return sizes_.emplace(symbol, size).second;
}

std::vector<SizeGuess> GuessSizes(absl::Span<const Shape> operands, const std::vector<std::pair<Dim, Dim>>& equal) {
  std::vector<SizeGuess> guesses;
  SizeGuess all;
  for (const auto& [a, b] : equal) {
    if (a == b) continue;
    if (std::optional<std::pair<std::string, Dim>> one = Equate(a, b); one.has_value()) all.push_back(*one);
  }
  Add(all, guesses);
  // Axes that stand at the same place from the left, as those of Concat, or from the right, as for
  // broadcasting.
  for (const bool from_right : {false, true}) {
    SizeGuess together;
    std::vector<SizeGuess> single;
    for (size_t i = 1; i < operands.size(); ++i) {
      const Shape &a = operands[0], &b = operands[i];
      for (int k = 0; k < std::min(a.rank(), b.rank()); ++k) {
        const Dim &left = a[from_right ? a.rank() - 1 - k : k], &right = b[from_right ? b.rank() - 1 - k : k];
        if (left == right || left == Dim(1) || right == Dim(1)) continue;
        const std::optional<std::pair<std::string, Dim>> one = Equate(left, right);
        if (!one.has_value()) continue;
        single.push_back({*one});
        const bool is_new = std::none_of(together.begin(), together.end(),
                                         [&](const auto& other) { return other.first == one->first; });
        if (is_new) together.push_back(*one);
      }
    }
    Add(together, guesses);
    for (const SizeGuess& one : single) Add(one, guesses);
  }
  return guesses;
}

}  // namespace gradweave::onnx
