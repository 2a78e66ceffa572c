// Calls of cuBLASLt, tested with a fake library that multiplies on the host as cuBLASLt is
// documented to.
#include "gradweave/runtime/cuda/api/cublas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

constexpr char kFake[] = "tests/cuda/libfake_cublaslt.so";

class CublasTest : public ::testing::Test {
 protected:
  static int Count(const char* function) {
    void* handle = dlopen(kFake, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(handle, nullptr) << dlerror();
    return reinterpret_cast<int (*)()>(dlsym(handle, function))();
  }
  void SetUp() override {
    Count("FakeProducts");
    Count("FakeSearches");
    Count("FakeMostAlignment");
  }

  Cublas cublas_{{"no_such_library.so", kFake}};
  int stream_ = 0;  // Only its address matters.
};

// Matrices of a batch. Rows are further apart than they are long.
template <typename T>
struct Matrices {
  int64_t rows, columns, leading, stride;
  std::vector<T> elements;

  Matrices(int64_t batch, int64_t of_rows, int64_t of_columns, int64_t more, bool same_for_all)
      : rows(of_rows), columns(of_columns), leading(of_columns + more), stride(same_for_all ? 0 : rows * leading + 5) {
    elements.resize(static_cast<size_t>((batch - 1) * stride + rows * leading));
    for (size_t i = 0; i < elements.size(); ++i) elements[i] = static_cast<T>(static_cast<int>(i * 7 % 11) - 5);
  }
  T At(int64_t i, int64_t row, int64_t column, bool transposed) const {
    return elements[i * stride + (transposed ? column * leading + row : row * leading + column)];
  }
};

template <typename T>
void CheckProduct(Cublas& cublas, CudaStream stream, bool transpose_a, bool transpose_b, bool one_a, int64_t batch,
                  double beta) {
  SCOPED_TRACE(
      absl::StrCat("transposed ", transpose_a, transpose_b, ", one a ", one_a, ", batch ", batch, ", beta ", beta));
  const int64_t m = 3, n = 5, k = 4;
  const Matrices<T> a(batch, transpose_a ? k : m, transpose_a ? m : k, 2, one_a);
  const Matrices<T> b(batch, transpose_b ? n : k, transpose_b ? k : n, 3, false);
  Matrices<T> c(batch, m, n, 1, false);
  const Matrices<T> before = c;
  const CudaGemm gemm{.dtype = DTypeOf<T>,
                      .transpose_a = transpose_a,
                      .transpose_b = transpose_b,
                      .m = m,
                      .n = n,
                      .k = k,
                      .a = a.elements.data(),
                      .lda = a.leading,
                      .b = b.elements.data(),
                      .ldb = b.leading,
                      .c = c.elements.data(),
                      .ldc = c.leading,
                      .batch = batch,
                      .stride_a = a.stride,
                      .stride_b = b.stride,
                      .stride_c = c.stride,
                      .alpha = 2,
                      .beta = beta};
  const absl::Status status = cublas.Gemm(gemm, 0, stream);
  ASSERT_TRUE(status.ok()) << status;
  // Memory between rows and matrices must stay unchanged.
  Matrices<T> want = before;
  for (int64_t i = 0; i < batch; ++i) {
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t column = 0; column < n; ++column) {
        T sum = 0;
        for (int64_t l = 0; l < k; ++l) sum += a.At(i, row, l, transpose_a) * b.At(i, l, column, transpose_b);
        T& element = want.elements[i * c.stride + row * c.leading + column];
        element = 2 * sum + static_cast<T>(beta) * element;
      }
    }
  }
  EXPECT_EQ(c.elements, want.elements);
}

TEST_F(CublasTest, MatricesAreStoredByRows) {
  for (bool transpose_a : {false, true}) {
    for (bool transpose_b : {false, true}) {
      for (bool one_a : {false, true}) {
        for (double beta : {0.0, 1.0}) {
          CheckProduct<float>(cublas_, &stream_, transpose_a, transpose_b, one_a, 3, beta);
          CheckProduct<double>(cublas_, &stream_, transpose_a, transpose_b, one_a, 1, beta);
        }
      }
    }
  }
  EXPECT_EQ(Count("FakeProducts"), 32);
}

