#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/runtime/model_file/graph_file.h"
#include "gradweave/runtime/session/session.h"
#include "tests/ops/op_case.h"

namespace gradweave {

Array Array::Zeros(std::vector<int64_t> sizes) {
  int64_t count = 1;
  for (int64_t size : sizes) count *= size;
  return {std::move(sizes), std::vector<double>(count, 0.0)};
}

namespace {

int64_t Offset(const Array& array, const std::vector<int64_t>& indices) {
  int64_t offset = 0;
  for (size_t axis = 0; axis < indices.size(); ++axis) offset = offset * array.sizes[axis] + indices[axis];
  return offset;
}

}  // namespace

double& Array::at(const std::vector<int64_t>& indices) { return values[Offset(*this, indices)]; }
double Array::at(const std::vector<int64_t>& indices) const { return values[Offset(*this, indices)]; }

void ForIndices(const std::vector<int64_t>& sizes, const std::function<void(const std::vector<int64_t>&)>& body) {
  int64_t count = 1;
  for (int64_t size : sizes) count *= size;
  std::vector<int64_t> indices(sizes.size(), 0);
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i;
    for (int axis = static_cast<int>(sizes.size()) - 1; axis >= 0; --axis) {
      indices[axis] = rest % sizes[axis];
      rest /= sizes[axis];
    }
    body(indices);
  }
}

namespace {

double Unit(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

}  // namespace

std::vector<Tensor> MakeOperands(const OpCase& row, DType floating) {
  std::mt19937_64 random(42);
  std::vector<Tensor> operands;
  for (const OperandCase& operand : row.operands) {
    Tensor values(kFloat64, operand.sizes);
    for (int64_t i = 0; i < values.num_elements(); ++i) {
      double value = operand.low + (operand.high - operand.low) * Unit(random);
      if (!operand.values.empty()) value = operand.values[i];
      // Both precisions use the same numbers.
      if (IsFloating(operand.dtype))
        value = static_cast<float>(value);
      else
        value = std::floor(value);
      values.mutable_data<double>()[i] = value;
    }
    operands.push_back(values.Cast(IsFloating(operand.dtype) ? floating : operand.dtype));
  }
  return operands;
}

namespace {

Array ToArray(const Tensor& tensor) {
  return {std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end()), tensor.ToDoubles()};
}

// The graph of a case: the inputs, and the op applied to them.
struct Built {
  Graph graph;
  std::vector<Value> inputs, results;

  Built(const OpCase& row, const std::vector<Tensor>& operands, bool symbolic) {
    Scope scope(graph);
    // Equal sizes share a symbol, because ops require equal sizes. A size of 1 may broadcast, so it
    // stays known.
    for (size_t i = 0; i < operands.size(); ++i) {
      Shape shape = operands[i].shape();
      for (int axis = 0; symbolic && axis < shape.rank(); ++axis) {
        if (row.symbolic_batch && (axis > 0 || !(shape[0] == operands[0].shape()[0]))) continue;
        if (shape[axis].size() > 1) shape[axis] = Dim(absl::StrCat("n", shape[axis].size()));
      }
      inputs.push_back(scope.Input(absl::StrCat("operand_", i), operands[i].dtype(), shape));
    }
    results = row.build(inputs);
  }
};

std::vector<Feed> Feeds(const std::vector<Value>& inputs, const std::vector<Tensor>& operands) {
  std::vector<Feed> feeds;
  for (size_t i = 0; i < inputs.size(); ++i) feeds.emplace_back(inputs[i], operands[i]);
  return feeds;
}

// The device argument of CheckOpCase.
thread_local Device row_device;

absl::StatusOr<std::vector<Tensor>> RunGraph(const Graph& graph, const std::vector<Value>& inputs,
                                             const std::vector<Tensor>& operands, const std::vector<Value>& results,
                                             int threads, BatchTiles tiles = BatchTiles::kNever) {
  GW_ASSIGN_OR_RETURN(
      Session session,
      Session::Create(graph, {.device = row_device, .threads = threads, .seed = 5, .batch_tiles = tiles}));
  return session.Run(Feeds(inputs, operands), std::vector<Fetch>(results.begin(), results.end()));
}

}  // namespace

