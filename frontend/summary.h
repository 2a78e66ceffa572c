// A table of a model's layers.
#ifndef GRADWEAVE_FRONTEND_SUMMARY_H_
#define GRADWEAVE_FRONTEND_SUMMARY_H_

#include <string>
#include <vector>

#include "gradweave/frontend/layers.h"
#include "gradweave/graph/dim.h"

namespace gradweave::nn {

struct LayerSummary {
  std::string name;
  Shape output;            // With sizes put in for the symbols that are bound.
  int64_t parameters = 0;  // Elements of trainable variables.
  double flops = 0;        // Floating-point operations of one application; 0 where sizes are not known.
};

// The layers at the model's latest call, which was on `input`.
std::vector<LayerSummary> Summarize(const Sequential& model, const Value& input, const DimBindings& sizes);

// The same as text, with a row for the input and one for the sums.
std::string SummaryTable(const Sequential& model, const Value& input, const DimBindings& sizes);

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_SUMMARY_H_