TEST_F(CublasTest, LargeBatchesAreCut) {
  for (bool one_a : {false, true}) CheckProduct<float>(cublas_, &stream_, false, true, one_a, 70'000, 0);
  EXPECT_EQ(Count("FakeProducts"), 6);
}

TEST_F(CublasTest, AlgorithmsAreLookedUpOnce) {
  // The choice of an algorithm may depend on alignment, so these matrices are in one place.
  std::vector<float> x(300, 1);
  CudaGemm gemm{.m = 4, .n = 4, .k = 4, .a = x.data(), .lda = 4, .b = x.data() + 64, .ldb = 4};
  gemm.c = x.data() + 128;
  gemm.ldc = 4;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cublas_.Gemm(gemm, 0, &stream_).ok());
  EXPECT_EQ(Count("FakeSearches"), 1);
  gemm.a = x.data() + 1;
  ASSERT_TRUE(cublas_.Gemm(gemm, 0, &stream_).ok());
  EXPECT_EQ(Count("FakeSearches"), 1);
  // First without a workspace, then with one.
  std::vector<std::byte> workspace(kCublasWorkspaceBytes);
  cublas_.GiveWorkspace(&stream_, workspace.data());
  ASSERT_TRUE(cublas_.Gemm(gemm, 0, &stream_).ok());
  EXPECT_EQ(Count("FakeSearches"), 1);
  EXPECT_EQ(workspace.back(), std::byte{0xff});
  // Another stream, or one that was destroyed, has no workspace.
  workspace.assign(kCublasWorkspaceBytes, std::byte{0});
  int other_stream = 0;
  ASSERT_TRUE(cublas_.Gemm(gemm, 0, &other_stream).ok());
  cublas_.ForgetStream(&stream_);
  ASSERT_TRUE(cublas_.Gemm(gemm, 0, &stream_).ok());
  EXPECT_EQ(workspace[0], std::byte{0});
  EXPECT_EQ(x[128], 4);
}

// Plans put the same value at other multiples of 64. The result must not depend on that.
TEST_F(CublasTest, TheAlgorithmDoesNotDependOnThePlace) {
  std::vector<float> memory(1024, 1);
  float* x = memory.data();
  while (reinterpret_cast<uintptr_t>(x) % 256 != 0) ++x;
  CudaGemm gemm{.m = 4, .n = 4, .k = 4, .a = x, .lda = 4, .b = x + 64, .ldb = 4, .c = x + 128, .ldc = 4};
  ASSERT_TRUE(cublas_.Gemm(gemm, 0, &stream_).ok());
  EXPECT_EQ(Count("FakeSearches"), 1);
  EXPECT_EQ(Count("FakeMostAlignment"), 64);
  gemm.a = x + 16;
  gemm.b = x + 96;
  gemm.c = x + 144;
  ASSERT_TRUE(cublas_.Gemm(gemm, 0, &stream_).ok());
  EXPECT_EQ(Count("FakeSearches"), 0);
}

TEST_F(CublasTest, RoundsFactorsOnlyAsAskedFor) {
  std::vector<double> x(48, 1);
  CudaGemm gemm{.m = 4, .n = 4, .k = 4, .a = x.data(), .lda = 4, .b = x.data(), .ldb = 4, .c = x.data() + 32, .ldc = 4};
  auto compute_type = [&](DType dtype, ProductPrecision precision) {
    gemm.dtype = dtype;
    gemm.precision = precision;
    const absl::Status status = cublas_.Gemm(gemm, 0, &stream_);
    EXPECT_TRUE(status.ok()) << status;
    return Count("FakeComputeType");
  };
  EXPECT_EQ(CudaGemm().precision, ProductPrecision::kIeee);
  EXPECT_EQ(compute_type(kFloat32, ProductPrecision::kIeee), CUBLAS_COMPUTE_32F);
  EXPECT_EQ(compute_type(kFloat32, ProductPrecision::kTf32), CUBLAS_COMPUTE_32F_FAST_TF32);
  EXPECT_EQ(compute_type(kFloat32, ProductPrecision::kBfloat16), CUBLAS_COMPUTE_32F_FAST_16BF);
  // Each precision has algorithms of its own.
  EXPECT_EQ(Count("FakeSearches"), 3);
  for (ProductPrecision precision : {ProductPrecision::kIeee, ProductPrecision::kTf32, ProductPrecision::kBfloat16}) {
    EXPECT_EQ(compute_type(kFloat64, precision), CUBLAS_COMPUTE_64F);
  }
  EXPECT_EQ(Count("FakeSearches"), 1);
}

TEST_F(CublasTest, TellsWhatThereIsNoAlgorithmFor) {
  std::vector<float> x(200, 1);
  CudaGemm gemm{.m = 13, .n = 13, .k = 2, .a = x.data(), .lda = 2, .b = x.data(), .ldb = 13, .c = x.data(), .ldc = 13};
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = cublas_.Gemm(gemm, 0, &stream_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(status.message(), HasSubstr("not supported, for 1 products [13,2] x [2,13] of float32"));
  }
  gemm.precision = ProductPrecision::kTf32;
  EXPECT_THAT(cublas_.Gemm(gemm, 0, &stream_).message(), HasSubstr("of float32 in the precision tf32 with"));
  EXPECT_EQ(Count("FakeProducts"), 0);
  gemm.dtype = kInt32;
  EXPECT_THAT(cublas_.Gemm(gemm, 0, &stream_).message(), HasSubstr("no product of int32"));
}

TEST_F(CublasTest, IsMissed) {
  const absl::Status status = Cublas({"no_such_library.so"}).Gemm({.m = 1, .n = 1, .k = 1}, 0, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("no_such_library.so"));
  EXPECT_THAT(status.message(), HasSubstr("install the CUDA toolkit's cuBLAS"));
}

}  // namespace
}  // namespace gradweave
