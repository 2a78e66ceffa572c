// What a user should know once.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_TELL_ONCE_H_
#define GRADWEAVE_RUNTIME_CUDA_API_TELL_ONCE_H_

#include <string>

namespace gradweave {

// Says it on stderr unless this process has said it before. From any thread.
void TellOnce(const std::string& text);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_TELL_ONCE_H_
