// Row regions on the CPU: instructions over blocks of rows that stay in the first-level cache.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Returns the compiler of row regions of float32 and float64. Each node runs the same loop as
// alone, so results are the same bits. The exception is a small sum over rows: alone it is added in
// one pass, here in the chunks of larger sums.
RowRegionCompiler RowCompiler();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_
