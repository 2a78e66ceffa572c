#include "gradweave/ops/einsum.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gradweave/ops/body_builder.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {
namespace {

// A name of an axis: a letter, or -1 for the last axis of an ellipsis, -2 for the one before it,
// and so on.
using Label = int;
using Labels = std::vector<Label>;

bool Has(const Labels& labels, Label label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }

Labels operator+(const Labels& a, const Labels& b) {
  Labels both = a;
  both.insert(both.end(), b.begin(), b.end());
  return both;
}

std::string NameOf(Label label) {
  return label > 0 ? absl::StrCat("'", std::string(1, static_cast<char>(label)), "'") : "an axis of the ellipsis";
}

// An operand or a partial product, with a different label for each axis.
struct Term {
  Value value;
  Labels labels;

  const Dim& size(Label label) const {
    return value.shape()[static_cast<int>(std::find(labels.begin(), labels.end(), label) - labels.begin())];
  }
};

// The labels of an equation. `error` is its problem, or empty.
struct Equation {
  std::vector<Labels> operands;
  Labels result;
  std::string error;
};

// Replaces the labels of one operand, or of the result, whose ellipsis stands for `dots` axes.
std::string ParseLabels(absl::string_view text, int dots, Labels& labels) {
  const size_t at = text.find("...");
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == at) {
      for (int k = dots; k > 0; --k) labels.push_back(-k);
      i += 2;
    } else if (absl::ascii_isalpha(static_cast<unsigned char>(text[i]))) {
      labels.push_back(text[i]);
    } else {
      return absl::StrCat("'", text.substr(i, 1), "' is neither a letter nor part of one '...'");
    }
  }
  return "";
}

// The labels of the result of an equation without "->".
Labels ImplicitResult(const std::vector<Labels>& operands, int dots) {
  std::map<Label, int> counts;
  for (const Labels& labels : operands) {
    for (Label label : labels) ++counts[label];
  }
  Labels result;
  for (int k = dots; k > 0; --k) result.push_back(-k);
  for (const auto& [label, count] : counts) {
    if (label > 0 && count == 1) result.push_back(label);
  }
  return result;
}

Equation Parse(absl::string_view text, const std::vector<Value>& operands) {
  Equation equation;
  const std::string packed = absl::StrReplaceAll(text, {{" ", ""}});
  const size_t arrow = packed.find("->");
  const std::vector<std::string> parts = absl::StrSplit(absl::string_view(packed).substr(0, arrow), ',');
  if (parts.size() != operands.size()) {
    equation.error = absl::StrCat("it has ", parts.size(), " operands, and ", operands.size(), " are given");
    return equation;
  }
  int most_dots = 0;
  for (size_t i = 0; i < parts.size() && equation.error.empty(); ++i) {
    const bool has_dots = absl::StrContains(parts[i], "...");
    const int letters = static_cast<int>(parts[i].size()) - (has_dots ? 3 : 0), rank = operands[i].rank();
    Labels labels;
    equation.error = ParseLabels(parts[i], std::max(rank - letters, 0), labels);
    if (equation.error.empty() && (has_dots ? letters > rank : letters != rank))
      equation.error = absl::StrCat("'", parts[i], "' names ", has_dots ? "at least " : "", letters,
                                    " axes, and operand ", i, " has ", rank);
    if (has_dots) most_dots = std::max(most_dots, rank - letters);
    equation.operands.push_back(std::move(labels));
  }
  if (!equation.error.empty()) return equation;
  if (arrow == std::string::npos) {
    equation.result = ImplicitResult(equation.operands, most_dots);
    return equation;
  }
  const std::string result = packed.substr(arrow + 2);
  equation.error = ParseLabels(result, most_dots, equation.result);
  if (equation.error.empty() && most_dots > 0 && !absl::StrContains(result, "..."))
    equation.error = "the result has to name the axes of the ellipsis with '...', or leave out '->'";
  for (size_t i = 0; i < equation.result.size() && equation.error.empty(); ++i) {
    const Label label = equation.result[i];
    if (std::count(equation.result.begin(), equation.result.end(), label) > 1)
      equation.error = absl::StrCat("the result has ", NameOf(label), " twice");
    if (std::none_of(equation.operands.begin(), equation.operands.end(),
                     [&](const Labels& labels) { return Has(labels, label); }))
      equation.error = absl::StrCat("the result has ", NameOf(label), ", and no operand has");
  }
  return equation;
}

