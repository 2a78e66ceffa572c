// The functions of ops/functions.h and ops/einsum.h, each as a row of an op that it uses.
#include "gradweave/ops/functions.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "gradweave/ops/einsum.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Array CumSumOf(const Array& x, int axis, bool exclusive, bool reverse) {
  Array y = Array::Zeros(x.sizes);
  ForIndices(x.sizes, [&](const std::vector<int64_t>& to) {
    std::vector<int64_t> from = to;
    for (from[axis] = 0; from[axis] < x.sizes[axis]; ++from[axis]) {
      const int64_t distance = reverse ? from[axis] - to[axis] : to[axis] - from[axis];
      if (distance > 0 || (distance == 0 && !exclusive)) y.at(to) += x.at(from);
    }
  });
  return y;
}

Array TriangleOf(Array x, bool upper, int64_t diagonal) {
  const size_t rank = x.sizes.size();
  ForIndices(x.sizes, [&](const std::vector<int64_t>& i) {
    const int64_t row = i[rank - 2], column = i[rank - 1];
    if (upper ? column < row + diagonal : column > row + diagonal) x.at(i) = 0;
  });
  return x;
}

// Sums over every assignment of an index to each letter. The equation has its result and no
// ellipsis.
Array EinsumOf(const std::string& equation, const std::vector<Array>& operands) {
  std::vector<std::string> parts(1);
  const size_t arrow = equation.find("->");
  for (char c : equation.substr(0, arrow)) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  const std::string result = equation.substr(arrow + 2);
  std::map<char, int64_t> sizes, index;
  for (size_t k = 0; k < parts.size(); ++k) {
    for (size_t axis = 0; axis < parts[k].size(); ++axis)
      sizes[parts[k][axis]] = std::max(sizes[parts[k][axis]], operands[k].sizes[axis]);
  }
  auto at = [&](const std::string& labels, const std::vector<int64_t>* stretched) {
    std::vector<int64_t> indices;
    for (size_t axis = 0; axis < labels.size(); ++axis)
      indices.push_back(stretched != nullptr && (*stretched)[axis] == 1 ? 0 : index[labels[axis]]);
    return indices;
  };
  std::vector<int64_t> all, out;
  for (const auto& [label, size] : sizes) all.push_back(size);
  for (char label : result) out.push_back(sizes[label]);
  Array y = Array::Zeros(out);
  ForIndices(all, [&](const std::vector<int64_t>& indices) {
    size_t i = 0;
    for (const auto& [label, size] : sizes) index[label] = indices[i++];
    double product = 1;
    for (size_t k = 0; k < parts.size(); ++k) product *= operands[k].at(at(parts[k], &operands[k].sizes));
    y.at(at(result, nullptr)) += product;
  });
  return y;
}

struct EinsumRow {
  std::string name, equation, plain;  // The plain equation has letters for the ellipsis, and the result.
  std::vector<std::vector<int64_t>> sizes;
  bool symbolic = true;
  const char* op = "MatMul";
};

