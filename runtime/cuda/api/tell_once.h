// Messages to the user that appear once per process.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_TELL_ONCE_H_
#define GRADWEAVE_RUNTIME_CUDA_API_TELL_ONCE_H_

#include <string>

namespace gradweave {

// Writes the text to stderr unless this process has written it before. Any thread may call it.
void TellOnce(const std::string& text);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_TELL_ONCE_H_
