// Rows of the op harness: for each op, how to apply it and what it has to give.
#ifndef GRADWEAVE_TESTS_OPS_OP_CASE_H_
#define GRADWEAVE_TESTS_OPS_OP_CASE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/device.h"

namespace gradweave {

// A dense float64 array for plain reference code.
struct Array {
  std::vector<int64_t> sizes;
  std::vector<double> values;  // Row-major.

  static Array Zeros(std::vector<int64_t> sizes);
  int64_t size(int axis) const { return sizes[axis]; }
  int64_t count() const { return static_cast<int64_t>(values.size()); }
  // The element at these indices, one for each axis.
  double& at(const std::vector<int64_t>& indices);
  double at(const std::vector<int64_t>& indices) const;
};

// Calls body with the indices of each element of the sizes, in row-major order.
void ForIndices(const std::vector<int64_t>& sizes, const std::function<void(const std::vector<int64_t>&)>& body);

// An operand: random values (the same every time) in [low, high], integers for integer dtypes; or the values given.
struct OperandCase {
  std::vector<int64_t> sizes;
  DType dtype = kFloat64;  // Floating operands are tested in float64 and float32, whichever is written here.
  double low = -2;
  double high = 2;
  std::vector<double> values = {};
  bool differentiate = true;  // Of floating operands.
};

// One row. The harness runs it in float64 and float32, with known sizes and with sizes of the inputs that are symbols,
// and compares with the reference; checks first and second derivatives against central differences in float64; compares
// one thread with three, and a run with its repetition, bit for bit; sends the graph through its file form; and checks
// the op's declared treatment of the batch by running samples alone.
struct OpCase {
  std::string op;    // The op that the row is for, as registered.
  std::string name;  // Distinguishes rows of one op: "stride_2".
  std::vector<OperandCase> operands;
  // Applies the op. The results are what is compared.
  std::function<std::vector<Value>(const std::vector<Value>& operands)> build;
  // The same results by plain loops in float64. Null for random ops, whose own tests check distributions.
  std::function<std::vector<Array>(const std::vector<Array>& operands)> reference;
  int derivatives = 2;              // The highest order checked; 0 for ops that are not differentiable.
  bool symbolic = true;             // Whether the row works with sizes that are symbols.
  double float32_tolerance = 2e-5;  // |x - reference| <= tolerance * max(1, |reference|).
  double float64_tolerance = 1e-12;
};

// A builder call that has to fail, with a message that contains every one of these parts.
struct OpErrorCase {
  std::string op;
  std::string name;
  std::function<void(Scope& scope)> build;
  std::vector<std::string> message_parts;
};

struct OpCases {
  std::vector<OpCase> cases;
  std::vector<OpErrorCase> errors;
};

// One function for each family, in tests/ops/cases/<family>.cc.
OpCases StateCases();
OpCases ElementwiseCases();
OpCases RandomCases();
OpCases ReductionCases();
OpCases ShapeCases();
OpCases IndexingCases();
OpCases MatMulCases();
OpCases ConvCases();
OpCases PoolCases();
OpCases SoftmaxCases();
OpCases NormalizationCases();

// All of them.
const OpCases& AllOpCases();

// Everything that the harness checks of a row on the device; the first failure as text, empty where all is well.
std::string CheckOpCase(const OpCase& row, const Device& device = Device::Cpu());

// What the harness is made of, for tests of one device's kernels.

// The row's operands, with floating ones in the dtype.
std::vector<Tensor> MakeOperands(const OpCase& row, DType floating);
// The first difference beyond tolerance * max(1, |expected|) as text; empty where there is none.
std::string Compare(const std::vector<Array>& expected, const std::vector<Tensor>& actual, double tolerance);
// The sum of <weights, value> over the floating values, with weights that depend on the seed.
Value WeightedSum(Scope& scope, const std::vector<Value>& values, int seed);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_OPS_OP_CASE_H_
