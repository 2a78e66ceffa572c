// Builder calls, sessions and flags that are wrong in one place.
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/files/refusal.h"

namespace gradweave {
namespace {

// Removes where the call is, " at <file>:<line>", which is another line for each row.
absl::Status WithoutPlace(const absl::Status& status) {
  std::string text(status.message());
  const size_t end = text.find(".cc:"), begin = text.rfind(" at ", end);
  if (end != text.npos && begin != text.npos) text.erase(begin, text.find_first_not_of("0123456789", end + 4) - begin);
  if (absl::EndsWith(text, ",")) text.pop_back();
  return absl::Status(status.code(), text);
}

struct Row {
  const char* name;
  std::function<void(Scope& s)> build;
  const char* message;
};

Value F(Scope& s, const Shape& shape) { return s.Input(absl::StrCat("in_", s.graph().num_nodes()), kFloat32, shape); }
Value I(Scope& s, const Shape& shape) { return s.Input(absl::StrCat("in_", s.graph().num_nodes()), kInt32, shape); }

const Row kRows[] = {
    {"broadcast",
     [](Scope& s) {
       F(s, {2, 3}) + F(s, {2, 4});
     },
     "Add: the shapes [2,3] and [2,4] do not broadcast: aligned at their last axes, sizes have to be equal or 1; "
     "operands are (a: float32[2,3], b: float32[2,4])"},
    {"dtypes", [](Scope& s) { F(s, {2}) * I(s, {2}); },
     "Mul: operands have different dtypes, float32 and int32, and have to have the same one; Cast converts; operands "
     "are (a: float32[2], b: int32[2])"},
    {"integers", [](Scope& s) { Sigmoid(I(s, {2})); },
     "Sigmoid: operand 0 (x) is int32 and has to be float32 or float64; Cast converts; operands are (x: int32[2])"},
    {"number", [](Scope& s) { I(s, {2}) * 0.5; },
     "Constant: the number 0.5 is not a valid int32; operands are (0.5, int32[2])"},
    {"product",
     [](Scope& s) {
       MatMul(F(s, {Dim("n"), 3}), F(s, {4, 5}));
     },
     "MatMul: a has 3 columns and b has 4 rows after the requested transpositions; they have to be equal; operands are "
     "(a: float32[n,3], b: float32[4,5])"},
    {"vector of a product",
     [](Scope& s) {
       MatMul(F(s, {3}), F(s, {3, 5}));
     },
     "MatMul: operand 0 is float32[3] and has to have at least two axes; ExpandDims turns a vector into a row or a "
     "column; operands are (a: float32[3], b: float32[3,5])"},
    {"channels",
     [](Scope& s) {
       Conv2D(F(s, {1, 3, 8, 8}), F(s, {4, 2, 3, 3}));
     },
     "Conv2D: x has 3 channels, and the filter is for 2 (2 in each of 1 groups); operands are (x: float32[1,3,8,8], "
     "filter: float32[4,2,3,3])"},
    {"filter larger than the image",
     [](Scope& s) {
       Conv2D(F(s, {1, 3, 2, 2}), F(s, {4, 3, 5, 5}));
     },
     "Conv2D: the filter covers a height of 5, and x with its padding has 2; a smaller filter or more padding fits; "
     "operands are (x: float32[1,3,2,2], filter: float32[4,3,5,5])"},
    {"stride 0",
     [](Scope& s) {
       Conv2D(F(s, {1, 3, 8, 8}), F(s, {4, 3, 3, 3}), {.stride = {0, 1}});
     },
     "Conv2D: the stride has to be two numbers of at least 1, for height and width; operands are (x: float32[1,3,8,8], "
     "filter: float32[4,3,3,3])"},
    {"groups",
     [](Scope& s) {
       Conv2D(F(s, {1, 3, 8, 8}), F(s, {4, 1, 3, 3}), {.groups = 2});
     },
     "Conv2D: x has 3 channels, and the filter is for 2 (1 in each of 2 groups); operands are (x: float32[1,3,8,8], "
     "filter: float32[4,1,3,3])"},
    {"window",
     [](Scope& s) {
       MaxPool2D(F(s, {1, 3, 8, 8}), {.window = {3}});
     },
     "MaxPool2D: the window has to be two numbers of at least 1, for height and width; operands are (x: "
     "float32[1,3,8,8])"},
    {"padding of a pool",
     [](Scope& s) {
       AvgPool2D(F(s, {1, 3, 8, 8}), {.window = {2, 2}, .padding = {2, 2}});
     },
     "AvgPool2D: the padding 2 of the height has to be in [0, 2), below the window; operands are (x: "
     "float32[1,3,8,8])"},
    {"elements",
     [](Scope& s) {
       Reshape(F(s, {2, 3}), {4, 2});
     },
     "Reshape: the shape [4,2] has 8 elements, and x has 6; operands are (x: float32[2,3])"},
    {"symbol",
     [](Scope& s) {
       Reshape(F(s, {6}), {Dim("2n"), 2});
     },
     "Reshape: the attribute 'shape' has the symbol '2n'; a symbol has letters, digits and _, and does not begin with "
     "a digit; operands are (x: float32[6])"},
    {"negative size",
     [](Scope& s) {
       F(s, {2, -3});
     },
     "Input: the output would have a negative dimension: float32[2,-3], node 'in_0'"},
    {"permutation",
     [](Scope& s) {
       Transpose(F(s, {2, 3}), {0, 0});
     },
     "Transpose: the permutation [0,0] is not one of the 2 axes of x; operands are (x: float32[2,3])"},
    {"rows of a concatenation",
     [](Scope& s) {
       Concat({F(s, {2, 3}), F(s, {3, 3})}, 1);
     },
     "Concat: operand 1 is float32[3,3]; but along axis 1 sizes have to be those of operand 0, [2,3]; operands are "
     "(values: float32[2,3], values: float32[3,3])"},
    {"axis of a concatenation",
     [](Scope& s) {
       Concat({F(s, {2, 3}), F(s, {3, 3})}, 2);
     },
     "Concat: axis 2 is outside [0, 2); operands are (values: float32[2,3], values: float32[3,3])"},
    {"axis of a sum",
     [](Scope& s) {
       Sum(F(s, {2, 3}), {.axes = {2}});
     },
     "Sum: axis 2 is outside [-2, 2); operands are (float32[2,3])"},
    {"axis twice",
     [](Scope& s) {
       Sum(F(s, {2, 3}), {.axes = {0, -2}});
     },
     "Sum: axis -2 is given twice; operands are (float32[2,3])"},
    {"axis of softmax",
     [](Scope& s) {
       Softmax(F(s, {2, 3}), 5);
     },
     "Softmax: axis 5 is outside [0, 2); operands are (x: float32[2,3])"},
    {"labels",
     [](Scope& s) {
       SparseSoftmaxCrossEntropy(F(s, {4, 10}), I(s, {5}));
     },
     "SparseSoftmaxCrossEntropy: labels have to have shape [4], the shape of logits without the last axis; operands "
     "are (logits: float32[4,10], labels: int32[5])"},
    {"indices",
     [](Scope& s) {
       Gather(F(s, {4, 10}), F(s, {5}));
     },
     "Gather: operand 1 (indices) is float32 and has to be int32 or int64; Cast converts; operands are (x: "
     "float32[4,10], indices: float32[5])"},
    {"depth", [](Scope& s) { OneHot(I(s, {5}), -1); },
     "OneHot: the depth is -1 and has to be at least 0; operands are (indices: int32[5])"},
    {"slice", [](Scope& s) { SliceAxis(F(s, {4}), 0, 2, 9); },
     "Slice: start 2 and limit 9 along axis 0 have to lie in order in [0, 4]; operands are (x: float32[4])"},
    {"condition", [](Scope& s) { Where(F(s, {4}), F(s, {4}), F(s, {4})); },
     "Where: operand 0 (condition) is float32 and has to be bool; Cast converts; operands are (condition: float32[4], "
     "if_true: float32[4], if_false: float32[4])"},
    {"bounds", [](Scope& s) { Clip(F(s, {4}), 2, 1); },
     "Clip: low is 2 and high is 1; low has to be at most high; operands are (x: float32[4])"},
    {"rate", [](Scope& s) { Dropout(F(s, {4}), 1.5); },
     "Dropout: the rate is 1.5 and has to be in [0, 1); operands are (float32[4])"},
    {"bounds of random numbers", [](Scope& s) { RandomUniform(s, {4}, 1, 0); },
     "RandomUniform: low is 1 and high is 0; low has to be below high, and both finite"},
    {"name twice", [](Scope& s) { s.Input("x", kFloat32, {}), s.Input("x", kFloat32, {}); },
     "Input: the name is taken, node 'x'"},
    {"no name", [](Scope& s) { s.Input("", kFloat32, {}); }, "Input: the name is empty; runs are fed by name"},
    {"control character", [](Scope& s) { s.Input("\x1b[2J", kFloat32, {}); },
     "Input: the name '\\x1b[2J' has a control character, node '\\x1b[2J'"},
    {"shape of a variable", [](Scope& s) { s.Variable("v", F(s, {Dim("n")})); },
     "Variable: the shape has to be known, and is float32[n]; only values of a run may depend on symbols; operands are "
     "(initial_value: float32[n]), node 'v'"},
    {"no variable", [](Scope& s) { Assign(F(s, {2}), F(s, {2})); },
     "Assign: operand 0 has to be the value of a Variable node; operands are (variable: float32[2], value: "
     "float32[2])"},
    {"value of a variable", [](Scope& s) { Assign(s.Variable("v", s.Full(0, {2})), F(s, {3})); },
     "Assign: the value has to have the variable's dtype and shape; operands are (variable: float32[2], value: "
     "float32[3])"},
    {"gradient of integers", [](Scope& s) { Gradients({Sum(F(s, {2}))}, {I(s, {2})}); },
     "Gradients: in_0 is int32[2]; each x has to be float32, float64, float16 or bfloat16"},
    {"unreachable",
     [](Scope& s) { Gradients({Sum(F(s, {2}))}, {F(s, {2})}, {}, {.unreachable = GradientOptions::kError}); },
     "Gradients: no gradient reaches in_0, float32[2]: sum_2 does not depend on in_0"},
    {"device",
     [](Scope& s) {
       s.SetDevice("gpu");
       F(s, {2}) * 2;
     },
     "Session: 'gpu' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>; in Input() 'in_0'"},
};

TEST(Malformed, BuilderCalls) {
  for (const Row& row : kRows) {
    ExpectRefused(row.name, row.message, [&] {
      Graph graph;
      Scope scope(graph);
      row.build(scope);
      return WithoutPlace(Session::Create(graph, {.threads = 1}).status());
    });
  }
}

TEST(Malformed, Runs) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 3}), y = Sum(x);
  const Value i = scope.Input("i", kInt32, {Dim("n")}), rows = Gather(scope.Constant(Tensor(kFloat32, {2, 3})), i);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  using Feeds = std::vector<Feed>;
  const std::vector<std::tuple<const char*, Feeds, Fetch, const char*>> runs = {
      {"no feed", {}, y, "Run: the fetches need input 'x', float32[n,3], and it is not fed"},
      {"twice", {{x, Tensor(kFloat32, {1, 3})}, {x, Tensor(kFloat32, {1, 3})}}, y, "Run: input 'x' is fed twice"},
      {"dtype",
       {{x, Tensor(kFloat64, {1, 3})}},
       y,
       "Run: the feed of input 'x' is float64[1,3] and the input is float32[n,3]: the dtype has to be float32"},
      {"rank",
       {{x, Tensor(kFloat32, {3})}},
       y,
       "Run: the feed of input 'x' is float32[3] and the input is float32[n,3]: it has to have 2 dimensions"},
      {"size",
       {{x, Tensor(kFloat32, {1, 4})}},
       y,
       "Run: the feed of input 'x' is float32[1,4] and the input is float32[n,3]: axis 1 has to have size 3"},
      {"symbol",
       {{x, Tensor(kFloat32, {1, 3})}, {i, Tensor(kInt32, {2})}},
       y,
       "Run: the feed of input 'i' is int32[2] and the input is int32[n]: another input has size 1 for n"},
      {"no input", {{y, Tensor(kFloat32, {})}}, y, "Run: only inputs are fed, and Sum(x: float32[n,3]) is none"},
      {"no value",
       {{x, Tensor(kFloat32, {1, 3})}},
       Value(),
       "Run: a fetch is the value of a failed builder call, or none"},
      {"index",
       {{i, Tensor::Of<int32_t>({2}, {0, 2})}},
       rows,
       "Gather: index 2 at position 1 is outside [0, 2); in Gather(x: float32[2,3], indices: int32[2])"},
      {"empty update",
       {},
       Update(),
       "Run: an update has no assignments, so it would change nothing; what made it has recorded the reason in its "
       "graph, if there is one"},
  };
  for (const auto& [name, feeds, fetch, message] : runs) {
    ExpectRefused(name, message, [&feeds = feeds, &fetch = fetch, &session] {
      return WithoutPlace(session->Run(feeds, {fetch}).status());
    });
  }
}