// Finds the size of each label. Returns the problem, or an empty string.
std::string FindSizes(const Equation& equation, const std::vector<Value>& operands, std::map<Label, Dim>& sizes) {
  for (size_t i = 0; i < operands.size(); ++i) {
    const Labels& labels = equation.operands[i];
    for (size_t axis = 0; axis < labels.size(); ++axis) {
      const Dim& dim = operands[i].shape()[static_cast<int>(axis)];
      auto [found, is_new] = sizes.try_emplace(labels[axis], dim);
      if (is_new || dim == found->second || dim == Dim(1)) continue;
      if (!(found->second == Dim(1)))
        return absl::StrCat(NameOf(labels[axis]), " has the sizes ", found->second.ToString(), " and ", dim.ToString());
      found->second = dim;
    }
  }
  return "";
}

Value Permute(const Term& term, const Labels& order) {
  if (order == term.labels) return term.value;
  Integers permutation;
  for (Label label : order)
    permutation.push_back(std::find(term.labels.begin(), term.labels.end(), label) - term.labels.begin());
  return Transpose(term.value, permutation);
}

// Moves the two axes to the end, joins them, and takes each (size + 1)th element.
void TakeDiagonal(Term& term, Label label) {
  Integers permutation, twice;
  Labels others;
  Shape joined;
  for (size_t axis = 0; axis < term.labels.size(); ++axis) {
    if (term.labels[axis] == label && twice.size() < 2) {
      twice.push_back(static_cast<int64_t>(axis));
      continue;
    }
    permutation.push_back(static_cast<int64_t>(axis));
    others.push_back(term.labels[axis]);
    joined.Append(term.value.shape()[static_cast<int>(axis)]);
  }
  const int64_t size = term.size(label).size();
  permutation.insert(permutation.end(), twice.begin(), twice.end());
  joined.Append(Dim(size * size));
  const Value rows = Reshape(Transpose(term.value, permutation), joined);
  term = {SliceAxis(rows, -1, 0, size * size, size + 1), others + Labels{label}};
}

// Sums over the labels that are no longer needed, and drops axes that stretch.
void Reduce(Term& term, const Labels& needed, const std::map<Label, Dim>& sizes) {
  Integers summed, dropped;
  Labels left;
  for (size_t axis = 0; axis < term.labels.size(); ++axis) {
    const Label label = term.labels[axis];
    const Dim& size = term.value.shape()[static_cast<int>(axis)];
    if (!(size == sizes.at(label))) {
      dropped.push_back(static_cast<int64_t>(axis));
    } else if (!Has(needed, label)) {
      summed.push_back(static_cast<int64_t>(axis));
    } else {
      left.push_back(label);
    }
  }
  if (!summed.empty()) term.value = Sum(term.value, {.axes = summed, .keep_dims = true});
  summed.insert(summed.end(), dropped.begin(), dropped.end());
  if (!summed.empty()) term.value = Squeeze(term.value, summed);
  term.labels = left;
}

Shape SizesOf(const Labels& labels, const std::map<Label, Dim>& sizes) {
  Shape shape;
  for (Label label : labels) shape.Append(sizes.at(label));
  return shape;
}

