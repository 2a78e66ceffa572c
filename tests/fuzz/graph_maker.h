// Graphs from bytes.
#ifndef GRADWEAVE_TESTS_FUZZ_GRAPH_MAKER_H_
#define GRADWEAVE_TESTS_FUZZ_GRAPH_MAKER_H_

#include <cstdint>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {

// A graph with the values that new nodes may use.
struct MadeGraph {
  Graph graph;
  std::vector<Value> inputs;  // Inputs of the graph.
  std::vector<Value> values;  // All values that the maker has kept, inputs included.
};

// Adds inputs: an image [n, c, h, w], a matrix [n, d], a vector [d], indices [n], and in some
// graphs others. n is a symbol or a number. All floating inputs have this dtype.
void AddInputs(ByteReader& bytes, DType floating, MadeGraph& made);

// Adds a node of any op of the registry, as its definition has it: operands with dtypes that it
// takes, and attributes of its types. With `wild`, attributes have any value; otherwise most of
// them fit. Does nothing if the graph refuses the node, which is what happens to many.
void AddAnyNode(ByteReader& bytes, bool wild, MadeGraph& made);

// Adds one part of a network with variables of its own: a convolution, a dense layer, a pool, a
// normalization, an activation, a reduction, a change of shape. One that does not fit leaves an
// error in the graph.
void AddLayer(ByteReader& bytes, MadeGraph& made);

// Returns a size for each symbol of the inputs, from 1 to 5.
DimBindings MakeBindings(ByteReader& bytes, const MadeGraph& made);

// Returns true if a run takes little memory and time: each value has at most 2^16 elements, where
// a size of 0 counts as 1, and all nodes together need at most `most_flops` operations.
bool IsSmall(const Graph& graph, const DimBindings& bindings, double most_flops = 2e7);

// Returns a tensor of the input's type for these sizes: floating elements are in (-1, 1) times
// `scale`, integers in [0, 3). With `wild`, some are NaN, infinite, negative or large.
Tensor MakeFeed(const TensorType& type, const DimBindings& bindings, uint64_t seed, double scale = 1,
                bool wild = false);

}  // namespace gradweave::fuzz

#endif  // GRADWEAVE_TESTS_FUZZ_GRAPH_MAKER_H_