std::string Compare(const std::vector<Array>& expected, const std::vector<Tensor>& actual, double tolerance) {
  if (expected.size() != actual.size())
    return absl::StrCat("there are ", actual.size(), " results and ", expected.size(), " in the reference");
  for (size_t k = 0; k < expected.size(); ++k) {
    if (absl::MakeConstSpan(expected[k].sizes) != actual[k].sizes()) {
      return absl::StrCat("result ", k, " is ", actual[k].type().ToString(), " and the reference ",
                          Shape(expected[k].sizes).ToString());
    }
    const std::vector<double> values = actual[k].ToDoubles();
    for (size_t i = 0; i < values.size(); ++i) {
      const double want = expected[k].values[i], got = values[i];
      if (std::isnan(want) ? std::isnan(got)
                           : (want == got || std::abs(want - got) <= tolerance * std::max(1.0, std::abs(want))))
        continue;
      return absl::StrCat("result ", k, " element ", i, " is ", got, " and the reference ", want);
    }
  }
  return "";
}

namespace {

bool SameResults(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), SameBits);
}

// Runs the op on tiles of samples, if the CPU supports it. Compares with the reference, and bit for
// bit with more threads.
std::string CheckTiles(const OpCase& row) {
  const std::vector<Tensor> operands = MakeOperands(row, kFloat32);
  Built built(row, operands, false);
  const absl::StatusOr<std::vector<Tensor>> results =
      RunGraph(built.graph, built.inputs, operands, built.results, 1, BatchTiles::kAlways);
  if (!results.ok()) return std::string(results.status().message());
  if (row.reference != nullptr) {
    std::vector<Array> arrays;
    for (const Tensor& operand : operands) arrays.push_back(ToArray(operand));
    const std::string difference = Compare(row.reference(arrays), *results, row.float32_tolerance);
    if (!difference.empty()) return difference;
  }
  const absl::StatusOr<std::vector<Tensor>> threads =
      RunGraph(built.graph, built.inputs, operands, built.results, 3, BatchTiles::kAlways);
  return threads.ok() && SameResults(*results, *threads) ? "" : "three threads give other bits than one";
}

// Runs the op in one precision, with known or symbolic sizes. Once, compares bit for bit with
// another number of threads, another run, and the saved and loaded graph.
std::string CheckForward(const OpCase& row, DType floating, bool symbolic) {
  const std::vector<Tensor> operands = MakeOperands(row, floating);
  Built built(row, operands, symbolic);
  if (!built.graph.status().ok()) return std::string(built.graph.status().message());
  const absl::StatusOr<std::vector<Tensor>> results = RunGraph(built.graph, built.inputs, operands, built.results, 1);
  if (!results.ok()) return std::string(results.status().message());
  if (row.reference != nullptr) {
    std::vector<Array> arrays;
    for (const Tensor& operand : operands) arrays.push_back(ToArray(operand));
    const std::string difference =
        Compare(row.reference(arrays), *results, floating == kFloat32 ? row.float32_tolerance : row.float64_tolerance);
    if (!difference.empty()) return difference;
  }
  const absl::StatusOr<std::vector<Tensor>> threads = RunGraph(built.graph, built.inputs, operands, built.results, 3);
  if (!threads.ok() || !SameResults(*results, *threads)) return "three threads give other bits than one";

  const absl::StatusOr<std::string> written = GraphToBytes(built.graph);
  if (!written.ok()) return absl::StrCat("the file form is not written: ", written.status().message());
  absl::StatusOr<Graph> read = GraphFromBytes(*written, CoreOps());
  if (!read.ok()) return absl::StrCat("the file form is not read: ", read.status().message());
  auto moved = [&](const std::vector<Value>& values) {
    std::vector<Value> result;
    for (const Value& value : values) result.push_back(read->value(value.port()));
    return result;
  };
  const absl::StatusOr<std::vector<Tensor>> from_file =
      RunGraph(*read, moved(built.inputs), operands, moved(built.results), 1);
  if (!from_file.ok() || !SameResults(*results, *from_file)) return "the graph from its file form gives other bits";
  return "";
}