const EinsumRow kEinsums[] = {
    {"matrices", "ij,jk->ik", "ij,jk->ik", {{2, 3}, {3, 4}}},
    {"transposed_result", "ij,jk->ki", "ij,jk->ki", {{2, 3}, {3, 4}}},
    {"transposed_operands", "ji,kj->ik", "ji,kj->ik", {{3, 2}, {4, 3}}},
    {"implicit", "ij,jk", "ij,jk->ik", {{2, 3}, {3, 4}}},
    {"implicit_sorts", "ba", "ba->ab", {{2, 3}}, true, "Transpose"},
    {"spaces", " i j , j -> i ", "ij,j->i", {{2, 3}, {3}}},
    {"attention", "bhqd,bhkd->bhqk", "bhqd,bhkd->bhqk", {{2, 3, 4, 5}, {2, 3, 6, 5}}},
    {"batch_in_the_middle", "ibj,bjk->kbi", "ibj,bjk->kbi", {{2, 3, 4}, {3, 4, 5}}},
    {"two_summed", "iab,abk->ik", "iab,abk->ik", {{2, 3, 4}, {3, 4, 5}}},
    {"outer", "i,j->ij", "i,j->ij", {{3}, {4}}, true, "Mul"},
    {"elementwise", "ij,ji->ij", "ij,ji->ij", {{3, 4}, {4, 3}}, true, "Mul"},
    {"dot", "i,i->", "i,i->", {{5}, {5}}},
    {"sum_of_lone_letters", "ij,kl->il", "ij,kl->il", {{2, 3}, {4, 5}}, true, "Mul"},
    {"rows", "ij->i", "ij->i", {{3, 4}}, true, "Sum"},
    {"trace", "ii", "ii->", {{4, 4}}, false, "Slice"},
    {"diagonal", "bii->bi", "bii->bi", {{2, 3, 3}}, false, "Slice"},
    {"diagonal_first", "iij,jk->ki", "iij,jk->ki", {{3, 3, 2}, {2, 4}}, false},
    {"three_times", "iii->i", "iii->i", {{3, 3, 3}}, false, "Slice"},
    {"ellipsis", "...ij,...jk", "abij,abjk->abik", {{2, 3, 2, 4}, {2, 3, 4, 5}}},
    {"ellipsis_stretches", "...ij,jk...->...ki", "abij,jkb->abki", {{2, 3, 2, 4}, {4, 5, 3}}},
    {"ellipsis_of_one", "...i,...i->...", "abi,bi->ab", {{3, 2, 4}, {1, 4}}, false},
    {"letter_of_size_one", "ij,jk->ik", "ij,jk->ik", {{2, 1}, {3, 4}}, true, "Mul"},
    {"chain", "ij,jk,kl->il", "ij,jk,kl->il", {{2, 3}, {3, 4}, {4, 5}}},
    {"bilinear", "bi,oij,bj->bo", "bi,oij,bj->bo", {{4, 2}, {5, 2, 3}, {4, 3}}},
    {"shared_by_three", "ij,ij,ij->i", "ij,ij,ij->i", {{2, 3}, {2, 3}, {2, 3}}},
    {"number", ",i->i", ",i->i", {{}, {3}}, true, "Mul"},
};

OpErrorCase Wrong(const char* name, const char* equation, const std::vector<Shape>& shapes, std::string message) {
  return {"Einsum",
          name,
          [equation, shapes](Scope& s) {
            std::vector<Value> operands;
            for (size_t i = 0; i < shapes.size(); ++i)
              operands.push_back(s.Input(std::string(1, static_cast<char>('a' + i)), kFloat32, shapes[i]));
            Einsum(equation, operands);
          },
          {std::string("Einsum: the equation \"") + equation + "\": ", std::move(message)}};
}

void AddEinsums(OpCases& all) {
  for (const EinsumRow& row : kEinsums) {
    OpCase einsum = {row.op, "einsum_" + row.name};
    for (const auto& sizes : row.sizes) einsum.operands.push_back({sizes});
    einsum.build = [row](const std::vector<Value>& x) { return std::vector<Value>{Einsum(row.equation, x)}; };
    einsum.reference = [row](const std::vector<Array>& x) { return std::vector<Array>{EinsumOf(row.plain, x)}; };
    einsum.symbolic = row.symbolic;
    all.cases.push_back(einsum);
  }
  all.cases.push_back({"Mul",
                       "einsum_integers",
                       {{{2, 3}, kInt32, -5, 5}, {{3, 4}, kInt32, -5, 5}},
                       [](const auto& x) { return std::vector<Value>{Einsum("ij,jk->ik", x)}; },
                       [](const std::vector<Array>& x) { return std::vector<Array>{EinsumOf("ij,jk->ik", x)}; },
                       0});
  const Shape square = {3, 3}, wide = {3, 4};
  for (const OpErrorCase& row : {
           Wrong("count", "ij,jk->ik", {square}, "it has 2 operands, and 1 are given"),
           Wrong("axes", "ijk->i", {square}, "'ijk' names 3 axes, and operand 0 has 2"),
           Wrong("axes_beside_ellipsis", "...ijk->i", {square}, "'...ijk' names at least 3 axes, and operand 0 has 2"),
           Wrong("sizes", "ij,ij->", {square, wide}, "'j' has the sizes 3 and 4"),
           Wrong("symbols", "ij,ij->", {square, {3, Dim("n")}}, "'j' has the sizes 3 and n"),
           Wrong("character", "i_,ij->", {square, square}, "'_' is neither a letter nor part of one '...'"),
           Wrong("two_ellipses", "......->", {square}, "'.' is neither a letter nor part of one '...'"),
           Wrong("unknown_letter", "ij->ik", {square}, "the result has 'k', and no operand has"),
           Wrong("letter_twice", "ij->ii", {square}, "the result has 'i' twice"),
           Wrong("lost_ellipsis", "...j->j", {square}, "the result has to name the axes of the ellipsis"),
           Wrong("diagonal", "ii->i", {wide}, "'i' has the sizes 3 and 4"),
           Wrong("symbolic_diagonal", "ii->i", {{Dim("n"), Dim("n")}},
                 "operand 0 has 'i' twice, so both axes have to have one known size, and have [n,n]"),
       }) {
    all.errors.push_back(row);
  }
}