// The product of two terms, summed over the labels that both have and that are not needed any more.
Term Multiply(const Term& a, const Term& b, const Labels& needed, const std::map<Label, Dim>& sizes) {
  Labels batch, summed, only_a, only_b;
  for (Label label : a.labels) (!Has(b.labels, label) ? only_a : Has(needed, label) ? batch : summed).push_back(label);
  for (Label label : b.labels) {
    if (!Has(a.labels, label)) only_b.push_back(label);
  }
  const Labels result = batch + only_a + only_b;
  if (summed.empty() || !IsReal(a.value.dtype())) {
    // The axes that one of the two lacks have size 1 there.
    const Labels all = result + summed;
    const auto aligned = [&](const Term& term, const Labels& order) {
      Shape shape;
      for (Label label : all) shape.Append(Has(term.labels, label) ? sizes.at(label) : Dim(1));
      return Reshape(Permute(term, order), shape);
    };
    Value product = Mul(aligned(a, batch + only_a + summed), aligned(b, batch + only_b + summed));
    Integers axes(summed.size());
    std::iota(axes.begin(), axes.end(), static_cast<int64_t>(result.size()));
    if (!axes.empty()) product = Sum(product, {.axes = axes});
    return {product, result};
  }
  const Dim rows = SizesOf(only_a, sizes).num_elements(), inner = SizesOf(summed, sizes).num_elements(),
            columns = SizesOf(only_b, sizes).num_elements();
  // Returns the term as a matrix of these labels, in the order that needs no transposition if it
  // can.
  const auto matrix = [&](const Term& term, const Labels& first, const Dim& first_size, const Labels& second,
                          const Dim& second_size, bool& exchanged) {
    exchanged = term.labels == batch + second + first;
    Shape shape = SizesOf(batch, sizes);
    shape.Append(exchanged ? second_size : first_size);
    shape.Append(exchanged ? first_size : second_size);
    return Reshape(exchanged ? term.value : Permute(term, batch + first + second), shape);
  };
  MatMulOptions options;
  const Value left = matrix(a, only_a, rows, summed, inner, options.transpose_a);
  const Value right = matrix(b, summed, inner, only_b, columns, options.transpose_b);
  return {Reshape(MatMul(left, right, options), SizesOf(result, sizes)), result};
}

}  // namespace

Value Einsum(absl::string_view text, const std::vector<Value>& operands, std::source_location location) {
  std::vector<Operand> located;
  for (const Value& value : operands) located.emplace_back(value, location);
  const auto mistake = [&](absl::string_view message) {
    return BuilderError("Einsum", located, absl::StrCat("the equation \"", text, "\": ", message));
  };
  if (!AllValid("Einsum", located)) return Value(located[0].graph(), Port{});
  for (const Operand& operand : located) {
    if (!BelongTogether({located[0], operand})) return mistake("the operands belong to different graphs");
    if (operand.dtype() != located[0].dtype() || operand.dtype() == kBool)
      return mistake("the operands have to be numbers of one dtype; Cast converts");
  }
  const Equation equation = Parse(text, operands);
  if (!equation.error.empty()) return mistake(equation.error);
  std::map<Label, Dim> sizes;
  if (const std::string error = FindSizes(equation, operands, sizes); !error.empty()) return mistake(error);
  const CallLocation guard(located[0]);
  std::optional<Term> product;
  for (size_t i = 0; i < operands.size(); ++i) {
    Term term{operands[i], equation.operands[i]};
    for (Label label : equation.operands[i]) {
      while (std::count(term.labels.begin(), term.labels.end(), label) > 1) {
        Shape diagonal;
        for (size_t axis = 0; axis < term.labels.size(); ++axis)
          if (term.labels[axis] == label) diagonal.Append(term.value.shape()[static_cast<int>(axis)]);
        if (!diagonal.is_static() || !(diagonal[0] == diagonal[1]))
          return mistake(absl::StrCat("operand ", i, " has ", NameOf(label),
                                      " twice, so both axes have to have one known size, and have ",
                                      diagonal.ToString()));
        TakeDiagonal(term, label);
      }
    }
    // Labels that the result and the operands after this one need, and, for the term, the product
    // before it.
    Labels needed = equation.result;
    for (size_t k = i + 1; k < operands.size(); ++k) needed = needed + equation.operands[k];
    Reduce(term, product.has_value() ? needed + product->labels : needed, sizes);
    if (product.has_value()) {
      Reduce(*product, needed + term.labels, sizes);
      product = Multiply(*product, term, needed, sizes);
    } else {
      product = std::move(term);
    }
  }
  // Labels that only axes of size 1 have, which were not dropped, are there; all others have their
  // size.
  return Permute(*product, equation.result);
}

}  // namespace gradweave
