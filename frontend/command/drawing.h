// Graphs in Graphviz's dot language: roles in colours, scopes as clusters, shapes on the edges.
#ifndef GRADWEAVE_FRONTEND_COMMAND_DRAWING_H_
#define GRADWEAVE_FRONTEND_COMMAND_DRAWING_H_

#include <string>
#include <vector>

#include "gradweave/graph/graph.h"

namespace gradweave::command {

// The purpose of a node: the model and its loss, gradients, or the update of variables.
enum class Role { kForward, kBackward, kUpdate };

// The roles of all nodes, by id. Forward nodes are those that an output with values needs, except
// outputs grad/NAME. Of the others, updates are assignments and the nodes in the scopes of
// variables that are not trained, as optimizers have them. The rest are gradients.
std::vector<Role> RolesOf(const Graph& graph);

// Draws the nodes that the outputs need, without initial values of variables. If there are more
// than `max_nodes` boxes, it folds as little as is enough: first the update, then scopes, then the
// gradients, then scopes inside of others, and at last scopes whose names differ in a number.
std::string DrawGraph(const Graph& graph, const std::string& title, int max_nodes);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_DRAWING_H_