void AddTopK(OpCases& all) {
  auto top = [&](const char* name, OperandCase x, int64_t k, int64_t axis, const std::vector<Array>& expected,
                 int derivatives = 2) {
    all.cases.push_back({"Gather",
                         std::string("top_k_") + name,
                         {std::move(x)},
                         [k, axis](const auto& operands) {
                           const TopKResult top = TopK(operands[0], k, axis);
                           return std::vector<Value>{top.values, top.indices};
                         },
                         [expected](const std::vector<Array>&) { return expected; },
                         derivatives,
                         false});
  };
  top("rows", {{2, 4}, kFloat64, 0, 0, {3, 1, 4, 1.5, -9, 2, 6, 5}}, 2, -1,
      {{{2, 2}, {4, 3, 6, 5}}, {{2, 2}, {2, 0, 2, 3}}});
  top("columns", {{3, 2}, kFloat64, 0, 0, {3, 1, 4, 1.5, -9, 2}}, 2, 0,
      {{{2, 2}, {4, 2, 3, 1.5}}, {{2, 2}, {1, 2, 0, 1}}});
  top("all", {{3}, kFloat64, 0, 0, {1, 3, 2}}, 3, 0, {{{3}, {3, 2, 1}}, {{3}, {1, 2, 0}}});
  // Equal elements, infinities, and NaN before all others.
  top("ties", {{6}, kFloat64, 0, 0, {2, 1, 2, 1, 2, 0}}, 5, 0, {{{5}, {2, 2, 2, 1, 1}}, {{5}, {0, 2, 4, 1, 3}}}, 0);
  top("infinities", {{4}, kFloat64, 0, 0, {-kInfinity, kInfinity, -kInfinity, -kInfinity}}, 3, 0,
      {{{3}, {kInfinity, -kInfinity, -kInfinity}}, {{3}, {1, 0, 2}}}, 0);
  top("nan", {{4}, kFloat64, 0, 0, {1, kNaN, kInfinity, kNaN}}, 3, 0,
      {{{3}, {kNaN, kNaN, kInfinity}}, {{3}, {1, 3, 2}}}, 0);
  top("integers", {{4}, kInt32, 0, 0, {-2147483648.0, 5, -2147483648.0, 5}}, 4, 0,
      {{{4}, {5, 5, -2147483648.0, -2147483648.0}}, {{4}, {1, 3, 0, 2}}}, 0);
  top("bytes", {{3}, kUint8, 0, 0, {0, 0, 255}}, 2, 0, {{{2}, {255, 0}}, {{2}, {2, 0}}}, 0);
  for (int64_t k : {0, 5}) {
    all.errors.push_back(
        {"TopK",
         "k_" + std::to_string(k),
         [k](Scope& s) {
           TopK(s.Input("x", kFloat32, {2, 4}), k);
         },
         {"TopK: k is " + std::to_string(k) + " and has to be at least 1 and at most the size of axis"}});
  }
}

}  // namespace

