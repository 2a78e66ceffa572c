// Checks each model that was loaded from a file.
#ifndef GRADWEAVE_TESTS_FUZZ_RUN_MODEL_H_
#define GRADWEAVE_TESTS_FUZZ_RUN_MODEL_H_

#include "gradweave/runtime/model_file/checkpoint.h"

namespace gradweave::fuzz {

// Verifies the model. One that needs little memory and time is saved and loaded again, and both are
// run twice on the same small feeds: the results have the same bits.
void RunModel(const Model& model);

}  // namespace gradweave::fuzz

#endif  // GRADWEAVE_TESTS_FUZZ_RUN_MODEL_H_
