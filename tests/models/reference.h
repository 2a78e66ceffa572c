// The results of tests/models/make_reference.py, and the numbers that its models are made of.
#ifndef GRADWEAVE_TESTS_MODELS_REFERENCE_H_
#define GRADWEAVE_TESTS_MODELS_REFERENCE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gradweave/frontend/layers.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// numbers() of make_reference.py, in a tensor of the dtype.
Tensor Numbers(DType dtype, uint64_t seed, const std::vector<int64_t>& sizes, double low = -1, double high = 1);
// integers() of make_reference.py: in [0, limit).
Tensor IntegerNumbers(DType dtype, uint64_t seed, const std::vector<int64_t>& sizes, int64_t limit);

// The layers of lenet() of make_reference.py, which are those of chapter 6.6 of "Dive into Deep Learning".
nn::Sequential LeNetLayers();

// Compares tensors with the lines of reference.txt whose names begin with the prefix, by the rest of the name: each has
// to have a counterpart. Numbers may differ by tolerance times the larger of their own magnitude and the root of the
// mean square of the array. Returns what differs, as text; empty where nothing does.
std::string DifferenceFromReference(const std::string& prefix, const std::map<std::string, Tensor>& tensors,
                                    double tolerance);

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_MODELS_REFERENCE_H_
