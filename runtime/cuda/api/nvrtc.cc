#include "gradweave/runtime/cuda/api/nvrtc.h"

#include <dlfcn.h>
#include <nvrtc.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/shared_library.h"

namespace gradweave {
namespace {

// The functions that this file uses.
#define GRADWEAVE_NVRTC_FUNCTIONS(F) \
  F(nvrtcGetErrorString)             \
  F(nvrtcVersion)                    \
  F(nvrtcGetNumSupportedArchs)       \
  F(nvrtcGetSupportedArchs)          \
  F(nvrtcCreateProgram)              \
  F(nvrtcDestroyProgram)             \
  F(nvrtcCompileProgram)             \
  F(nvrtcGetProgramLogSize)          \
  F(nvrtcGetProgramLog) F(nvrtcGetCUBINSize) F(nvrtcGetCUBIN) F(nvrtcGetPTXSize) F(nvrtcGetPTX)

struct Library {
#define GRADWEAVE_POINTER(name) decltype(&::name) name = nullptr;
  GRADWEAVE_NVRTC_FUNCTIONS(GRADWEAVE_POINTER)
#undef GRADWEAVE_POINTER
  absl::Status status;
  int major = 0, minor = 0;
  std::vector<int> architectures;  // Ascending.
};

absl::Status ToStatus(const Library& library, nvrtcResult result, const char* call) {
  if (result == NVRTC_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(call, ": ", library.nvrtcGetErrorString(result)));
}

absl::Status AskVersion(Library& library) {
  GW_RETURN_IF_ERROR(ToStatus(library, library.nvrtcVersion(&library.major, &library.minor), "nvrtcVersion"));
  int count = 0;
  GW_RETURN_IF_ERROR(ToStatus(library, library.nvrtcGetNumSupportedArchs(&count), "nvrtcGetNumSupportedArchs"));
  if (count <= 0) return absl::UnavailableError("the installed NVRTC supports no architecture");
  library.architectures.resize(static_cast<size_t>(count));
  GW_RETURN_IF_ERROR(
      ToStatus(library, library.nvrtcGetSupportedArchs(library.architectures.data()), "nvrtcGetSupportedArchs"));
  std::sort(library.architectures.begin(), library.architectures.end());
  return absl::OkStatus();
}

// NVRTC opens its library of built-in functions by name when it first compiles. If NVRTC itself was
// found by its path, the loader may not look in that folder, so this opens the other library there
// first. If that fails, NVRTC's own search decides.
void OpenBuiltins(const Library& library) {
  Dl_info place;
  if (dladdr(reinterpret_cast<const void*>(library.nvrtcVersion), &place) == 0) return;
  const std::string file = place.dli_fname;
  const size_t slash = file.rfind('/');
  if (slash == std::string::npos) return;
  (void)dlopen(absl::StrCat(file.substr(0, slash), "/libnvrtc-builtins.so.", library.major, ".", library.minor).c_str(),
               RTLD_NOW | RTLD_GLOBAL);
}

Library Open(absl::Span<const std::string> files) {
  Library library;
  SharedLibrary file("NVRTC", "NVRTC", files);
#define GRADWEAVE_LOAD(name) file.Load(#name, library.name);
  GRADWEAVE_NVRTC_FUNCTIONS(GRADWEAVE_LOAD)
#undef GRADWEAVE_LOAD
  library.status = file.status();
  if (library.status.ok()) library.status = AskVersion(library);
  if (library.status.ok()) OpenBuiltins(library);
  return library;
}

// How to compile for an architecture: to machine code if the library knows it, otherwise to PTX of
// the newest known architecture before it.
struct Target {
  bool machine_code;
  std::vector<std::string> options;
};

absl::StatusOr<Target> TargetOf(const Library& library, int architecture) {
  const std::vector<int>& known = library.architectures;
  const auto above = std::upper_bound(known.begin(), known.end(), architecture);
  if (above == known.begin()) {
    return absl::UnavailableError(absl::StrCat(
        "NVRTC ", library.major, ".", library.minor, " compiles for compute capability ", known.front() / 10, ".",
        known.front() % 10, " and newer, but the device has ", architecture / 10, ".", architecture % 10));
  }
  const int nearest = *(above - 1);
  const bool machine_code = nearest == architecture;
  return Target{
      machine_code,
      {absl::StrCat("--gpu-architecture=", machine_code ? "sm_" : "compute_", nearest), "--std=c++17", "--fmad=false"}};
}

absl::StatusOr<std::string> Compile(const Library& library, const std::string& source, int architecture) {
  GW_ASSIGN_OR_RETURN(const Target target, TargetOf(library, architecture));
  nvrtcProgram program = nullptr;
  GW_RETURN_IF_ERROR(ToStatus(
      library, library.nvrtcCreateProgram(&program, source.c_str(), "gradweave_generated.cu", 0, nullptr, nullptr),
      "nvrtcCreateProgram"));
  const std::unique_ptr<nvrtcProgram, std::function<void(nvrtcProgram*)>> owned(
      &program, [&](nvrtcProgram* made) { (void)library.nvrtcDestroyProgram(made); });
  std::vector<const char*> options;
  for (const std::string& option : target.options) options.push_back(option.c_str());
  const nvrtcResult compiled = library.nvrtcCompileProgram(program, static_cast<int>(options.size()), options.data());
  if (compiled != NVRTC_SUCCESS) {
    size_t bytes = 0;
    std::string log;
    if (library.nvrtcGetProgramLogSize(program, &bytes) == NVRTC_SUCCESS) {
      log.resize(bytes);
      (void)library.nvrtcGetProgramLog(program, log.data());
    }
    return absl::InternalError(
        absl::StrCat("nvrtcCompileProgram: ", library.nvrtcGetErrorString(compiled), ": ", log.c_str()));
  }
  auto get = [&](auto size_of, auto copy, const char* call) -> absl::StatusOr<std::string> {
    size_t bytes = 0;
    GW_RETURN_IF_ERROR(ToStatus(library, size_of(program, &bytes), call));
    std::string image(bytes, '\0');
    GW_RETURN_IF_ERROR(ToStatus(library, copy(program, image.data()), call));
    return image;
  };
  if (target.machine_code) return get(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, "nvrtcGetCUBIN");
  return get(library.nvrtcGetPTXSize, library.nvrtcGetPTX, "nvrtcGetPTX");
}

// Opens the library on the first call and keeps it open.
class LazyLibrary {
 public:
  explicit LazyLibrary(std::vector<std::string> names) : names_(std::move(names)) {}
  const Library& Get() {
    std::call_once(once_, [&] { library_ = Open(names_); });
    return library_;
  }

