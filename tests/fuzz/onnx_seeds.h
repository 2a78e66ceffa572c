// The first inputs of the target onnx.
#ifndef GRADWEAVE_TESTS_FUZZ_ONNX_SEEDS_H_
#define GRADWEAVE_TESTS_FUZZ_ONNX_SEEDS_H_

#include <string>
#include <utility>
#include <vector>

namespace gradweave::fuzz {

// Small ONNX files by their names. Together they have most ops that are imported, bodies, functions
// and open sizes.
std::vector<std::pair<std::string, std::string>> OnnxSeeds();

}  // namespace gradweave::fuzz

#endif  // GRADWEAVE_TESTS_FUZZ_ONNX_SEEDS_H_
