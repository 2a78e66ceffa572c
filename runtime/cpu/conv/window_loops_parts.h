// The parts of WindowLoops. Each function sets the loops of one file, for the longest vectors of
// this processor.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_PARTS_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_PARTS_H_

#include "gradweave/runtime/cpu/conv/window_loops.h"

namespace gradweave {

// lanes, split, merge, divide and in_range.
void SetSplitLoops(WindowLoops<float>& loops);
void SetSplitLoops(WindowLoops<double>& loops);
// sum and mean.
void SetSumLoops(WindowLoops<float>& loops);
void SetSumLoops(WindowLoops<double>& loops);
// add_to_filter.
void SetFilterLoops(WindowLoops<float>& loops);
void SetFilterLoops(WindowLoops<double>& loops);
// max.
void SetMaximumLoops(WindowLoops<float>& loops);
void SetMaximumLoops(WindowLoops<double>& loops);
// lane_sum and lane_products.
void SetLaneLoops(WindowLoops<float>& loops);
void SetLaneLoops(WindowLoops<double>& loops);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_PARTS_H_
