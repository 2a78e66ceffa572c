#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gradweave/frontend/c/dlpack_layout.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gradweave/frontend/c/handles.h"
#include "gradweave/frontend/c/status.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {
namespace {

struct DTypeRow {
  DType dtype;
  const char* name;
  dlpack::DataType dlpack;
};

// The engine's dtypes, in the order of gw_dtype.
constexpr DTypeRow kDTypes[] = {
    {kFloat32, "float32", {dlpack::kFloat, 32, 1}},  {kFloat64, "float64", {dlpack::kFloat, 64, 1}},
    {kInt32, "int32", {dlpack::kInt, 32, 1}},        {kInt64, "int64", {dlpack::kInt, 64, 1}},
    {kUint8, "uint8", {dlpack::kUnsigned, 8, 1}},    {kBool, "bool", {dlpack::kBool, 8, 1}},
    {kFloat16, "float16", {dlpack::kFloat, 16, 1}},  {kBFloat16, "bfloat16", {dlpack::kBrainFloat, 16, 1}},
    {kInt8, "int8", {dlpack::kInt, 8, 1}},           {kInt16, "int16", {dlpack::kInt, 16, 1}},
    {kUint16, "uint16", {dlpack::kUnsigned, 16, 1}}, {kUint32, "uint32", {dlpack::kUnsigned, 32, 1}},
    {kUint64, "uint64", {dlpack::kUnsigned, 64, 1}},
};
static_assert(static_cast<int>(kFloat32) == GW_FLOAT32 && static_cast<int>(kFloat64) == GW_FLOAT64 &&
              static_cast<int>(kInt32) == GW_INT32 && static_cast<int>(kInt64) == GW_INT64 &&
              static_cast<int>(kUint8) == GW_UINT8 && static_cast<int>(kBool) == GW_BOOL &&
              static_cast<int>(kFloat16) == GW_FLOAT16 && static_cast<int>(kBFloat16) == GW_BFLOAT16 &&
              static_cast<int>(kInt8) == GW_INT8 && static_cast<int>(kInt16) == GW_INT16 &&
              static_cast<int>(kUint16) == GW_UINT16 && static_cast<int>(kUint32) == GW_UINT32 &&
              static_cast<int>(kUint64) == GW_UINT64 && std::size(kDTypes) == GW_UINT64 + 1);

// NumPy's limit is 64 too. A tensor of more axes is a mistake.
constexpr int32_t kMostAxes = 64;

const DTypeRow* FindRow(gw_dtype dtype) {
  return dtype >= GW_FLOAT32 && dtype <= GW_UINT64 ? &kDTypes[dtype] : nullptr;
}

absl::StatusOr<DType> CheckDType(gw_dtype dtype) {
  const DTypeRow* const row = FindRow(dtype);
  if (row == nullptr) return absl::InvalidArgumentError(absl::StrCat("dtype ", dtype, " is not a gw_dtype"));
  return row->dtype;
}

// Checks memory that a tensor shall be a view of.
absl::Status CheckMemory(DType dtype, absl::Span<const int64_t> sizes, const void* data) {
  const std::optional<int64_t> count = CheckedNumElements(sizes);
  const int64_t bytes = static_cast<int64_t>(DTypeSize(dtype));
  if (!count.has_value() || *count > std::numeric_limits<int64_t>::max() / bytes)
    return absl::InvalidArgumentError("a size is negative, or there are too many elements");
  if (*count > 0) GW_RETURN_IF_ERROR(CheckGiven({{"data", data}}));
  if (reinterpret_cast<uintptr_t>(data) % bytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("the address of the elements is not a multiple of ", bytes,
                                                   ", the bytes of a ", DTypeName(dtype)));
  }
  return absl::OkStatus();
}

// Calls a function of the caller when the last tensor of its memory is gone.
template <typename Argument>
struct Release {
  void (*function)(Argument*) = nullptr;
  Argument* argument = nullptr;

  Release() = default;
  Release(const Release&) = delete;
  Release& operator=(const Release&) = delete;
  ~Release() {
    if (function != nullptr) function(argument);
  }
};

// The function is called only if this succeeds.
template <typename Argument>
std::unique_ptr<gw_tensor> View(DType dtype, absl::Span<const int64_t> sizes, void* data, void (*function)(Argument*),
                                Argument* argument) {
  auto owner = std::make_shared<Release<Argument>>();
  auto result = std::make_unique<gw_tensor>(gw_tensor{Tensor::View(dtype, sizes, data, owner)});
  owner->argument = argument;
  owner->function = function;
  return result;
}

absl::StatusOr<DType> DTypeOfDlpack(const dlpack::DataType& type) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dlpack.code == type.code && row.dlpack.bits == type.bits && type.lanes == 1) return row.dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no dtype has DLPack's code ", type.code, " with ", type.bits, " bits and ", type.lanes, " lanes"));
}

absl::Status CheckStrides(absl::Span<const int64_t> sizes, const int64_t* strides) {
  if (strides == nullptr || CheckedNumElements(sizes) == 0) return absl::OkStatus();
  int64_t expected = 1;
  for (int axis = static_cast<int>(sizes.size()) - 1; axis >= 0; --axis) {
    if (sizes[axis] == 1) continue;  // Its stride moves nothing.
    if (strides[axis] != expected) {
      return absl::InvalidArgumentError(absl::StrCat("axis ", axis, " has stride ", strides[axis], ", and elements in ",
                                                     "row-major order without gaps have ", expected,
                                                     ": copy the tensor first"));
    }
    expected *= sizes[axis];
  }
  return absl::OkStatus();
}

