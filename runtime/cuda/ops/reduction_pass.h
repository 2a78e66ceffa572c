// Division of a reduction into passes, and of a pass into blocks. For the planner, for kernels and
// for the source of generated kernels, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_PASS_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_PASS_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <vector>

#include "gradweave/graph/attribute.h"
#include "gradweave/graph/shape.h"
#endif

namespace gradweave {

// A reduction from [outer, reduced, inner] to [outer, inner]; sizes are in elements. If there are
// few results, `parts` blocks share the reduced axis, and their partial states have shape [outer,
// parts, inner].
struct ReductionPass {
  uint32_t outer, reduced, inner, parts;
};

// How a block computes a pass. For rows (inner is 1), a warp takes a short row and a block a long
// one. For columns (inner is more than 1), a block takes kReducedColumns neighbouring columns, with
// kReducedColumnThreads threads for each.
enum class PassForm { kShortRows, kLongRows, kColumns };
constexpr int kReducedColumns = 32, kReducedColumnThreads = 8;

#ifndef __CUDACC_RTC__

// Returns the passes of a reduction over `axes` of a shape of known sizes: one pass for each group
// of neighbouring axes, from the last group to the first. Each pass reads the result of the pass
// before. There are no passes if all axes have size 1.
std::vector<ReductionPass> ReductionPasses(const Shape& shape, const Integers& axes);

// Returns a pass whose number of parts fills a large GPU. It depends on sizes alone.
ReductionPass MakeReductionPass(int64_t outer, int64_t reduced, int64_t inner);

PassForm FormOf(const ReductionPass& pass);

// Returns the number of blocks that compute all results of a pass, for one part of the reduced
// axis.
uint32_t BlocksOf(const ReductionPass& pass);

#endif

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_REDUCTION_PASS_H_
