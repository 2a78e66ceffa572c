// Tensors that go to and come from other libraries as DLPack structs.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/c/dlpack_layout.h"
#include "gradweave/frontend/c/gradweave.h"
#include "gtest/gtest.h"
#include "tests/c/handles.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The offsets of the members in dlpack.h of version 0.6 on 64-bit machines, read from Debian's
// libdlpack-dev.
static_assert(offsetof(dlpack::Tensor, device) == 8 && offsetof(dlpack::Tensor, rank) == 16 &&
              offsetof(dlpack::Tensor, dtype) == 20 && offsetof(dlpack::Tensor, sizes) == 24 &&
              offsetof(dlpack::Tensor, strides) == 32 && offsetof(dlpack::Tensor, byte_offset) == 40);
static_assert(offsetof(DLManagedTensor, context) == 48 && offsetof(DLManagedTensor, deleter) == 56 &&
              sizeof(DLManagedTensor) == 64);

// A tensor of another library: float32 [2,3] behind four bytes, with a counter of its deleter's
// calls.
struct Foreign {
  float elements[7] = {-1, 1, 2, 3, 4, 5, 6};
  int64_t sizes[2] = {2, 3}, strides[2] = {3, 1};
  int deleted = 0;
  DLManagedTensor managed = {
      .tensor = {elements, {dlpack::kCpu, 0}, 2, {dlpack::kFloat, 32, 1}, sizes, strides, sizeof(float)},
      .context = this,
      .deleter = [](DLManagedTensor* self) { ++static_cast<Foreign*>(self->context)->deleted; }};
};

TEST(Dlpack, TakesATensorOverWithoutACopy) {
  Foreign foreign;
  TensorHandle tensor;
  ASSERT_EQ(gw_tensor_from_dlpack(&foreign.managed, &tensor.handle), GW_OK) << gw_last_error();
  EXPECT_EQ(gw_tensor_data(tensor.handle), foreign.elements + 1);
  EXPECT_EQ(gw_tensor_dtype(tensor.handle), GW_FLOAT32);
  EXPECT_EQ(gw_tensor_num_bytes(tensor.handle), 24u);
  EXPECT_EQ(foreign.deleted, 0);
  tensor.Reset();
  EXPECT_EQ(foreign.deleted, 1);
}

TEST(Dlpack, HandsATensorOnThatOutlivesItsHandle) {
  for (gw_dtype dtype = GW_FLOAT32; dtype <= GW_UINT64; ++dtype) {
    const int64_t sizes[] = {2, 3, 1};
    TensorHandle tensor, back;
    ASSERT_EQ(gw_tensor_create(dtype, 3, sizes, &tensor.handle), GW_OK) << gw_last_error();
    unsigned char* const data = static_cast<unsigned char*>(gw_tensor_data(tensor.handle));
    data[0] = 1;
    DLManagedTensor* managed = nullptr;
    ASSERT_EQ(gw_tensor_to_dlpack(tensor.handle, &managed), GW_OK) << gw_last_error();
    tensor.Reset();
    EXPECT_EQ(managed->tensor.data, data);
    EXPECT_EQ(managed->tensor.dtype.bits, 8 * gw_dtype_size(dtype));
    EXPECT_THAT(std::vector<int64_t>(managed->tensor.strides, managed->tensor.strides + 3), ElementsAre(3, 1, 1));
    ASSERT_EQ(gw_tensor_from_dlpack(managed, &back.handle), GW_OK) << gw_last_error();
    EXPECT_EQ(gw_tensor_dtype(back.handle), dtype);
    EXPECT_EQ(gw_tensor_data(back.handle), data);
    EXPECT_EQ(data[0], 1);  // The sanitizers see a use after free.
  }
}

TEST(Dlpack, RefusesWhatItCannotRead) {
  struct Row {
    const char* message;
    void (*spoil)(Foreign& foreign);
  };
  const Row rows[] = {
      {"device type 2, and only memory of the host", [](Foreign& f) { f.managed.tensor.device.type = 2; }},
      {"no dtype has DLPack's code 2 with 8 bits", [](Foreign& f) { f.managed.tensor.dtype.bits = 8; }},
      {"and 4 lanes", [](Foreign& f) { f.managed.tensor.dtype.lanes = 4; }},
      {"rank -1 is outside", [](Foreign& f) { f.managed.tensor.rank = -1; }},
      {"sizes is NULL", [](Foreign& f) { f.managed.tensor.sizes = nullptr; }},
      {"a size is negative", [](Foreign& f) { f.sizes[0] = -2; }},
      {"data is NULL", [](Foreign& f) { f.managed.tensor.data = nullptr; }},
      {"not a multiple of 4", [](Foreign& f) { f.managed.tensor.byte_offset = 1; }},
      {"axis 1 has stride 2", [](Foreign& f) { f.strides[1] = 2; }},
      {"axis 0 has stride 1", [](Foreign& f) { f.strides[0] = 1; }},
  };
  for (const Row& row : rows) {
    Foreign foreign;
    row.spoil(foreign);
    TensorHandle tensor;
    EXPECT_EQ(gw_tensor_from_dlpack(&foreign.managed, &tensor.handle), GW_INVALID_ARGUMENT) << row.message;
    EXPECT_THAT(gw_last_error(), HasSubstr(row.message));
    EXPECT_EQ(tensor.handle, nullptr);
    EXPECT_EQ(foreign.deleted, 0) << "the caller keeps what is refused";
  }
}

}  // namespace
}  // namespace gradweave
