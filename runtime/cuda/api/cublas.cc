#include "gradweave/runtime/cuda/api/cublas.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/shared_library.h"

namespace gradweave {
namespace {

// Largest batch for one call. Some algorithms count matrices along a grid axis that ends at 65535,
// and no other algorithm may be found. An offset of this many matrices keeps the alignment of the
// first one, since it is a large power of two.
constexpr int64_t kMostOfBatch = 32768;

// The functions that this file uses.
#define GRADWEAVE_CUBLASLT_FUNCTIONS(F)   \
  F(cublasLtCreate)                       \
  F(cublasLtMatmulDescCreate)             \
  F(cublasLtMatmulDescSetAttribute)       \
  F(cublasLtMatmulDescDestroy)            \
  F(cublasLtMatrixLayoutCreate)           \
  F(cublasLtMatrixLayoutSetAttribute)     \
  F(cublasLtMatrixLayoutDestroy)          \
  F(cublasLtMatmulPreferenceCreate)       \
  F(cublasLtMatmulPreferenceSetAttribute) \
  F(cublasLtMatmulPreferenceDestroy) F(cublasLtMatmulAlgoGetHeuristic) F(cublasLtMatmul) F(cublasLtGetStatusString)

struct Library {
#define GRADWEAVE_POINTER(name) decltype(&::name) name = nullptr;
  GRADWEAVE_CUBLASLT_FUNCTIONS(GRADWEAVE_POINTER)
#undef GRADWEAVE_POINTER
  absl::Status status;
};

Library Open(absl::Span<const std::string> files) {
  Library library;
  // These functions and the numbers of their attributes are the same in versions 12 and 13.
  SharedLibrary file("cuBLASLt", "cuBLAS", files);
#define GRADWEAVE_LOAD(name) file.Load(#name, library.name);
  GRADWEAVE_CUBLASLT_FUNCTIONS(GRADWEAVE_LOAD)
#undef GRADWEAVE_LOAD
  library.status = file.status();
  return library;
}

absl::Status ToStatus(const Library& library, cublasStatus_t status, absl::string_view call) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string text = absl::StrCat(call, ": ", library.cublasLtGetStatusString(status));
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

// Owns an object that a cuBLASLt create function made.
template <typename T, typename Destroy>
struct Owned {
  T value = nullptr;
  Destroy destroy;
  explicit Owned(Destroy how) : destroy(how) {}
  ~Owned() {
    if (value != nullptr) (void)destroy(value);
  }
};

// Everything that the choice of an algorithm depends on.
using Key = std::array<int64_t, 20>;

// Returns the largest power of two, up to 64, that divides the address. Values lie at multiples of
// 64, and some at larger ones. An algorithm that needs more would make results depend on the place.
int64_t Alignment(const void* address) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(address) | 64;
  return static_cast<int64_t>(bits & (~bits + 1));
}

cublasComputeType_t ComputeType(ProductPrecision precision) {
  switch (precision) {
    case ProductPrecision::kTf32:
      return CUBLAS_COMPUTE_32F_FAST_TF32;
    case ProductPrecision::kBfloat16:
      return CUBLAS_COMPUTE_32F_FAST_16BF;
    case ProductPrecision::kIeee:
      break;
  }
  return CUBLAS_COMPUTE_32F;
}

// A product as cuBLAS sees it. cuBLAS is column-major and these products are row-major, so cuBLAS
// sees each matrix transposed: c^T = op(b)^T op(a)^T. Its first factor is therefore b and its
// second a.
struct Problem {
  Problem(const CudaGemm& gemm, int device, size_t workspace)
      : data_type(gemm.dtype == kFloat32 ? CUDA_R_32F : CUDA_R_64F),
        compute(gemm.dtype == kFloat32 ? ComputeType(gemm.precision) : CUBLAS_COMPUTE_64F),
        workspace_bytes(workspace),
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
            compute,
            Alignment(gemm.a),
            Alignment(gemm.b),
            Alignment(gemm.c),
            static_cast<int64_t>(workspace)} {}

  cudaDataType_t data_type;
  cublasComputeType_t compute;
  size_t workspace_bytes;
  Key key;
};

// The descriptors that cublasLtMatmul needs for a product.
class Descriptors {
 public:
  explicit Descriptors(const Library& library)
      : library_(library),
        product_(library.cublasLtMatmulDescDestroy),
        first_(library.cublasLtMatrixLayoutDestroy),
        second_(library.cublasLtMatrixLayoutDestroy),
        result_(library.cublasLtMatrixLayoutDestroy) {}