 private:
  const std::vector<std::string> names_;
  std::once_flag once_;
  Library library_;
};

KernelCompiler CompilerOf(const std::shared_ptr<LazyLibrary>& lazy) {
  return {.describe = [lazy](int architecture) -> absl::StatusOr<std::string> {
            const Library& library = lazy->Get();
            GW_RETURN_IF_ERROR(library.status);
            GW_ASSIGN_OR_RETURN(const Target target, TargetOf(library, architecture));
            return absl::StrCat("NVRTC ", library.major, ".", library.minor, " ", absl::StrJoin(target.options, " "));
          },
          .compile = [lazy](const std::string& source, int architecture) -> absl::StatusOr<std::string> {
            const Library& library = lazy->Get();
            GW_RETURN_IF_ERROR(library.status);
            return Compile(library, source, architecture);
          }};
}

}  // namespace

KernelCompiler NvrtcCompiler() {
  static auto* const library =
      new std::shared_ptr<LazyLibrary>(std::make_shared<LazyLibrary>(UsualLibraryFiles("libnvrtc")));
  return CompilerOf(*library);
}

KernelCompiler NvrtcCompilerOf(absl::Span<const std::string> libraries) {
  return CompilerOf(std::make_shared<LazyLibrary>(std::vector<std::string>(libraries.begin(), libraries.end())));
}

}  // namespace gradweave
