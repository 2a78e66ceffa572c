// Random numbers from Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). The session's seed, the node's seed, the number of the run and the index of the element
// determine each number. It depends on neither threads nor device.
#ifndef GRADWEAVE_OPS_RANDOM_H_
#define GRADWEAVE_OPS_RANDOM_H_

#include <optional>
#include <source_location>

#include "gradweave/ops/scope.h"

namespace gradweave {

// Options of random ops.
struct RandomOptions {
  DType dtype = kFloat32;       // float32 or float64.
  std::optional<int64_t> seed;  // Default: the next number of the graph's counter.
};

// Uniform numbers in [low, high). The shape may contain symbols. An empty range or another dtype is
// recorded as an error in the graph.
Value RandomUniform(Scope& scope, Shape shape, double low = 0, double high = 1, RandomOptions options = {},
                    std::source_location location = std::source_location::current());
// Normally distributed numbers, by the Box-Muller transform. A negative deviation is an error.
Value RandomNormal(Scope& scope, Shape shape, double mean = 0, double standard_deviation = 1,
                   RandomOptions options = {}, std::source_location location = std::source_location::current());

// A uniform tensor with the shape and dtype of `like`, for code that has no scope, such as Dropout.
Value RandomUniformLike(Operand like, double low = 0, double high = 1, std::optional<int64_t> seed = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_RANDOM_H_