  absl::Status Describe(const CudaGemm& gemm, const Problem& problem) {
    GW_RETURN_IF_ERROR(ToStatus(library_,
                                library_.cublasLtMatmulDescCreate(&product_.value, problem.compute, problem.data_type),
                                "cublasLtMatmulDescCreate"));
    GW_RETURN_IF_ERROR(SetTranspose(CUBLASLT_MATMUL_DESC_TRANSA, gemm.transpose_b));
    GW_RETURN_IF_ERROR(SetTranspose(CUBLASLT_MATMUL_DESC_TRANSB, gemm.transpose_a));
    const int64_t rows_a = gemm.transpose_a ? gemm.k : gemm.m, columns_a = gemm.transpose_a ? gemm.m : gemm.k;
    const int64_t rows_b = gemm.transpose_b ? gemm.n : gemm.k, columns_b = gemm.transpose_b ? gemm.k : gemm.n;
    GW_RETURN_IF_ERROR(SetLayout(first_, problem, {rows_b, columns_b, gemm.ldb, gemm.batch, gemm.stride_b}));
    GW_RETURN_IF_ERROR(SetLayout(second_, problem, {rows_a, columns_a, gemm.lda, gemm.batch, gemm.stride_a}));
    return SetLayout(result_, problem, {gemm.m, gemm.n, gemm.ldc, gemm.batch, gemm.stride_c});
  }

  cublasLtMatmulDesc_t product() const { return product_.value; }
  cublasLtMatrixLayout_t first() const { return first_.value; }
  cublasLtMatrixLayout_t second() const { return second_.value; }
  cublasLtMatrixLayout_t result() const { return result_.value; }

 private:
  using Product = Owned<cublasLtMatmulDesc_t, decltype(Library::cublasLtMatmulDescDestroy)>;
  using Layout = Owned<cublasLtMatrixLayout_t, decltype(Library::cublasLtMatrixLayoutDestroy)>;
  // The matrices of a batch as stored.
  struct Stored {
    int64_t rows, columns, leading, batch, stride;
  };

  absl::Status SetTranspose(cublasLtMatmulDescAttributes_t attribute, bool transpose) {
    const cublasOperation_t operation = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    return ToStatus(library_,
                    library_.cublasLtMatmulDescSetAttribute(product_.value, attribute, &operation, sizeof operation),
                    "cublasLtMatmulDescSetAttribute");
  }
  absl::Status SetLayout(Layout& layout, const Problem& problem, const Stored& stored) {
    // cuBLAS sees a stored row as a column.
    GW_RETURN_IF_ERROR(ToStatus(library_,
                                library_.cublasLtMatrixLayoutCreate(&layout.value, problem.data_type, stored.columns,
                                                                    stored.rows, stored.leading),
                                "cublasLtMatrixLayoutCreate"));
    const int32_t batch = static_cast<int32_t>(stored.batch);
    GW_RETURN_IF_ERROR(SetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, batch));
    return SetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stored.stride);
  }
  template <typename T>
  absl::Status SetAttribute(Layout& layout, cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
    return ToStatus(library_, library_.cublasLtMatrixLayoutSetAttribute(layout.value, attribute, &value, sizeof value),
                    "cublasLtMatrixLayoutSetAttribute");
  }

  const Library& library_;
  Product product_;
  Layout first_, second_, result_;
};

}  // namespace

struct Cublas::State {
  const std::vector<std::string> names;
  std::mutex mutex;
  std::optional<Library> library;           // Set by the first product.
  std::map<int, cublasLtHandle_t> handles;  // Indexed by device.
  absl::flat_hash_map<Key, cublasLtMatmulHeuristicResult_t> algorithms;
  std::map<CudaStream, void*> workspaces;

  absl::StatusOr<cublasLtHandle_t> HandleOf(int device) {
    cublasLtHandle_t& handle = handles[device];
    if (handle != nullptr) return handle;
    const absl::Status status = ToStatus(*library, library->cublasLtCreate(&handle), "cublasLtCreate");
    if (!status.ok()) handle = nullptr;
    GW_RETURN_IF_ERROR(status);
    return handle;
  }
  absl::StatusOr<cublasLtMatmulAlgo_t> AlgorithmOf(const CudaGemm& gemm, const Problem& problem,
                                                   const Descriptors& descriptors, cublasLtHandle_t handle);
  absl::Status Run(const CudaGemm& gemm, int device, CudaStream stream);
};

