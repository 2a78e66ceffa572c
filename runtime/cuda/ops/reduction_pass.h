// How a reduction is cut into passes, and a pass into blocks: for the planner, for kernels, and for the text of
// generated ones, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_PASS_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_PASS_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <vector>

#include "gradweave/graph/attribute.h"
#include "gradweave/graph/shape.h"
#endif

namespace gradweave {

// [outer, reduced, inner] -> [outer, inner], all counted in elements; `parts` blocks share the reduced axis where there
// are few results, and their partial states are [outer, parts, inner].
struct ReductionPass {
  uint32_t outer, reduced, inner, parts;
};

// How a block works on a pass. Rows (inner is 1): a warp for each short one, the block for a long one. Columns (inner
// is more): kReducedColumns neighbouring ones, by kReducedColumnThreads threads each along the reduced axis.
enum class PassForm { kShortRows, kLongRows, kColumns };
constexpr int kReducedColumns = 32, kReducedColumnThreads = 8;

#ifndef __CUDACC_RTC__

// The passes of a reduction over the axes of a shape of known sizes, one for each group of neighbouring axes, from the
// last to the first: each reads what the one before has made. None where all of the axes have size 1.
std::vector<ReductionPass> ReductionPasses(const Shape& shape, const Integers& axes);

// A pass with the number of parts that fills a large GPU; it depends on sizes alone.
ReductionPass MakeReductionPass(int64_t outer, int64_t reduced, int64_t inner);

PassForm FormOf(const ReductionPass& pass);

// The blocks that all results of a pass need, each with one part of the reduced axis.
uint32_t BlocksOf(const ReductionPass& pass);

#endif

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_PASS_H_
