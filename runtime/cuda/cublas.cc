#include "gradweave/runtime/cuda/cublas.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

// What NVIDIA recommends for Hopper; others need less.
constexpr size_t kWorkspaceBytes = 32 << 20;

// The functions that are used, by their names.
#define GRADWEAVE_CUBLASLT_FUNCTIONS(F)                                                                        \
  F(cublasLtCreate)                                                                                            \
  F(cublasLtMatmulDescCreate)                                                                                  \
  F(cublasLtMatmulDescSetAttribute)                                                                            \
  F(cublasLtMatmulDescDestroy) F(cublasLtMatrixLayoutCreate) F(cublasLtMatrixLayoutSetAttribute)               \
      F(cublasLtMatrixLayoutDestroy) F(cublasLtMatmulPreferenceCreate) F(cublasLtMatmulPreferenceSetAttribute) \
          F(cublasLtMatmulPreferenceDestroy) F(cublasLtMatmulAlgoGetHeuristic) F(cublasLtMatmul)               \
              F(cublasLtGetStatusString)

struct Library {
#define GRADWEAVE_POINTER(name) decltype(&::name) name = nullptr;
  GRADWEAVE_CUBLASLT_FUNCTIONS(GRADWEAVE_POINTER)
#undef GRADWEAVE_POINTER
  absl::Status status;
};

