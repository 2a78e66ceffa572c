#include "gradweave/ops/shape_ops.h"

#include "absl/strings/str_cat.h"
#include "gradweave/ops/elementwise.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

using Map = std::function<std::vector<int64_t>(const std::vector<int64_t>&)>;

// Builds a result of these sizes. Each element comes from the position that the map returns; if it
// returns no indices, the element is the fill value.
std::function<std::vector<Array>(const std::vector<Array>&)> From(std::vector<int64_t> sizes, Map map,
                                                                  double elsewhere = 0) {
  return [=](const std::vector<Array>& x) {
    Array y = Array::Zeros(sizes);
    ForIndices(sizes, [&](const std::vector<int64_t>& indices) {
      const std::vector<int64_t> from = map(indices);
      y.at(indices) = from.empty() && !x[0].sizes.empty() ? elsewhere : x[0].at(from);
    });
    return std::vector<Array>{y};
  };
}

std::function<std::vector<Array>(const std::vector<Array>&)> Resized(std::vector<int64_t> sizes) {
  return [sizes](const std::vector<Array>& x) { return std::vector<Array>{{sizes, x[0].values}}; };
}

}  // namespace

OpCases ShapeCases() {
  OpCases all;
  auto add = [&](const char* op, const char* name, std::vector<int64_t> sizes, std::function<Value(Value)> build,
                 std::function<std::vector<Array>(const std::vector<Array>&)> reference,
                 bool symbolic = true) -> OpCase& {
    all.cases.push_back({op,
                         name,
                         {{sizes}},
                         [build](const std::vector<Value>& x) { return std::vector<Value>{build(x[0])}; },
                         reference,
                         2,
                         symbolic});
    return all.cases.back();
  };
  add(
      "Reshape", "merge", {2, 3, 4},
      [](Value x) {
        return Reshape(x, {x.shape()[0], -1});
      },
      Resized({2, 12}));
  add(
      "Reshape", "split", {2, 12},
      [](Value x) {
        return Reshape(x, {2, 3, 4});
      },
      Resized({2, 3, 4}), false);
  add(
      "Reshape", "to_scalar", {1, 1}, [](Value x) { return Reshape(x, {}); }, Resized({}));
  add(
      "Reshape", "squeeze", {2, 1, 3, 1}, [](Value x) { return Squeeze(x); }, Resized({2, 3}));
  add(
      "Reshape", "squeeze_one", {2, 1, 3, 1}, [](Value x) { return Squeeze(x, {-1}); }, Resized({2, 1, 3}));
  add(
      "Reshape", "expand_dims", {2, 3},
      [](Value x) {
        return ExpandDims(x, {0, -1});
      },
      Resized({1, 2, 3, 1}));
  add(
      "Reshape", "flatten", {2, 3, 4}, [](Value x) { return Flatten(x); }, Resized({2, 12}));
  add(
      "Reshape", "flatten_all", {2, 3}, [](Value x) { return Flatten(x, 0); }, Resized({6}));
  add(
      "Transpose", "matrix", {3, 4}, [](Value x) { return Transpose(x); }, From({4, 3}, [](const auto& i) {
        return std::vector<int64_t>{i[1], i[0]};
      }));
  add(
      "Transpose", "batched", {2, 3, 4},
      [](Value x) {
        return Transpose(x, {0, 2, 1});
      },
      From({2, 4, 3}, [](const auto& i) {
        return std::vector<int64_t>{i[0], i[2], i[1]};
      }));
  add(
      "Transpose", "four_axes", {2, 3, 4, 2},
      [](Value x) {
        return Transpose(x, {3, 1, 0, 2});
      },
      From({2, 3, 2, 4}, [](const auto& i) {
        return std::vector<int64_t>{i[2], i[1], i[3], i[0]};
      }));
  add(
      "Transpose", "large", {70, 45}, [](Value x) { return Transpose(x); },
      From({45, 70},
           [](const auto& i) {
             return std::vector<int64_t>{i[1], i[0]};
           }))
      .derivatives = 0;
  add(
      "BroadcastTo", "rows", {3},
      [](Value x) {
        return BroadcastTo(x, {2, x.shape()[0]});
      },
      From({2, 3}, [](const auto& i) { return std::vector<int64_t>{i[1]}; }));
  add(
      "BroadcastTo", "both", {2, 1},
      [](Value x) {
        return BroadcastTo(x, {3, x.shape()[0], 4});
      },
      From({3, 2, 4}, [](const auto& i) {
        return std::vector<int64_t>{i[1], 0};
      }));
  add(
      "BroadcastTo", "scalar", {},
      [](Value x) {
        return BroadcastTo(x, {2, 2});
      },
      From({2, 2}, [](const auto&) { return std::vector<int64_t>{}; }));
  add(
      "BroadcastTo", "tile", {2, 3},
      [](Value x) {
        return Tile(x, {2, 3});
      },
      From({4, 9}, [](const auto& i) {
        return std::vector<int64_t>{i[0] % 2, i[1] % 3};
      }));
  add(
      "Slice", "range", {4, 5},
      [](Value x) {
        return Slice(x, {.start = {1, 2}, .limit = {3, 5}});
      },
      From({2, 3},
           [](const auto& i) {
             return std::vector<int64_t>{i[0] + 1, i[1] + 2};
           }),
      false);
  add(
      "Slice", "steps", {7, 5},
      [](Value x) {
        return Slice(x, {.start = {1, 0}, .limit = {7, 5}, .steps = {3, 2}});
      },
      From({2, 3},
           [](const auto& i) {
             return std::vector<int64_t>{i[0] * 3 + 1, i[1] * 2};
           }),
      false);
  add(
      "Slice", "negative_step", {6}, [](Value x) { return Slice(x, {.start = {4}, .limit = {-1}, .steps = {-2}}); },
      From({3}, [](const auto& i) { return std::vector<int64_t>{4 - 2 * i[0]}; }), false);
  add(
      "Slice", "axis", {3, 6}, [](Value x) { return SliceAxis(x, -1, 1, x.shape()[1] - Dim(1), 2); },
      From({3, 2}, [](const auto& i) {
        return std::vector<int64_t>{i[0], 1 + 2 * i[1]};
      }));
  add(
      "Slice", "empty", {3, 4}, [](Value x) { return SliceAxis(x, 1, 2, 2); },
      From({3, 0}, [](const auto& i) { return i; }))
      .derivatives = 0;
  all.cases.push_back({"Slice",
                       "split",
                       {{{2, 6}}},
                       [](const std::vector<Value>& x) {
                         return Split(x[0], {1, 3, 2}, 1);
                       },
                       [](const std::vector<Array>& x) {
                         std::vector<Array> parts;
                         int64_t start = 0;
                         for (int64_t size : {1, 3, 2}) {
                           parts.push_back(From({2, size}, [start](const auto& i) {
                             return std::vector<int64_t>{i[0], i[1] + start};
                           })({x[0]})[0]);
                           start += size;
                         }
                         return parts;
                       },
                       2,
                       false});
  // Their gradients are joined. The slices overlap, leave gaps, and are sliced again. Another node
  // reads x as a whole.
  all.cases.push_back(
      {"Slice",
       "several_of_one_value",
       {{{7, 3}}},
       [](const std::vector<Value>& x) {
         const Value rows = SliceAxis(x[0], 0, 1, 7);
         return std::vector<Value>{Mul(SliceAxis(x[0], 0, 0, 4), SliceAxis(x[0], 0, 2, 6)),
                                   Square(SliceAxis(x[0], 1, 0, 3, 2)),
                                   Square(Slice(x[0], {.start = {5, 0}, .limit = {0, 3}, .steps = {-2, 1}})),
                                   Mul(SliceAxis(rows, 0, 1, 3), SliceAxis(rows, 0, 4, 6)), Square(x[0])};
       },
       [](const std::vector<Array>& x) {
         auto at = [&](int64_t row, int64_t column) { return x[0].at({row, column}); };
         auto made = [](std::vector<int64_t> sizes, auto of) {
           Array y = Array::Zeros(sizes);
           ForIndices(sizes, [&](const auto& i) { y.at(i) = of(i[0], i[1]); });
           return y;
         };
         auto square = [](double v) { return v * v; };
         return std::vector<Array>{made({4, 3}, [&](int64_t i, int64_t j) { return at(i, j) * at(i + 2, j); }),
                                   made({7, 2}, [&](int64_t i, int64_t j) { return square(at(i, 2 * j)); }),
                                   made({3, 3}, [&](int64_t i, int64_t j) { return square(at(5 - 2 * i, j)); }),
                                   made({2, 3}, [&](int64_t i, int64_t j) { return at(i + 2, j) * at(i + 5, j); }),
                                   made({7, 3}, [&](int64_t i, int64_t j) { return square(at(i, j)); })};
       },
       2,
       false});
  all.cases.push_back(
      {"Slice",
       "parts_that_cover",
       {{{2, 6}}},
       [](const std::vector<Value>& x) {
         const std::vector<Value> parts = Split(x[0], {2, 1, 3}, 1);
         return std::vector<Value>{Square(parts[0]), Mul(parts[2], parts[1])};
       },
       [](const std::vector<Array>& x) {
         Array a = Array::Zeros({2, 2}), b = Array::Zeros({2, 3});
         ForIndices(a.sizes, [&](const auto& i) { a.at(i) = x[0].at(i) * x[0].at(i); });
         ForIndices(b.sizes, [&](const auto& i) { b.at(i) = x[0].at({i[0], 3 + i[1]}) * x[0].at({i[0], 2}); });
         return std::vector<Array>{a, b};
       },
       2,
       false});
  const auto slice_add = [](const std::vector<Array>& x) {
    // Rows 0 to 2, and then columns 0 and 3 of rows 1 and 3.
    Array y = x[0];
    ForIndices(x[1].sizes, [&](const auto& i) { y.at(i) += x[1].at(i); });
    ForIndices(x[2].sizes, [&](const auto& i) { y.at({1 + 2 * i[0], 3 * i[1]}) += x[2].at(i); });
    return std::vector<Array>{y};
  };
  for (DType dtype : {kFloat64, kInt32, kUint8}) {
    all.cases.push_back(
        {"SliceAdd",
         absl::StrCat("overlapping_", DTypeName(dtype)),
         {{{5, 4}, dtype, 0, 2}, {{3, 4}, dtype, 0, 2}, {{2, 2}, dtype, 0, 2}},
         [](const std::vector<Value>& x) {
           return std::vector<Value>{
               AddOp("SliceAdd", {Operand(x[0]), Operand(x[1]), Operand(x[2])},
                     {{"starts", Shape{0, 0, 1, 0}}, {"limits", Shape{3, 4, 5, 4}}, {"steps", Integers{1, 1, 2, 3}}})};
         },
         slice_add,
         dtype == kFloat64 ? 2 : 0,
         false});
  }
  all.cases.push_back(
      {"SliceAdd",
       "sizes_of_the_part",
       {{{3, 5}}, {{3, 2}}},
       [](const std::vector<Value>& x) {
         const Shape& part = x[1].shape();
         return std::vector<Value>{
             AddOp("SliceAdd", {Operand(x[0]), Operand(x[1])},
                   {{"starts", Shape{0, 2}}, {"limits", Shape{part[0], part[1] + Dim(2)}}, {"steps", Integers{1, 1}}})};
       },
       [](const std::vector<Array>& x) {
         Array y = x[0];
         ForIndices(x[1].sizes, [&](const auto& i) { y.at({i[0], i[1] + 2}) += x[1].at(i); });
         return std::vector<Array>{y};
       }});
  add(
      "Pad", "zeros", {2, 3},
      [](Value x) {
        return Pad(x, {.low = {1, 0}, .high = {0, 2}});
      },
      From({3, 5}, [](const auto& i) {
        return i[0] >= 1 && i[1] < 3 ? std::vector<int64_t>{i[0] - 1, i[1]} : std::vector<int64_t>{};
      }));
  add(
      "Pad", "interior_value", {3},
      [](Value x) { return Pad(x, {.low = {1}, .high = {1}, .interior = {1}, .value = 7}); },
      From(
          {7}, [](const auto& i) { return i[0] % 2 == 1 ? std::vector<int64_t>{i[0] / 2} : std::vector<int64_t>{}; },
          7));
  add(
      "Pad", "negative", {5}, [](Value x) { return Pad(x, {.low = {-1}, .high = {-2}}); },
      From({2}, [](const auto& i) { return std::vector<int64_t>{i[0] + 1}; }));
  add(
      "Pad", "negative_interior", {4}, [](Value x) { return Pad(x, {.low = {-1}, .high = {0}, .interior = {1}}); },
      From({6}, [](const auto& i) {
        return i[0] % 2 == 1 ? std::vector<int64_t>{(i[0] + 1) / 2} : std::vector<int64_t>{};
      }));
  add(
      "Reverse", "axes", {2, 3, 2},
      [](Value x) {
        return Reverse(x, {0, -1});
      },
      From({2, 3, 2}, [](const auto& i) {
        return std::vector<int64_t>{1 - i[0], i[1], 1 - i[2]};
      }));
  for (int64_t axis : {0, 1}) {
    all.cases.push_back({"Concat",
                         axis == 0 ? "rows" : "columns",
                         {{{2, 2}}, {{2, 2}}, {{2, 2}}},
                         [axis](const std::vector<Value>& x) { return std::vector<Value>{Concat(x, axis - 2)}; },
                         [axis](const std::vector<Array>& x) {
                           Array y = Array::Zeros(axis == 0 ? std::vector<int64_t>{6, 2} : std::vector<int64_t>{2, 6});
                           ForIndices(y.sizes, [&](const std::vector<int64_t>& i) {
                             std::vector<int64_t> from = i;
                             from[axis] %= 2;
                             y.at(i) = x[i[axis] / 2].at(from);
                           });
                           return std::vector<Array>{y};
                         }});
  }
  // Other element sizes use the same code.
  for (DType dtype : {kUint8, kInt64, kBool}) {
    all.cases.push_back({"Transpose",
                         std::string(DTypeName(dtype)),
                         {{{3, 4, 2}, dtype, 0, 2}},
                         [](const std::vector<Value>& x) {
                           return std::vector<Value>{Transpose(x[0], {1, 2, 0})};
                         },
                         From({4, 2, 3},
                              [](const auto& i) {
                                return std::vector<int64_t>{i[2], i[0], i[1]};
                              }),
                         0});
  }
  all.errors = {
      {"Reshape",
       "count",
       [](Scope& s) {
         Reshape(s.Input("x", kFloat32, {2, 3}), {4});
       },
       {"the shape [4] has 4 elements, and x has 6"}},
      {"Reshape",
       "rest",
       [](Scope& s) {
         Reshape(s.Input("x", kFloat32, {2, 3}), {4, -1});
       },
       {"the 6 elements are not a multiple of 4"}},
      {"Transpose",
       "permutation",
       [](Scope& s) {
         Transpose(s.Input("x", kFloat32, {2, 3}), {0, 0});
       },
       {"the permutation [0,0]"}},
      {"BroadcastTo",
       "sizes",
       [](Scope& s) {
         BroadcastTo(s.Input("x", kFloat32, {3}), {2, 4});
       },
       {"[3] does not broadcast to [2,4]"}},
      {"Concat",
       "sizes",
       [](Scope& s) {
         Concat({s.Input("x", kFloat32, {2, 3}), s.Input("y", kFloat32, {2, 4})}, 0);
       },
       {"operand 1 is float32[2,4]"}},
      {"Slice",
       "limit",
       [](Scope& s) { SliceAxis(s.Input("x", kFloat32, {4}), 0, 1, 5); },
       {"start 1 and limit 5 along axis 0", "[0, 4]"}},
      {"SliceAdd",
       "part",
       [](Scope& s) {
         AddOp("SliceAdd", {s.Input("x", kFloat32, {4}), s.Input("part", kFloat32, {3})},
               {{"starts", Shape{1}}, {"limits", Shape{3}}, {"steps", Integers{1}}});
       },
       {"operand 1 is float32[3], and its slice of x is [2]"}},
      {"SliceAdd",
       "numbers",
       [](Scope& s) {
         AddOp("SliceAdd", {s.Input("x", kFloat32, {4}), s.Input("part", kFloat32, {3})},
               {{"starts", Shape{1, 2}}, {"limits", Shape{3}}, {"steps", Integers{1}}});
       },
       {"need 1 elements, one for each part and axis of x"}},
      {"Split",
       "sum",
       [](Scope& s) {
         Split(s.Input("x", kFloat32, {4}), {1, 2}, 0);
       },
       {"Split: the sizes add up to 3"}},
      {"Pad",
       "removes",
       [](Scope& s) { Pad(s.Input("x", kFloat32, {2}), {.low = {-2}, .high = {-1}}); },
       {"remove more along axis 0 than there is"}},
      {"Squeeze",
       "axis",
       [](Scope& s) {
         Squeeze(s.Input("x", kFloat32, {2, 1}), {0});
       },
       {"axis 0 is not an axis of size 1"}},
      {"Tile",
       "multiples",
       [](Scope& s) {
         Tile(s.Input("x", kFloat32, {2, 1}), {2});
       },
       {"there have to be 2 multiples"}},
  };
  return all;
}

}  // namespace gradweave
