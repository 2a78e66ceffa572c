// Random numbers, by Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): session
// seed, node seed, run number and element index give the number, so it does not depend on threads or device.
#ifndef GRADWEAVE_OPS_RANDOM_H_
#define GRADWEAVE_OPS_RANDOM_H_

#include <optional>
#include <source_location>

#include "gradweave/ops/scope.h"

namespace gradweave {

struct RandomOptions {
  DType dtype = kFloat32;       // float32 or float64.
  std::optional<int64_t> seed;  // Of this node; left out: the next of the graph's own count.
};

// Uniform in [low, high); the shape may hold symbols.
Value RandomUniform(Scope& scope, Shape shape, double low = 0, double high = 1, RandomOptions options = {},
                    std::source_location location = std::source_location::current());
// Normal, by Box and Muller's transform.
Value RandomNormal(Scope& scope, Shape shape, double mean = 0, double standard_deviation = 1,
                   RandomOptions options = {}, std::source_location location = std::source_location::current());

// The same for code that has a value and no scope, such as Dropout: a uniform tensor with the shape of like.
Value RandomUniformLike(Operand like, double low = 0, double high = 1, std::optional<int64_t> seed = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_RANDOM_H_