// The weights of the weighted sum that is differentiated: fixed, and all different.
Tensor Weights(const TensorType& type, int seed) {
  std::mt19937_64 random(seed);
  Tensor weights(kFloat64, type.shape.sizes());
  for (double& weight : weights.mutable_values<double>()) weight = 0.5 + Unit(random);
  return weights;
}

}  // namespace

Value WeightedSum(Scope& scope, const std::vector<Value>& values, int seed) {
  Value sum;
  for (const Value& value : values) {
    if (!IsFloating(value.dtype())) continue;
    const Value part = Sum(value * scope.Constant(Weights(value.type(), seed++)));
    sum = sum.graph() == nullptr ? part : sum + part;
  }
  return sum;
}

namespace {

// Compares the derivatives of f with respect to the operands with central differences, element by
// element.
std::string CompareDerivatives(const std::string& order, Session& session, const std::vector<Value>& inputs,
                               const std::vector<Tensor>& operands, const std::vector<int>& wrt, const Value& f,
                               const std::vector<Value>& gradients) {
  const absl::StatusOr<std::vector<Tensor>> analytic =
      session.Run(Feeds(inputs, operands), std::vector<Fetch>(gradients.begin(), gradients.end()));
  if (!analytic.ok()) return std::string(analytic.status().message());
  for (size_t k = 0; k < wrt.size(); ++k) {
    const std::vector<double> got = (*analytic)[k].ToDoubles();
    for (size_t i = 0; i < got.size(); ++i) {
      double sides[2] = {0, 0};
      const double x = operands[wrt[k]].ToDoubles()[i];
      const double step = 1e-5 * std::max(1.0, std::abs(x));
      for (int side = 0; side < 2; ++side) {
        std::vector<Tensor> moved = operands;
        moved[wrt[k]] = operands[wrt[k]].Clone();
        moved[wrt[k]].mutable_data<double>()[i] = x + (side == 0 ? step : -step);
        const absl::StatusOr<std::vector<Tensor>> value = session.Run(Feeds(inputs, moved), {f});
        if (!value.ok()) return std::string(value.status().message());
        sides[side] = (*value)[0].ToDouble();
      }
      const double want = (sides[0] - sides[1]) / (2 * step);
      constexpr double kTolerance = 2e-6;
      if (!(std::abs(want - got[i]) <= kTolerance * std::max(1.0, std::abs(want)))) {
        return absl::StrCat(order, " derivative with respect to operand ", wrt[k], " element ", i, " is ", got[i],
                            ", and central differences give ", want);
      }
    }
  }
  return "";
}

std::string CheckDerivatives(const OpCase& row) {
  const std::vector<Tensor> operands = MakeOperands(row, kFloat64);
  Built built(row, operands, false);
  Scope scope(built.graph);
  std::vector<int> wrt;
  std::vector<Value> xs;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!IsFloating(operands[i].dtype()) || !row.operands[i].differentiate) continue;
    wrt.push_back(static_cast<int>(i));
    xs.push_back(built.inputs[i]);
  }
  if (xs.empty()) return "no operand is floating, so no derivative is checked";
  const Value f = WeightedSum(scope, built.results, 100);
  const std::vector<Value> first = Gradients({f}, xs);
  const Value g = WeightedSum(scope, first, 200);
  const std::vector<Value> second = row.derivatives >= 2 ? Gradients({g}, xs) : std::vector<Value>();
  if (!built.graph.status().ok()) return std::string(built.graph.status().message());
  absl::StatusOr<Session> session = Session::Create(built.graph, {.device = row_device, .threads = 1, .seed = 5});
  if (!session.ok()) return std::string(session.status().message());
  std::string failure = CompareDerivatives("the first", *session, built.inputs, operands, wrt, f, first);
  if (failure.empty() && row.derivatives >= 2)
    failure = CompareDerivatives("the second", *session, built.inputs, operands, wrt, g, second);
  return failure;
}

