// Padding with elements of x. Pad of ops/shape_ops.h pads with a number.
#ifndef GRADWEAVE_OPS_PADDING_H_
#define GRADWEAVE_OPS_PADDING_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

enum class BorderMode {
  kReflect,  // 3 2 | 1 2 3 | 2 1: as in a mirror at the middle of the outer elements.
  kEdge,     // 1 1 | 1 2 3 | 3 3: the outer elements.
  kWrap,     // 2 3 | 1 2 3 | 1 2: the elements of the other end.
};
struct BorderOptions {
  Integers low;   // Elements before x along each axis; negative numbers remove elements.
  Integers high;  // Elements behind x.
  BorderMode mode = BorderMode::kReflect;
};
// Returns x with such elements around it, as numpy.pad does: reflections and repetitions continue
// if the padding is larger than x. Errors are recorded in the graph: lists whose length is not the
// rank, and padding of an empty axis.
Value PadBorder(Operand x, const BorderOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_PADDING_H_
