// Graphs for reading.
#ifndef GRADWEAVE_GRAPH_PRINT_H_
#define GRADWEAVE_GRAPH_PRINT_H_

#include <string>

#include "gradweave/graph/graph.h"

namespace gradweave {

// One line for each node, then the outputs:
//   %12 "conv1/conv2d_12" = Conv2D(%3, %7, %8) {stride=[1,1]} : float32[batch,6,28,28]  # examples/lenet.cc:40
std::string GraphToText(const Graph& graph);

// For Graphviz: `dot -Tsvg`.
std::string GraphToDot(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PRINT_H_
