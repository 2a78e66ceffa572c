// A fake cuBLASLt for cublas_test.cc. It implements the documented behaviour of the functions that
// Gradweave uses, in host memory and with column-major matrices. It is stricter than the real
// library. Additional functions tell a test what the library has seen.
#include <cublasLt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

// Limit of a batch, like an algorithm that counts products along the third axis of a grid.
constexpr int32_t kMostOfBatch = 65535;

struct Product {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transposes[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
};
struct Layout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t leading, stride = 0;
  int32_t batch = 1;
};
struct Preference {
  uint64_t workspace_bytes = 0;
};

int products = 0, searches = 0, most_alignment = 0;
cublasComputeType_t compute_type = CUBLAS_COMPUTE_32F;  // Compute type of the last product.

// Casts a handle, whose type the header only declares, to this file's type.
template <typename T, typename Handle>
T& Of(Handle handle) {
  return *reinterpret_cast<T*>(handle);
}

bool Fits(const Layout& layout, uint64_t rows, uint64_t columns, const Product& product) {
  return layout.type == product.scale && layout.rows == rows && layout.columns == columns &&
         layout.leading >= static_cast<int64_t>(rows);
}

template <typename T>
void Multiply(const Product& product, T alpha, const T* a, const Layout& of_a, const T* b, const Layout& of_b, T beta,
              T* d, const Layout& of_d) {
  const bool transpose_a = product.transposes[0] == CUBLAS_OP_T, transpose_b = product.transposes[1] == CUBLAS_OP_T;
  const uint64_t inner = transpose_a ? of_a.rows : of_a.columns;
  for (int32_t i = 0; i < of_d.batch; ++i, a += of_a.stride, b += of_b.stride, d += of_d.stride) {
    for (uint64_t column = 0; column < of_d.columns; ++column) {
      for (uint64_t row = 0; row < of_d.rows; ++row) {
        T sum = 0;
        for (uint64_t k = 0; k < inner; ++k) {
          sum += (transpose_a ? a[row * of_a.leading + k] : a[k * of_a.leading + row]) *
                 (transpose_b ? b[k * of_b.leading + column] : b[column * of_b.leading + k]);
        }
        T& element = d[column * of_d.leading + row];
        element = alpha * sum + (beta == 0 ? 0 : beta * element);
      }
    }
  }
}

}  // namespace

extern "C" {

// Return the number of products, and of searches for an algorithm, since the last call.
int FakeProducts() {
  const int count = products;
  products = 0;
  return count;
}
int FakeSearches() {
  const int count = searches;
  searches = 0;
  return count;
}
// Returns the largest alignment in bytes that a search was told of since the last call.
int FakeMostAlignment() {
  const int most = most_alignment;
  most_alignment = 0;
  return most;
}
// Returns the compute type of the last product.
int FakeComputeType() { return compute_type; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int it;
  *handle = reinterpret_cast<cublasLtHandle_t>(&it);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  *desc = reinterpret_cast<cublasLtMatmulDesc_t>(new Product{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete &Of<Product>(desc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  const bool is_first = attribute == CUBLASLT_MATMUL_DESC_TRANSA;
  if ((!is_first && attribute != CUBLASLT_MATMUL_DESC_TRANSB) || bytes != sizeof(int32_t))
    return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&Of<Product>(desc).transposes[is_first ? 0 : 1], value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete &Of<Layout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof(int32_t)) {
    std::memcpy(&Of<Layout>(layout).batch, value, bytes);
  } else if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && bytes == sizeof(int64_t)) {
    std::memcpy(&Of<Layout>(layout).stride, value, bytes);
  } else {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete &Of<Preference>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  const bool is_workspace = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
  if (bytes != (is_workspace ? sizeof(uint64_t) : sizeof(uint32_t))) return CUBLAS_STATUS_INVALID_VALUE;
  if (is_workspace) {
    std::memcpy(&Of<Preference>(preference).workspace_bytes, value, bytes);
  } else {
    uint32_t alignment = 0;
    std::memcpy(&alignment, value, bytes);
    most_alignment = std::max(most_alignment, static_cast<int>(alignment));
  }
  return CUBLAS_STATUS_SUCCESS;
}

// The algorithm needs its whole workspace limit.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a_desc, cublasLtMatrixLayout_t b_desc,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d_desc,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  ++searches;
  *count = 0;
  const Product& product = Of<Product>(desc);
  const Layout &a = Of<Layout>(a_desc), &b = Of<Layout>(b_desc), &d = Of<Layout>(d_desc);
  const bool transpose_a = product.transposes[0] == CUBLAS_OP_T, transpose_b = product.transposes[1] == CUBLAS_OP_T;
  const uint64_t inner = transpose_a ? a.rows : a.columns;
  const bool fits = requested > 0 && Fits(d, d.rows, d.columns, product) &&
                    Fits(a, transpose_a ? inner : d.rows, transpose_a ? d.rows : inner, product) &&
                    Fits(b, transpose_b ? d.columns : inner, transpose_b ? inner : d.columns, product);
  if (!fits || a.batch != d.batch || b.batch != d.batch) return CUBLAS_STATUS_INVALID_VALUE;
  if (d.batch > kMostOfBatch) return CUBLAS_STATUS_NOT_SUPPORTED;
  *count = 1;
  results[0] = {};
  results[0].algo.data[0] = results[0].workspaceSize = Of<Preference>(preference).workspace_bytes;
  // No algorithm exists for this product.
  results[0].state = d.rows == 13 && d.columns == 13 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_desc, const void* b, cublasLtMatrixLayout_t b_desc,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_desc, void* d,
                              cublasLtMatrixLayout_t d_desc, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t) {
  if (c != d || c_desc != d_desc || workspace_bytes < algo->data[0]) return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace_bytes > 0) std::memset(workspace, 0xff, workspace_bytes);
  ++products;
  const Product& product = Of<Product>(desc);
  compute_type = product.compute;
  const Layout &of_a = Of<Layout>(a_desc), &of_b = Of<Layout>(b_desc), &of_d = Of<Layout>(d_desc);
  if (product.scale == CUDA_R_32F) {
    Multiply(product, *static_cast<const float*>(alpha), static_cast<const float*>(a), of_a,
             static_cast<const float*>(b), of_b, *static_cast<const float*>(beta), static_cast<float*>(d), of_d);
  } else {
    Multiply(product, *static_cast<const double*>(alpha), static_cast<const double*>(a), of_a,
             static_cast<const double*>(b), of_b, *static_cast<const double*>(beta), static_cast<double*>(d), of_d);
  }
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "another status";
}

}  // extern "C"
