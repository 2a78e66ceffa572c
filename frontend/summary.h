// Summaries of a model's layers as tables.
#ifndef GRADWEAVE_FRONTEND_SUMMARY_H_
#define GRADWEAVE_FRONTEND_SUMMARY_H_

#include <string>
#include <vector>

#include "gradweave/frontend/layers.h"
#include "gradweave/graph/dim.h"

namespace gradweave::nn {

// One layer of a model.
struct LayerSummary {
  std::string name;
  Shape output;            // With bound symbols replaced by their sizes.
  int64_t parameters = 0;  // Number of elements of trainable variables.
  double flops = 0;        // Floating-point operations of one application; 0 if sizes are unknown.
};

// Returns one entry for each layer of the model's latest call, whose input was `input`.
std::vector<LayerSummary> Summarize(const Sequential& model, const Value& input, const DimBindings& sizes);

// Formats the summary as a table, with a row for the input and one for the totals.
std::string SummaryTable(const Sequential& model, const Value& input, const DimBindings& sizes);

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_SUMMARY_H_
