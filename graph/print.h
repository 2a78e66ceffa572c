// Text forms of graphs for people to read.
#ifndef GRADWEAVE_GRAPH_PRINT_H_
#define GRADWEAVE_GRAPH_PRINT_H_

#include <string>

#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns one line for each node, then one for each output:
//   %12 "conv1/conv2d_12" = Conv2D(%3, %7, %8) {stride=[1,1]} : float32[batch,6,28,28]  # examples/lenet.cc:40
std::string GraphToText(const Graph& graph);

// Returns the graph in Graphviz's dot language; `dot -Tsvg` draws it.
std::string GraphToDot(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PRINT_H_
