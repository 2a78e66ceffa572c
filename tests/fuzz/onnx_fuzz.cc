// ONNX files. An input is a message Model, or any other bytes. A model that is imported is run on
// small feeds, saved and loaded.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_split.h"
#include "absl/types/optional.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/proto/onnx.pb.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/run_model.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

constexpr int64_t kMostBytes = 1 << 24;
constexpr size_t kMostMessage = 32100;  // An error lists many nodes, and an escape has up to four bytes.

// Texts that mean something in a file.
const std::vector<std::string>& Words() {
  static const auto* const words = [] {
    auto* all = new std::vector<std::string>{"axis",
                                             "axes",
                                             "alpha",
                                             "auto_pad",
                                             "SAME_UPPER",
                                             "SAME_LOWER",
                                             "VALID",
                                             "beta",
                                             "body",
                                             "then_branch",
                                             "else_branch",
                                             "ceil_mode",
                                             "count_include_pad",
                                             "dilations",
                                             "direction",
                                             "reverse",
                                             "bidirectional",
                                             "dtype",
                                             "to",
                                             "epsilon",
                                             "equation",
                                             "ij,jk->ik",
                                             "group",
                                             "hidden_size",
                                             "keepdims",
                                             "kernel_shape",
                                             "mode",
                                             "linear",
                                             "cubic",
                                             "nearest",
                                             "num_heads",
                                             "num_outputs",
                                             "num_scan_inputs",
                                             "perm",
                                             "pads",
                                             "strides",
                                             "storage_order",
                                             "seed",
                                             "shape",
                                             "size",
                                             "split",
                                             "scales",
                                             "transA",
                                             "transB",
                                             "value",
                                             "value_ints",
                                             "n",
                                             "x",
                                             "y",
                                             "w",
                                             "b",
                                             "location",
                                             "offset",
                                             "length",
                                             "../w",
                                             "com.microsoft",
                                             "ai.onnx.ml",
                                             "ai.onnx",
                                             "ai.onnx.preview.training",
                                             "9223372036854775807",
                                             "-1",
                                             "",
                                             "\x1b[2J",
                                             "\xff\xfe"};
    for (const absl::Span<const onnx::OpRow> rows : onnx::AllRows()) {
      for (const onnx::OpRow& row : rows) all->push_back(row.name);
    }
    return all;
  }();
  return *words;
}

// Values for inputs on which shapes depend: ones and twos of the shapes that the file has for them.
std::map<std::string, Tensor> ValuesOf(const onnx::proto::Model& message, absl::string_view names) {
  std::map<std::string, Tensor> values;
  for (const absl::string_view name : absl::StrSplit(names, '\n')) {
    for (const onnx::proto::ValueInfo& input : message.graph().input()) {
      if (input.name() != name) continue;
      const onnx::proto::Type::Tensor& type = input.type().tensor_type();
      const absl::StatusOr<DType> dtype = onnx::DTypeFromOnnx(type.elem_type());
      std::vector<int64_t> sizes;
      for (const onnx::proto::Dimension& dim : type.shape().dim())
        sizes.push_back(dim.dim_value() >= 1 && dim.dim_value() <= 8 ? dim.dim_value() : 2);
      if (!dtype.ok() || sizes.size() > 4) continue;
      Tensor value(kInt64, sizes);
      for (int64_t i = 0; i < value.num_elements(); ++i) value.mutable_data<int64_t>()[i] = 1 + i % 2;
      values.insert_or_assign(std::string(name), value.Cast(*dtype));
    }
  }
  return values;
}

}  // namespace
}  // namespace gradweave::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gradweave;  // NOLINT
  const absl::string_view bytes = fuzz::AsText(data, size);
  onnx::ImportOptions options{.memory_limit = fuzz::kMostBytes};
  absl::StatusOr<onnx::ImportedModel> model = onnx::ImportBytes(bytes, options);
  fuzz::CheckMessage(model.status(), fuzz::kMostMessage);
  onnx::proto::Model message;
  const absl::optional<absl::Cord> needed = model.status().GetPayload(onnx::kNeededInputs);
  if (needed.has_value() && message.ParseFromString(std::string(bytes))) {
    options.fixed = fuzz::ValuesOf(message, std::string(*needed));
    model = onnx::ImportBytes(bytes, options);
    fuzz::CheckMessage(model.status(), fuzz::kMostMessage);
  }
  if (model.ok()) fuzz::RunModel(model->model);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return gradweave::fuzz::MutatedFile<gradweave::onnx::proto::Model>(data, size, max_size, gradweave::fuzz::Words(),
                                                                     seed);
}
