// Libraries of the CUDA toolkit that are opened when they are first needed.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_SHARED_LIBRARY_H_
#define GRADWEAVE_RUNTIME_CUDA_API_SHARED_LIBRARY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradweave {

// An open library, which stays open as long as the process lives.
class SharedLibrary {
 public:
  // Opens the first of the files that can be opened. `name` is the name of the library
  // ("cuBLASLt"), and `package` the name of the package to install ("cuBLAS").
  SharedLibrary(absl::string_view name, absl::string_view package, absl::Span<const std::string> files);

  // Sets a pointer to the function of this name.
  template <typename Function>
  void Load(const char* function_name, Function*& function) {
    function = reinterpret_cast<Function*>(Find(function_name));
  }

  // Returns Unavailable, with the package to install, if no file can be opened or a function is
  // missing.
  const absl::Status& status() const { return status_; }

 private:
  void* Find(const char* function_name);

  const std::string name_;
  void* handle_ = nullptr;
  absl::Status status_;
};

// The usual files of a library: "libcublasLt" gives libcublasLt.so.12 and so on, where the loader
// looks and in the toolkit's folder. The version of the build's CUDA runtime comes first: another
// may need a newer driver.
std::vector<std::string> UsualLibraryFiles(absl::string_view stem);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_SHARED_LIBRARY_H_