Array SampleOf(const Array& whole, int axis, int64_t sample) {
  std::vector<int64_t> sizes = whole.sizes;
  sizes[axis] = 1;
  Array part = Array::Zeros(sizes);
  ForIndices(sizes, [&](const std::vector<int64_t>& indices) {
    std::vector<int64_t> from = indices;
    from[axis] = sample;
    part.at(indices) = whole.at(from);
  });
  return part;
}

Tensor ToTensor(const Array& array, DType dtype) {
  return Tensor::Of<double>(absl::MakeConstSpan(array.sizes), absl::MakeConstSpan(array.values)).Cast(dtype);
}

// Checks the batch rule of an op whose operands have the batch on axis 0: runs of single samples
// must give slices of the result, or terms of its sum. Checks only cases with a single node,
// because the rule describes a node.
std::string CheckBatch(const OpCase& row) {
  const std::vector<Tensor> operands = MakeOperands(row, kFloat64);
  Built built(row, operands, false);
  const Node& node = built.results[0].node();
  if (node.op->batch == nullptr || node.op->name != row.op || node.inputs.size() != built.inputs.size()) return "";
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!(node.inputs[i] == built.inputs[i].port())) return "";
  }
  const TensorTypes types = built.graph.OperandTypes(node);
  // Tries every choice of batched operands.
  for (size_t choice = 1; choice < (size_t{1} << operands.size()); ++choice) {
    std::vector<BatchAxis> axes(operands.size());
    int64_t samples = -1;
    bool possible = true;
    for (size_t i = 0; i < operands.size(); ++i) {
      if (!(choice >> i & 1)) continue;
      possible &= operands[i].rank() > 0 && (samples < 0 || operands[i].size(0) == samples);
      if (operands[i].rank() > 0) samples = operands[i].size(0);
      axes[i] = BatchAxis::Axis(0);
    }
    // The check needs at least two samples.
    if (!possible || samples < 2) continue;
    const absl::InlinedVector<BatchAxis, 2> declared = node.op->batch(OpView(*node.op, node.attributes, types), axes);
    if (std::all_of(declared.begin(), declared.end(),
                    [](const BatchAxis& axis) { return axis.kind == BatchAxis::kMixed; }))
      continue;
    std::vector<Value> outputs;
    for (size_t k = 0; k < node.outputs.size(); ++k)
      outputs.push_back(Value(&built.graph, {node.id, static_cast<int32_t>(k)}));
    const absl::StatusOr<std::vector<Tensor>> whole = RunGraph(built.graph, built.inputs, operands, outputs, 1);
    if (!whole.ok()) return std::string(whole.status().message());
    std::vector<Array> of_operands, of_whole, sums;
    for (const Tensor& operand : operands) of_operands.push_back(ToArray(operand));
    for (const Tensor& result : *whole) of_whole.push_back(ToArray(result));
    // Builds the node again for one sample. Symbols adapt its attributes to the size.
    Graph alone;
    Scope scope(alone);
    std::vector<Value> inputs;
    for (size_t i = 0; i < operands.size(); ++i) {
      Shape shape = operands[i].shape();
      if (axes[i].kind == BatchAxis::kAxis) shape[0] = Dim("batch");
      inputs.push_back(scope.Input(absl::StrCat("operand_", i), operands[i].dtype(), shape));
    }
    const std::vector<Value> results = row.build(inputs);
    // A case whose attributes contain the size of the whole batch cannot run on a part of it.
    if (!alone.status().ok()) return "";
    std::vector<Fetch> part_outputs;
    for (size_t k = 0; k < node.outputs.size(); ++k)
      part_outputs.push_back(Value(&alone, {results[0].port().node, static_cast<int32_t>(k)}));
    absl::StatusOr<Session> session =
        Session::Create(alone, {.device = row_device, .threads = 1, .seed = 5, .batch_tiles = BatchTiles::kNever});
    if (!session.ok()) return std::string(session.status().message());
    for (int64_t sample = 0; sample < samples; ++sample) {
      std::vector<Tensor> parts = operands;
      for (size_t i = 0; i < operands.size(); ++i) {
        if (axes[i].kind == BatchAxis::kAxis) {
          parts[i] = ToTensor(SampleOf(of_operands[i], 0, sample), operands[i].dtype());
        }
      }
      const absl::StatusOr<std::vector<Tensor>> part = session->Run(Feeds(inputs, parts), part_outputs);
      if (!part.ok()) return std::string(part.status().message());
      for (size_t k = 0; k < declared.size(); ++k) {
        const std::string what = absl::StrCat("batch in operands ", choice, ", output ", k, ", sample ", sample, ": ");
        if (declared[k].kind == BatchAxis::kAxis) {
          const std::string difference =
              Compare({SampleOf(of_whole[k], declared[k].axis, sample)}, {(*part)[k]}, row.float64_tolerance);
          if (!difference.empty()) return absl::StrCat(what, difference);
        } else if (declared[k].kind == BatchAxis::kAbsent) {
          const std::string difference = Compare({of_whole[k]}, {(*part)[k]}, row.float64_tolerance);
          if (!difference.empty()) return absl::StrCat(what, difference);
        } else if (declared[k].kind == BatchAxis::kSummed) {
          const Array of_part = ToArray((*part)[k]);
          if (sums.size() <= k) sums.resize(k + 1, Array::Zeros(of_part.sizes));
          for (int64_t i = 0; i < sums[k].count(); ++i) sums[k].values[i] += of_part.values[i];
        }
      }
    }
    for (size_t k = 0; k < sums.size(); ++k) {
      if (declared[k].kind != BatchAxis::kSummed) continue;
      const std::string difference = Compare({sums[k]}, {(*whole)[k]}, 1e-11);
      if (!difference.empty()) return absl::StrCat("batch in operands ", choice, ", sum over samples: ", difference);
    }
  }
  return "";
}

}  // namespace

