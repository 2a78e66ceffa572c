// The cases of the op harness: how to apply an op, and its expected result.
#ifndef GRADWEAVE_TESTS_OPS_OP_CASE_H_
#define GRADWEAVE_TESTS_OPS_OP_CASE_H_

#include <cstdint>
#include <functional>
#include <ostream>
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
  // Returns the element at these indices, one for each axis.
  double& at(const std::vector<int64_t>& indices);
  double at(const std::vector<int64_t>& indices) const;
};

// Calls body with the indices of each element, in row-major order.
void ForIndices(const std::vector<int64_t>& sizes, const std::function<void(const std::vector<int64_t>&)>& body);

// An operand with the given values, or with random values in [low, high], which are the same in
// every run. Integer dtypes get integers.
struct OperandCase {
  std::vector<int64_t> sizes;
  // Floating operands are tested in both float32 and float64, whichever of them is given.
  DType dtype = kFloat64;
  double low = -2;
  double high = 2;
  std::vector<double> values = {};
  bool differentiate = true;  // For floating operands.
};

// One case. The harness
// - runs it in float64 and float32, with known and with symbolic sizes, and compares with the
//   reference;
// - compares first and second derivatives with central differences in float64;
// - compares runs on one and on three threads, and repeated runs, bit for bit;
// - saves and loads the graph;
// - checks the op's batch rule with single samples.
struct OpCase {
  std::string op;    // Name of the tested op in the registry.
  std::string name;  // Distinguishes cases of one op: "stride_2".
  std::vector<OperandCase> operands;
  // Applies the op. The harness compares the returned values.
  std::function<std::vector<Value>(const std::vector<Value>& operands)> build;
  // Computes the same results with plain loops in float64. Null for random ops, whose own tests
  // check the distributions.
  std::function<std::vector<Array>(const std::vector<Array>& operands)> reference;
  // The highest order of derivatives to check; 0 for ops that are not differentiable.
  int derivatives = 2;
  bool symbolic = true;  // True if the case works with symbolic sizes.
  // If true, only the first size of the first operand is a symbol, and equal first sizes of others.
  bool symbolic_batch = false;
  double float32_tolerance = 2e-5;  // |x - reference| <= tolerance * max(1, |reference|).
  double float64_tolerance = 1e-12;
};

// A builder call that must fail with a message that contains all these parts.
struct OpErrorCase {
  std::string op;
  std::string name;
  std::function<void(Scope& scope)> build;
  std::vector<std::string> message_parts;
};

// Test failures name a row by its op and name.
inline void PrintTo(const OpCase& row, std::ostream* out) { *out << row.op << "_" << row.name; }
inline void PrintTo(const OpErrorCase& row, std::ostream* out) { *out << row.op << "_" << row.name; }

struct OpCases {
  std::vector<OpCase> cases;
  std::vector<OpErrorCase> errors;
};

// The cases of each family of ops, from tests/ops/cases/<family>.cc.
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
OpCases AttentionCases();
OpCases SortingCases();
OpCases QuantizedCases();
OpCases CollectiveCases();
OpCases NormalizationCases();
OpCases FunctionCases();
OpCases IndexFunctionCases();
OpCases StoredCases();
OpCases StorageCases();
OpCases ControlFlowCases();

// Returns the cases of all families.
const OpCases& AllOpCases();

// Runs all checks of a case on the device. Returns the first failure as text, or an empty string.
std::string CheckOpCase(const OpCase& row, const Device& device = Device::Cpu());

// The parts of the harness, for tests of a single device's kernels.

// Returns the operands of a case. Floating operands get the dtype `floating`.
std::vector<Tensor> MakeOperands(const OpCase& row, DType floating);
// Returns the first difference beyond tolerance * max(1, |expected|) as text, or an empty string.
std::string Compare(const std::vector<Array>& expected, const std::vector<Tensor>& actual, double tolerance);
// Returns the sum of <weights, value> over the floating values. The weights depend on the seed.
Value WeightedSum(Scope& scope, const std::vector<Value>& values, int seed);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_OPS_OP_CASE_H_