// A tensor that another library owns, and the data that the struct points to.
struct Export {
  explicit Export(const Tensor& shared) : tensor(shared), sizes(shared.sizes().begin(), shared.sizes().end()) {
    // A tensor without elements has any strides: products of its sizes may be no int64.
    strides.assign(sizes.size(), 1);
    int64_t stride = 1;
    for (size_t axis = sizes.size(); axis-- > 0 && tensor.num_elements() > 0; stride *= sizes[axis])
      strides[axis] = stride;
    managed.tensor = {.data = tensor.mutable_raw_data(),
                      .device = {dlpack::kCpu, 0},
                      .rank = tensor.rank(),
                      .dtype = kDTypes[static_cast<int>(tensor.dtype())].dlpack,
                      .sizes = sizes.data(),
                      .strides = strides.data(),
                      .byte_offset = 0};
    managed.context = this;
    managed.deleter = [](DLManagedTensor* self) { delete static_cast<Export*>(self->context); };
  }

  Tensor tensor;
  std::vector<int64_t> sizes, strides;
  DLManagedTensor managed;
};

}  // namespace

absl::StatusOr<absl::Span<const int64_t>> CheckSizes(int32_t rank, const int64_t* sizes) {
  if (rank < 0 || rank > kMostAxes)
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " is outside [0, ", kMostAxes, "]"));
  if (rank > 0) GW_RETURN_IF_ERROR(CheckGiven({{"sizes", sizes}}));
  return absl::Span<const int64_t>(sizes, rank);
}

}  // namespace gradweave

using namespace gradweave;  // NOLINT: the functions below are those of the C interface alone.

size_t gw_dtype_size(gw_dtype dtype) {
  const DTypeRow* const row = FindRow(dtype);
  return row != nullptr ? DTypeSize(row->dtype) : 0;
}

const char* gw_dtype_name(gw_dtype dtype) {
  const DTypeRow* const row = FindRow(dtype);
  return row != nullptr ? row->name : "";
}

gw_status gw_tensor_create(gw_dtype dtype, int32_t rank, const int64_t* sizes, gw_tensor** tensor) {
  return Guard("gw_tensor_create", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"tensor", tensor}}));
    *tensor = nullptr;
    GW_ASSIGN_OR_RETURN(const DType type, CheckDType(dtype));
    GW_ASSIGN_OR_RETURN(const absl::Span<const int64_t> checked, CheckSizes(rank, sizes));
    GW_ASSIGN_OR_RETURN(Tensor result, Tensor::Create(type, checked));
    *tensor = new gw_tensor{std::move(result)};
    return absl::OkStatus();
  });
}

gw_status gw_tensor_view(gw_dtype dtype, int32_t rank, const int64_t* sizes, void* data, void (*release)(void* context),
                         void* context, gw_tensor** tensor) {
  return Guard("gw_tensor_view", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"tensor", tensor}}));
    *tensor = nullptr;
    GW_ASSIGN_OR_RETURN(const DType type, CheckDType(dtype));
    GW_ASSIGN_OR_RETURN(const absl::Span<const int64_t> checked, CheckSizes(rank, sizes));
    GW_RETURN_IF_ERROR(CheckMemory(type, checked, data));
    *tensor = View(type, checked, data, release, context).release();
    return absl::OkStatus();
  });
}

gw_dtype gw_tensor_dtype(const gw_tensor* tensor) {
  return tensor != nullptr ? static_cast<gw_dtype>(tensor->tensor.dtype()) : GW_FLOAT32;
}
int32_t gw_tensor_rank(const gw_tensor* tensor) { return tensor != nullptr ? tensor->tensor.rank() : 0; }
const int64_t* gw_tensor_sizes(const gw_tensor* tensor) {
  return tensor != nullptr ? tensor->tensor.sizes().data() : nullptr;
}
size_t gw_tensor_num_bytes(const gw_tensor* tensor) { return tensor != nullptr ? tensor->tensor.byte_size() : 0; }
void* gw_tensor_data(const gw_tensor* tensor) {
  return tensor != nullptr ? const_cast<void*>(tensor->tensor.raw_data()) : nullptr;
}

void gw_tensor_destroy(gw_tensor* tensor) { delete tensor; }

gw_status gw_tensor_from_dlpack(DLManagedTensor* managed, gw_tensor** tensor) {
  return Guard("gw_tensor_from_dlpack", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"tensor", tensor}}));
    *tensor = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"managed", managed}}));
    const dlpack::Tensor& from = managed->tensor;
    if (from.device.type != dlpack::kCpu && from.device.type != dlpack::kCudaHost) {
      return absl::InvalidArgumentError(absl::StrCat("the tensor is on DLPack's device type ", from.device.type,
                                                     ", and only memory of the host can be read: copy it there first"));
    }
    GW_ASSIGN_OR_RETURN(const DType type, DTypeOfDlpack(from.dtype));
    GW_ASSIGN_OR_RETURN(const absl::Span<const int64_t> sizes, CheckSizes(from.rank, from.sizes));
    char* const data = from.data != nullptr ? static_cast<char*>(from.data) + from.byte_offset : nullptr;
    GW_RETURN_IF_ERROR(CheckMemory(type, sizes, data));
    GW_RETURN_IF_ERROR(CheckStrides(sizes, from.strides));
    *tensor = View(type, sizes, data, managed->deleter, managed).release();
    return absl::OkStatus();
  });
}

gw_status gw_tensor_to_dlpack(const gw_tensor* tensor, DLManagedTensor** managed) {
  return Guard("gw_tensor_to_dlpack", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(CheckGiven({{"managed", managed}}));
    *managed = nullptr;
    GW_RETURN_IF_ERROR(CheckGiven({{"tensor", tensor}}));
    *managed = &(new Export(tensor->tensor))->managed;
    return absl::OkStatus();
  });
}
