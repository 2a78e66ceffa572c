#include "gradweave/runtime/cuda/api/shared_library.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {

SharedLibrary::SharedLibrary(absl::string_view name, absl::string_view package, absl::Span<const std::string> files)
    : name_(name) {
  std::vector<std::string> tried;
  for (const std::string& file : files) {
    handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) return;
    tried.push_back(dlerror());
  }
  status_ = absl::UnavailableError(absl::StrCat(name, " is not found (", absl::StrJoin(tried, "; "),
                                                "); install the CUDA toolkit's ", package,
                                                " 12 or 13, or name its folder in LD_LIBRARY_PATH"));
}

void* SharedLibrary::Find(const char* function_name) {
  if (handle_ == nullptr) return nullptr;
  void* const function = dlsym(handle_, function_name);
  if (function == nullptr && status_.ok()) {
    status_ = absl::UnavailableError(
        absl::StrCat("the installed ", name_, " lacks ", function_name, "; install version 12 or 13"));
  }
  return function;
}

std::vector<std::string> UsualLibraryFiles(absl::string_view stem) {
  constexpr int kOwn = CUDART_VERSION / 1000, kOther = kOwn == 12 ? 13 : 12;
  std::vector<std::string> files;
  for (int version : {kOwn, kOther}) {
    for (absl::string_view folder : {"", "/usr/local/cuda/lib64/"}) {
      files.push_back(absl::StrCat(folder, stem, ".so.", version));
    }
  }
  return files;
}

}  // namespace gradweave