OpCases FunctionCases() {
  OpCases all;
  for (int axis : {0, 1, 2}) {
    for (bool exclusive : {false, true}) {
      for (bool reverse : {false, true}) {
        all.cases.push_back(
            {"SuffixSum",
             "cum_sum_axis_" + std::to_string(axis) + (exclusive ? "_exclusive" : "") + (reverse ? "_reverse" : ""),
             {{{2, 4, 3}}},
             [=](const auto& x) {
               return std::vector<Value>{CumSum(x[0], {axis - 3, exclusive, reverse})};
             },
             [=](const std::vector<Array>& x) {
               return std::vector<Array>{CumSumOf(x[0], axis, exclusive, reverse)};
             }});
      }
    }
  }
  all.cases.push_back({"SuffixSum",
                       "cum_sum_integers",
                       {{{3, 5}, kInt64, -1e6, 1e6}},
                       [](const auto& x) { return std::vector<Value>{CumSum(x[0], {.axis = 1})}; },
                       [](const std::vector<Array>& x) { return std::vector<Array>{CumSumOf(x[0], 1, false, false)}; },
                       0});
  for (bool upper : {false, true}) {
    for (int64_t diagonal : {-1, 0, 2}) {
      all.cases.push_back(
          {"Where",
           std::string("triangle_") + (upper ? "upper_" : "lower_") +
               (diagonal < 0    ? "below"
                : diagonal == 0 ? "main"
                                : "above"),
           {{{2, 4, 5}}},
           [=](const auto& x) {
             return std::vector<Value>{Triangle(x[0], {upper, diagonal})};
           },
           [=](const std::vector<Array>& x) { return std::vector<Array>{TriangleOf(x[0], upper, diagonal)}; }});
    }
  }
  for (int axis : {0, 1, 2}) {
    // Three indices in the place of each axis; one occurs twice.
    OperandCase indices = {{2, 4, 3}, kInt32, 0, 1.99};
    indices.sizes[axis] = 3;
    all.cases.push_back({"Gather",
                         "take_along_axis_" + std::to_string(axis),
                         {{{2, 4, 3}}, indices},
                         [axis](const auto& x) { return std::vector<Value>{TakeAlong(x[0], x[1], axis - 3)}; },
                         [axis](const std::vector<Array>& x) {
                           Array y = x[1];
                           ForIndices(y.sizes, [&](const std::vector<int64_t>& to) {
                             std::vector<int64_t> from = to;
                             from[axis] = static_cast<int64_t>(x[1].at(to));
                             y.at(to) = x[0].at(from);
                           });
                           return std::vector<Array>{y};
                         }});
  }
  all.cases.push_back({"Gather",
                       "take_along_stretched",
                       {{{2, 3}}, {{1, 4}, kUint8, 0, 0, {2, 0, 0, 1}}},
                       [](const auto& x) { return std::vector<Value>{TakeAlong(x[0], x[1], 1)}; },
                       [](const std::vector<Array>& x) {
                         Array y = Array::Zeros({2, 4});
                         ForIndices(y.sizes, [&](const std::vector<int64_t>& i) {
                           y.at(i) = x[0].at({i[0], static_cast<int64_t>(x[1].values[i[1]])});
                         });
                         return std::vector<Array>{y};
                       }});
  AddTopK(all);
  AddEinsums(all);
  for (OpErrorCase& row : std::vector<OpErrorCase>{
           {"CumSum",
            "axis",
            [](Scope& s) { CumSum(s.Input("x", kFloat32, {2}), {.axis = 1}); },
            {"CumSum: axis 1 is outside [-1, 1)"}},
           {"CumSum",
            "bool",
            [](Scope& s) { CumSum(s.Input("x", kBool, {2})); },
            {"there are no sums and products of bool"}},
           {"Triangle", "rank", [](Scope& s) { Triangle(s.Input("x", kFloat32, {2})); }, {"x has to be a matrix"}},
           {"TakeAlong",
            "sizes",
            [](Scope& s) {
              TakeAlong(s.Input("x", kFloat32, {2, 3}), s.Input("i", kInt32, {3, 3}), 1);
            },
            {"TakeAlong: the indices have to have the sizes of x, or 1, on all axes but axis 1",
             "float32[2,3], int32[3,3]"}},
           {"TakeAlong",
            "dtype",
            [](Scope& s) { TakeAlong(s.Input("x", kFloat32, {2}), s.Input("i", kFloat32, {2}), 0); },
            {"the indices have to be int32, int64 or uint8"}},
           {"Range", "step", [](Scope& s) { Range(s, 3, {.step = 0.5}); }, {"whole numbers for integers"}},
           {"Range", "size", [](Scope& s) { Range(s, -1); }, {"the size -1 is negative"}},
       }) {
    all.errors.push_back(std::move(row));
  }
  return all;
}

}  // namespace gradweave