TEST(Malformed, Options) {
  Graph graph;
  auto create = [&](SessionOptions options) {
    return [&graph, options] { return Session::Create(graph, options).status(); };
  };
  ExpectRefused("threads", "Session: threads is -1 and has to be in [0, 1024], 0 for all processors",
                create({.threads = -1}));
  ExpectRefused("threads", "Session: threads is 1025 and has to be in [0, 1024], 0 for all processors",
                create({.threads = 1025}));
  ExpectRefused("budget", "Session: memory_budget is -1 bytes and has to be at least 0; 0 means no limit",
                create({.memory_budget = -1}));
  ExpectRefused("variable", "Session: the graph has no variable 'w'", create({.variables = {{"w", Tensor()}}}));
  for (const auto& [text, message] :
       {std::pair{"", "'' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>"},
        {"gpu", "'gpu' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>"},
        {"cuda:-1", "'cuda:-1' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>"},
        {"cpu:1:2", "'cpu:1:2' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>"}}) {
    ExpectRefused(text, message, [text = text] { return Device::Parse(text).status(); });
  }
}

// Flags of a program, which prints one line and exits with 1.
TEST(Malformed, Flags) {
  auto run = [](const std::string& flags) -> absl::Status {
    // A shell that cannot start the program has another exit code.
    const std::string command = absl::StrCat(kSanitizer ? "" : "ulimit -v 4194304; ", "timeout 10 examples/regression ",
                                             absl::StrReplaceAll(flags, {{"DIR", TestFolder()}}), " 2>&1");
    FILE* const pipe = popen(command.c_str(), "r");
    std::string text;
    std::array<char, 256> buffer;
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) text += buffer.data();
    const int code = WEXITSTATUS(pclose(pipe));
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return code == 1 ? absl::InvalidArgumentError(text) : absl::OkStatus();
  };
  WriteTestFile("input.csv", "age,strength\n1,2\n");
  const std::pair<const char*, const char*> rows[] = {
      {"--epochs=0", "regression: --epochs=0 is outside its range, [1, 1000000]"},
      {"--epochs=1000001", "regression: --epochs=1000001 is outside its range, [1, 1000000]"},
      {"--batch_size=-1", "regression: --batch_size=-1 is outside its range, [1, 1000000]"},
      {"--lr=0", "regression: --lr=0 is outside its range, (0, 1000]"},
      {"--lr=nan", "regression: --lr=nan is outside its range, (0, 1000]"},
      {"--threads=2000", "regression: --threads=2000 is outside its range, [1, 1024], or 0 for all processors"},
      {"--device=gpu", "regression: 'gpu' is not a device; devices are cuda and cuda:<index>, cpu and cpu:<index>"},
      {"--precision=fp16", "regression: 'fp16' is not a precision of products; use ieee, tf32 or bf16"},
      {"--plot_dir=none", "regression: --plot_dir: there is no folder none"},
      {"--data=DIR/input.csv --target=mass",
       "regression: DIR/input.csv: there is no column \"mass\"; the header has 2: \"age\", \"strength\""},
      {"--data=/dev/zero", "regression: /dev/zero: this is not a regular file but a pipe, socket or device"},
      {"--epochs=many", "ERROR: Illegal value 'many' specified for flag 'epochs'*"},
      {"--nonsense", "ERROR: Unknown command line flag 'nonsense'*"},
      {"nonsense", "regression: 'nonsense' is not a flag; flags begin with --"},
  };
  for (const auto& [flags, message] : rows) ExpectRefused(flags, message, [&run, flags = flags] { return run(flags); });
}

}  // namespace
}  // namespace gradweave