absl::StatusOr<cublasLtMatmulAlgo_t> Cublas::State::AlgorithmOf(const CudaGemm& gemm, const Problem& problem,
                                                                const Descriptors& descriptors,
                                                                cublasLtHandle_t handle) {
  const Library& lt = *library;
  if (auto found = algorithms.find(problem.key); found != algorithms.end()) return found->second.algo;
  Owned<cublasLtMatmulPreference_t, decltype(lt.cublasLtMatmulPreferenceDestroy)> preference(
      lt.cublasLtMatmulPreferenceDestroy);
  GW_RETURN_IF_ERROR(
      ToStatus(lt, lt.cublasLtMatmulPreferenceCreate(&preference.value), "cublasLtMatmulPreferenceCreate"));
  auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    return ToStatus(lt, lt.cublasLtMatmulPreferenceSetAttribute(preference.value, attribute, &value, sizeof value),
                    "cublasLtMatmulPreferenceSetAttribute");
  };
  GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, problem.workspace_bytes));
  GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(Alignment(gemm.b))));
  GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(Alignment(gemm.a))));
  GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(Alignment(gemm.c))));
  GW_RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(Alignment(gemm.c))));
  cublasLtMatmulHeuristicResult_t heuristic = {};
  int count = 0;
  const cublasStatus_t status = lt.cublasLtMatmulAlgoGetHeuristic(
      handle, descriptors.product(), descriptors.first(), descriptors.second(), descriptors.result(),
      descriptors.result(), preference.value, 1, &heuristic, &count);
  // A "not supported" status also means that no algorithm was found.
  if (status != CUBLAS_STATUS_SUCCESS || count == 0 || heuristic.state != CUBLAS_STATUS_SUCCESS) {
    const cublasStatus_t reason = status != CUBLAS_STATUS_SUCCESS ? status : heuristic.state;
    return absl::InternalError(absl::StrCat(
        "cublasLtMatmulAlgoGetHeuristic: ",
        reason == CUBLAS_STATUS_SUCCESS ? "there is no algorithm" : lt.cublasLtGetStatusString(reason), ", for ",
        gemm.batch, " products [", gemm.m, ",", gemm.k, "] x [", gemm.k, ",", gemm.n, "] of ", DTypeName(gemm.dtype),
        gemm.precision == ProductPrecision::kIeee
            ? ""
            : absl::StrCat(" in the precision ", ProductPrecisionName(gemm.precision)),
        " with leading dimensions ", gemm.lda, ", ", gemm.ldb, " and ", gemm.ldc, " and a workspace of ",
        problem.workspace_bytes, " bytes"));
  }
  return algorithms.emplace(problem.key, heuristic).first->second.algo;
}

// Runs a batch of at most kMostOfBatch matrices.
absl::Status Cublas::State::Run(const CudaGemm& gemm, int device, CudaStream stream) {
  const Library& lt = *library;
  GW_ASSIGN_OR_RETURN(const cublasLtHandle_t handle, HandleOf(device));
  const auto found = workspaces.find(stream);
  void* const workspace = found == workspaces.end() ? nullptr : found->second;
  const Problem problem(gemm, device, workspace == nullptr ? 0 : kCublasWorkspaceBytes);
  Descriptors descriptors(lt);
  GW_RETURN_IF_ERROR(descriptors.Describe(gemm, problem));
  GW_ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t algorithm, AlgorithmOf(gemm, problem, descriptors, handle));
  const float alpha32 = static_cast<float>(gemm.alpha), beta32 = static_cast<float>(gemm.beta);
  const void* alpha = gemm.dtype == kFloat32 ? static_cast<const void*>(&alpha32) : &gemm.alpha;
  const void* beta = gemm.dtype == kFloat32 ? static_cast<const void*>(&beta32) : &gemm.beta;
  return ToStatus(
      lt,
      lt.cublasLtMatmul(handle, descriptors.product(), alpha, gemm.b, descriptors.first(), gemm.a, descriptors.second(),
                        beta, gemm.c, descriptors.result(), gemm.c, descriptors.result(), &algorithm, workspace,
                        problem.workspace_bytes, static_cast<cudaStream_t>(stream)),
      "cublasLtMatmul");
}

Cublas& Cublas::Get() {
  static auto* const cublas = new Cublas(UsualLibraryFiles("libcublasLt"));
  return *cublas;
}

Cublas::Cublas(std::vector<std::string> libraries) : state_(new State{.names = std::move(libraries)}) {}

// The handles live as long as the process: the driver may be gone when this destructor runs.
Cublas::~Cublas() = default;

absl::Status Cublas::Gemm(const CudaGemm& gemm, int device, CudaStream stream) {
  if (gemm.dtype != kFloat32 && gemm.dtype != kFloat64)
    return absl::InternalError(absl::StrCat("Gemm: no product of ", DTypeName(gemm.dtype)));
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (!state_->library.has_value()) state_->library = Open(state_->names);
  GW_RETURN_IF_ERROR(state_->library->status);
  const int64_t bytes = static_cast<int64_t>(DTypeSize(gemm.dtype));
  for (int64_t first = 0; first < gemm.batch; first += kMostOfBatch) {
    CudaGemm part = gemm;
    part.batch = std::min(kMostOfBatch, gemm.batch - first);
    part.a = static_cast<const std::byte*>(gemm.a) + first * gemm.stride_a * bytes;
    part.b = static_cast<const std::byte*>(gemm.b) + first * gemm.stride_b * bytes;
    part.c = static_cast<std::byte*>(gemm.c) + first * gemm.stride_c * bytes;
    GW_RETURN_IF_ERROR(state_->Run(part, device, stream));
  }
  return absl::OkStatus();
}

void Cublas::GiveWorkspace(CudaStream stream, void* memory) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->workspaces[stream] = memory;
}

void Cublas::ForgetStream(CudaStream stream) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->workspaces.erase(stream);
}

}  // namespace gradweave
