// The results of tests/models/make_reference.py and make_layer_reference.py, and the numbers from
// which its models are built.
#ifndef GRADWEAVE_TESTS_MODELS_REFERENCE_H_
#define GRADWEAVE_TESTS_MODELS_REFERENCE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gradweave/graph/tensor.h"

namespace gradweave {

// Returns numbers() of reference_numbers.py as a tensor of this dtype.
Tensor Numbers(DType dtype, uint64_t seed, const std::vector<int64_t>& sizes, double low = -1, double high = 1);
// Returns integers() of reference_numbers.py, in [0, limit).
Tensor IntegerNumbers(DType dtype, uint64_t seed, const std::vector<int64_t>& sizes, int64_t limit);

// Compares the tensors with the lines of the reference files whose names begin with the prefix. The
// rest of the name identifies the tensor; each line and each tensor must have a counterpart.
// Numbers may differ by the tolerance times the larger of their magnitude and the root mean square
// of the array. Returns a description of the differences, or an empty string.
std::string DifferenceFromReference(const std::string& prefix, const std::map<std::string, Tensor>& tensors,
                                    double tolerance);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_MODELS_REFERENCE_H_
