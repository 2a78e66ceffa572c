// The structs of DLPack 0.6 (https://dmlc.github.io/dlpack), under the name by which the C
// interface declares them. tests/c/dlpack_test.cc checks the offsets of their members.
#ifndef GRADWEAVE_FRONTEND_C_DLPACK_LAYOUT_H_
#define GRADWEAVE_FRONTEND_C_DLPACK_LAYOUT_H_

#include <cstdint>

namespace gradweave::dlpack {

// Devices whose memory the host can read: DLDeviceType's kDLCPU and kDLCUDAHost.
inline constexpr int32_t kCpu = 1, kCudaHost = 3;

// DLDataTypeCode. kBrainFloat is of version 0.4, and kBool of version 0.8.
enum Code : uint8_t { kInt = 0, kUnsigned = 1, kFloat = 2, kBrainFloat = 4, kBool = 6 };

struct Device {
  int32_t type;
  int32_t index;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t rank;
  DataType dtype;
  int64_t* sizes;
  int64_t* strides;  // In elements; null for row-major order without gaps.
  uint64_t byte_offset;
};

}  // namespace gradweave::dlpack

extern "C" struct DLManagedTensor {
  gradweave::dlpack::Tensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor* self);
};

#endif  // GRADWEAVE_FRONTEND_C_DLPACK_LAYOUT_H_
