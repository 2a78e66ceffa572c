// Row regions on the CPU: instructions over blocks of rows that stay in the first-level cache.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// How the CPU runs row regions of float32 and of float64. Each node runs the loop that it runs alone, so results are
// the same bits, but where a sum over rows is small: alone it is added up in one go, here in the chunks of larger ones.
RowRegionCompiler RowCompiler();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_