std::string CheckOpCase(const OpCase& row, const Device& device) {
  row_device = device;
  const bool has_floating = std::any_of(row.operands.begin(), row.operands.end(),
                                        [](const OperandCase& operand) { return IsFloating(operand.dtype); });
  for (DType floating : {kFloat64, kFloat32}) {
    if (floating == kFloat32 && !has_floating) continue;
    for (bool symbolic : {false, true}) {
      if (symbolic && !row.symbolic) continue;
      if (std::string failure = CheckForward(row, floating, symbolic); !failure.empty()) {
        return absl::StrCat(DTypeName(floating), symbolic ? ", symbolic sizes: " : ": ", failure);
      }
    }
  }
  if (has_floating && device == Device::Cpu()) {
    if (std::string failure = CheckTiles(row); !failure.empty()) return absl::StrCat("tiles: ", failure);
  }
  if (row.derivatives > 0) {
    if (std::string failure = CheckDerivatives(row); !failure.empty()) return failure;
  }
  return CheckBatch(row);
}

const OpCases& AllOpCases() {
  static const OpCases* const all = [] {
    auto* cases = new OpCases();
    for (OpCases (*family)() :
         {StateCases,     ElementwiseCases,   RandomCases,    ReductionCases,  ShapeCases,
          IndexingCases,  MatMulCases,        ConvCases,      PoolCases,       SoftmaxCases,
          AttentionCases, SortingCases,       QuantizedCases, CollectiveCases, NormalizationCases,
          FunctionCases,  IndexFunctionCases, StoredCases,    StorageCases,    ControlFlowCases}) {
      OpCases of_family = family();
      std::move(of_family.cases.begin(), of_family.cases.end(), std::back_inserter(cases->cases));
      std::move(of_family.errors.begin(), of_family.errors.end(), std::back_inserter(cases->errors));
    }
    return cases;
  }();
  return *all;
}

}  // namespace gradweave
