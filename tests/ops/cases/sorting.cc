#include "gradweave/ops/sorting.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "gradweave/ops/functions.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The places of x [outer, size, inner] in order along the middle axis, by a stable sort.
Array PlacesOf(const Array& x, bool descending, int64_t count) {
  Array y = Array::Zeros({x.sizes[0], count, x.sizes[2]});
  for (int64_t i = 0; i < x.sizes[0]; ++i) {
    for (int64_t k = 0; k < x.sizes[2]; ++k) {
      std::vector<int64_t> places(x.sizes[1]);
      std::iota(places.begin(), places.end(), 0);
      std::stable_sort(places.begin(), places.end(), [&](int64_t a, int64_t b) {
        return descending ? x.at({i, a, k}) > x.at({i, b, k}) : x.at({i, a, k}) < x.at({i, b, k});
      });
      for (int64_t j = 0; j < count; ++j) y.at({i, j, k}) = static_cast<double>(places[j]);
    }
  }
  return y;
}

}  // namespace

OpCases SortingCases() {
  OpCases all;
  for (bool descending : {false, true}) {
    const std::string order = descending ? "descending" : "ascending";
    // Whole numbers, of which several are equal.
    for (DType dtype : {kInt32, kInt64, kUint8}) {
      all.cases.push_back(
          {"ArgSort",
           order + "_" + std::string(DTypeName(dtype)),
           {{{3, 7, 2}, dtype, 0, 5}},
           [=](const auto& x) { return std::vector<Value>{ArgSort(x[0], {.axis = 1, .descending = descending})}; },
           [=](const std::vector<Array>& x) { return std::vector<Array>{PlacesOf(x[0], descending, 7)}; },
           0});
    }
    all.cases.push_back({"Gather",
                         "sort_" + order,
                         {{{3, 7, 2}}},
                         [=](const auto& x) {
                           const SortResult sorted = Sort(x[0], {.axis = -2, .descending = descending});
                           return std::vector<Value>{sorted.values, sorted.indices};
                         },
                         [=](const std::vector<Array>& x) {
                           const Array places = PlacesOf(x[0], descending, 7);
                           Array y = places;
                           ForIndices(y.sizes, [&](const auto& i) {
                             y.at(i) = x[0].at({i[0], static_cast<int64_t>(places.at(i)), i[2]});
                           });
                           return std::vector<Array>{y, places};
                         }});
    // Fewer places than elements, more elements than a chunk has.
    for (int64_t count : {1, 5, 40}) {
      all.cases.push_back(
          {"ArgSort",
           order + "_first_" + std::to_string(count),
           {{{2, 1, 50}, kInt32, 0, 20}},
           [=](const auto& x) { return std::vector<Value>{ArgSort(x[0], Dim(count), {.descending = descending})}; },
           [=](const std::vector<Array>& x) {
             Array turned = x[0];
             turned.sizes = {2, 50, 1};
             Array y = PlacesOf(turned, descending, count);
             y.sizes = {2, 1, count};
             return std::vector<Array>{y};
           },
           0,
           false});
    }
  }
  const OperandCase special = {{6}, kFloat64, 0, 0, {1, kNaN, -kInfinity, kInfinity, kNaN, 0}};
  all.cases.push_back(
      {"ArgSort",
       "special",
       {special},
       [](const auto& x) {
         return std::vector<Value>{ArgSort(x[0]), ArgSort(x[0], {.descending = true}),
                                   ArgSort(x[0], Dim(3), {.descending = true})};
       },
       [](const std::vector<Array>&) {
         return std::vector<Array>{{{6}, {2, 5, 0, 3, 1, 4}}, {{6}, {1, 4, 3, 0, 5, 2}}, {{3}, {1, 4, 3}}};
       },
       0,
       false});
  all.errors = {
      {"ArgSort", "axis", [](Scope& s) { ArgSort(s.Input("x", kFloat32, {2}), {.axis = 1}); }, {"axis 1 is outside"}},
      {"ArgSort",
       "count",
       [](Scope& s) { ArgSort(s.Input("x", kFloat32, {2}), Dim(3), {}); },
       {"the count [3] has to be one number from 0 to the size 2 of the last axis"}},
      {"ArgSort", "bool", [](Scope& s) { ArgSort(s.Input("x", kBool, {2})); }, {"operand 0 (x) is bool"}},
  };
  return all;
}

}  // namespace gradweave