Library Open() {
  Library library;
  // These functions and the numbers of their attributes are the same in versions 12 and 13.
  std::string tried;
  void* handle = nullptr;
  for (const char* name :
       {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", "/usr/local/cuda/lib64/libcublasLt.so"}) {
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    absl::StrAppend(&tried, tried.empty() ? "" : "; ", dlerror());
  }
  if (handle == nullptr) {
    library.status = absl::UnavailableError(absl::StrCat("cuBLASLt is not found (", tried,
                                                         "); install the CUDA toolkit's cuBLAS 12 or 13, or name its "
                                                         "folder in LD_LIBRARY_PATH"));
    return library;
  }
#define GRADWEAVE_LOAD(name)                                                                                \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name));                            \
  if (library.name == nullptr && library.status.ok()) {                                                     \
    library.status =                                                                                        \
        absl::UnavailableError("the cuBLASLt that was found has no " #name "; versions 12 and 13 will do"); \
  }
  GRADWEAVE_CUBLASLT_FUNCTIONS(GRADWEAVE_LOAD)
#undef GRADWEAVE_LOAD
  return library;
}

const Library& GetLibrary() {
  static const auto* const library = new Library(Open());
  return *library;
}

absl::Status ToStatus(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat(call, ": ", GetLibrary().cublasLtGetStatusString(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

// Destroys what a create function made.
template <typename T, typename Destroy>
struct Owned {
  T value = nullptr;
  Destroy destroy;
  explicit Owned(Destroy how) : destroy(how) {}
  ~Owned() {
    if (value != nullptr) (void)destroy(value);
  }
};

// Everything that a choice of algorithm depends on.
using Key = std::array<int64_t, 19>;

// The largest power of two, up to 256, that divides the address.
int64_t Alignment(const void* address) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<int64_t>(bits & (~bits + 1));
}

// cuBLAS stores columns where these products have rows, which is what a transposed matrix is: c^T = op(b)^T op(a)^T.
// So its first factor is b, its second a.
struct Problem {
  explicit Problem(const CudaGemm& gemm, int device)
      : data_type(gemm.dtype == kFloat32 ? CUDA_R_32F : CUDA_R_64F),
        compute(gemm.dtype == kFloat64 ? CUBLAS_COMPUTE_64F
                : gemm.allow_tf32      ? CUBLAS_COMPUTE_32F_FAST_TF32
                                       : CUBLAS_COMPUTE_32F),
        key{device,
            static_cast<int64_t>(gemm.dtype),
            gemm.transpose_a,
            gemm.transpose_b,
            gemm.m,
            gemm.n,
            gemm.k,
            gemm.lda,
            gemm.ldb,
            gemm.ldc,
            gemm.batch,
            gemm.stride_a,
            gemm.stride_b,
            gemm.stride_c,
            gemm.beta == 0,
            gemm.allow_tf32,
            Alignment(gemm.a),
            Alignment(gemm.b),
            Alignment(gemm.c)} {}

  cudaDataType_t data_type;
  cublasComputeType_t compute;
  Key key;
};

struct State {
  std::mutex mutex;
  std::map<int, cublasLtHandle_t> handles;  // By device.
  absl::flat_hash_map<Key, cublasLtMatmulHeuristicResult_t> algorithms;
  std::map<CudaStream, void*> workspaces;
};

State& GetState() {
  static auto* const state = new State();
  return *state;
}

absl::StatusOr<void*> Workspace(State& state, CudaStream stream) {
  void*& workspace = state.workspaces[stream];
  if (workspace != nullptr) return workspace;
  if (const cudaError_t error = cudaMalloc(&workspace, kWorkspaceBytes); error != cudaSuccess) {
    workspace = nullptr;
    (void)cudaGetLastError();
    const std::string text =
        absl::StrCat("the workspace of matrix products, ", kWorkspaceBytes, " bytes: ", cudaGetErrorString(error));
    return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
  }
  return workspace;
}

}  // namespace

absl::Status CublasGemm(const CudaGemm& gemm, int device, CudaStream stream) {
  const Library& lt = GetLibrary();
  GW_RETURN_IF_ERROR(lt.status);
  if (gemm.dtype != kFloat32 && gemm.dtype != kFloat64)
    return absl::InternalError(absl::StrCat("Gemm: no product of ", DTypeName(gemm.dtype)));
  State& state = GetState();
  std::lock_guard<std::mutex> lock(state.mutex);
  cublasLtHandle_t& handle = state.handles[device];
  if (handle == nullptr) GW_RETURN_IF_ERROR(ToStatus(lt.cublasLtCreate(&handle), "cublasLtCreate"));
  GW_ASSIGN_OR_RETURN(void* workspace, Workspace(state, stream));

  const Problem problem(gemm, device);
  Owned<cublasLtMatmulDesc_t, decltype(lt.cublasLtMatmulDescDestroy)> product(lt.cublasLtMatmulDescDestroy);
  GW_RETURN_IF_ERROR(ToStatus(lt.cublasLtMatmulDescCreate(&product.value, problem.compute, problem.data_type),
                              "cublasLtMatmulDescCreate"));
  const cublasOperation_t transpose_first = gemm.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t transpose_second = gemm.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  GW_RETURN_IF_ERROR(ToStatus(lt.cublasLtMatmulDescSetAttribute(product.value, CUBLASLT_MATMUL_DESC_TRANSA,
                                                                &transpose_first, sizeof transpose_first),
                              "cublasLtMatmulDescSetAttribute"));
  GW_RETURN_IF_ERROR(ToStatus(lt.cublasLtMatmulDescSetAttribute(product.value, CUBLASLT_MATMUL_DESC_TRANSB,
                                                                &transpose_second, sizeof transpose_second),
                              "cublasLtMatmulDescSetAttribute"));

  using Layout = Owned<cublasLtMatrixLayout_t, decltype(lt.cublasLtMatrixLayoutDestroy)>;
  Layout first(lt.cublasLtMatrixLayoutDestroy), second(lt.cublasLtMatrixLayoutDestroy),
      result(lt.cublasLtMatrixLayoutDestroy);
  auto make_layout = [&](Layout& layout, int64_t stored_rows, int64_t stored_columns, int64_t leading,
                         int64_t stride) -> absl::Status {
    // A stored row is a column here.
    GW_RETURN_IF_ERROR(
        ToStatus(lt.cublasLtMatrixLayoutCreate(&layout.value, problem.data_type, stored_columns, stored_rows, leading),
                 "cublasLtMatrixLayoutCreate"));
    const int32_t batch = static_cast<int32_t>(gemm.batch);
    GW_RETURN_IF_ERROR(ToStatus(
        lt.cublasLtMatrixLayoutSetAttribute(layout.value, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
        "cublasLtMatrixLayoutSetAttribute"));
    return ToStatus(lt.cublasLtMatrixLayoutSetAttribute(layout.value, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                        &stride, sizeof stride),
                    "cublasLtMatrixLayoutSetAttribute");
  };
  GW_RETURN_IF_ERROR(make_layout(first, gemm.transpose_b ? gemm.n : gemm.k, gemm.transpose_b ? gemm.k : gemm.n,
                                 gemm.ldb, gemm.stride_b));
  GW_RETURN_IF_ERROR(make_layout(second, gemm.transpose_a ? gemm.k : gemm.m, gemm.transpose_a ? gemm.m : gemm.k,
                                 gemm.lda, gemm.stride_a));
  GW_RETURN_IF_ERROR(make_layout(result, gemm.m, gemm.n, gemm.ldc, gemm.stride_c));

  auto found = state.algorithms.find(problem.key);
  if (found == state.algorithms.end()) {
    Owned<cublasLtMatmulPreference_t, decltype(lt.cublasLtMatmulPreferenceDestroy)> preference(
        lt.cublasLtMatmulPreferenceDestroy);
    GW_RETURN_IF_ERROR(
        ToStatus(lt.cublasLtMatmulPreferenceCreate(&preference.value), "cublasLtMatmulPreferenceCreate"));
    auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      return ToStatus(lt.cublasLtMatmulPreferenceSetAttribute(preference.value, attribute, &value, sizeof value),
                      "cublasLtMatmulPreferenceSetAttribute");
    };
    GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes));
    GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(Alignment(gemm.b))));
    GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(Alignment(gemm.a))));
    GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(Alignment(gemm.c))));
    GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(Alignment(gemm.c))));
    cublasLtMatmulHeuristicResult_t heuristic = {};
    int count = 0;
    GW_RETURN_IF_ERROR(
        ToStatus(lt.cublasLtMatmulAlgoGetHeuristic(handle, product.value, first.value, second.value, result.value,
                                                   result.value, preference.value, 1, &heuristic, &count),
                 "cublasLtMatmulAlgoGetHeuristic"));
    if (count == 0) {
      return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm for the product [", gemm.m, ",", gemm.k,
                                              "] x [", gemm.k, ",", gemm.n, "] of ", DTypeName(gemm.dtype)));
    }
    found = state.algorithms.emplace(problem.key, heuristic).first;
  }

  const float alpha32 = static_cast<float>(gemm.alpha), beta32 = static_cast<float>(gemm.beta);
  const void* alpha = gemm.dtype == kFloat32 ? static_cast<const void*>(&alpha32) : &gemm.alpha;
  const void* beta = gemm.dtype == kFloat32 ? static_cast<const void*>(&beta32) : &gemm.beta;
  return ToStatus(lt.cublasLtMatmul(handle, product.value, alpha, gemm.b, first.value, gemm.a, second.value, beta,
                                    gemm.c, result.value, gemm.c, result.value, &found->second.algo, workspace,
                                    kWorkspaceBytes, static_cast<cudaStream_t>(stream)),
                  "cublasLtMatmul");
}

absl::Status CublasForgetStream(CudaStream stream) {
  State& state = GetState();
  std::lock_guard<std::mutex> lock(state.mutex);
  auto found = state.workspaces.find(stream);
  if (found == state.workspaces.end()) return absl::OkStatus();
  const cudaError_t error = cudaFree(found->second);
  state.workspaces.erase(found);
  return error == cudaSuccess ? absl::OkStatus() : absl::InternalError(cudaGetErrorString(error));
}

}  // namespace gradweave
