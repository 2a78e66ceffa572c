#include "gradweave/frontend/onnx/import.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/proto/onnx.pb.h"
#include "gradweave/runtime/model_file/file_pair.h"

namespace gradweave::onnx {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// Counts the memory of a parsed message from its wire format. The bytes are not trusted: an empty
// node takes two bytes in the file and some hundred in memory. Stops beyond the limit, and at bytes
// that are not a message.
class ParsedSize {
 public:
  explicit ParsedSize(int64_t limit) : limit_(limit) {}

  int64_t bytes() const { return bytes_; }

  bool Count(absl::string_view message, const Descriptor& type, int depth) {
    constexpr int kMostNested = 100;  // The parser refuses messages that are nested deeper.
    if (depth > kMostNested) return false;
    while (!message.empty()) {
      uint64_t tag = 0, length = 0;
      if (!Varint(message, tag)) return false;
      switch (tag & 7) {
        case 0:
          if (!Varint(message, length)) return false;
          bytes_ += 2 * kNumber;
          break;
        case 1:
        case 5:
          length = (tag & 7) == 1 ? 8 : 4;
          if (length > message.size()) return false;
          message.remove_prefix(length);
          bytes_ += 2 * kNumber;
          break;
        case 2: {
          if (!Varint(message, length) || length > message.size()) return false;
          const absl::string_view field = message.substr(0, length);
          message.remove_prefix(length);
          const FieldDescriptor* known = type.FindFieldByNumber(static_cast<int>(static_cast<uint32_t>(tag) >> 3));
          if (known != nullptr && known->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
            bytes_ += kMessage + 2 * kNumber * known->message_type()->field_count();
            if (!Count(field, *known->message_type(), depth + 1)) return false;
          } else if (known != nullptr && known->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
            bytes_ += 2 * kNumber * static_cast<int64_t>(length);  // Packed numbers of a byte each.
          } else {
            bytes_ += kText + static_cast<int64_t>(length);
          }
          break;
        }
        default:
          return false;
      }
      if (bytes_ > limit_) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kNumber = 8, kText = 96, kMessage = 64;

  static bool Varint(absl::string_view& from, uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !from.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(from.front());
      from.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  const int64_t limit_;
  int64_t bytes_ = 0;
};

// Imports the model. If a node does not fit for all sizes, tries guesses of sizes, and keeps one
// with which more nodes fit.
absl::StatusOr<ImportedModel> ImportInAttempts(proto::Model& model, const ImportOptions& options,
                                               const std::string& folder, int64_t room) {
  constexpr int kMostAttempts = 64;
  Knowledge knowledge{.room = room};
  std::optional<absl::Status> error;  // The error of the furthest attempt.
  std::vector<SizeGuess> guesses;     // Guesses that may follow it.
  size_t next = 0;
  int furthest = 0;
  OpenSizes kept;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    // Attempts share the initializers, and no other tensors. Those that still have their elements
    // in the message, or in another file, took room of their own.
    knowledge.room = room;
    for (size_t i = 0; i < knowledge.initializers.size(); ++i) {
      const proto::Tensor& message = model.graph().initializer(static_cast<int>(i));
      const bool is_copy = message.has_raw_data() || message.data_location() == 1 || message.float_data_size() > 0 ||
                           message.int32_data_size() > 0 || message.int64_data_size() > 0 ||
                           message.double_data_size() > 0 || message.uint64_data_size() > 0;
      if (is_copy && knowledge.initializers[i].ok())
        knowledge.room -= static_cast<int64_t>(knowledge.initializers[i]->byte_size());
    }
    Importer importer(model, options, folder, knowledge);
    absl::StatusOr<ImportedModel> imported = importer.Run();
    if (imported.ok()) return imported;
    if (importer.again()) continue;
    // Without a node that did not fit, the list of problems is complete.
    if (!error.has_value() || importer.num_fitting() == 0 || importer.num_fitting() > furthest) {
      error = imported.status();
      guesses = importer.guesses();
      next = 0;
      furthest = importer.num_fitting();
      kept = knowledge.sizes;
    }
    knowledge.sizes = kept;
    if (next == guesses.size()) break;
    for (const auto& [symbol, size] : guesses[next]) knowledge.sizes.Set(symbol, size);
    ++next;
  }
  return error.has_value() ? *error : absl::InternalError("the import finds no sizes that fit");
}

absl::StatusOr<ImportedModel> ImportMessage(absl::string_view bytes, const ImportOptions& options,
                                            const std::string& folder, std::optional<Tensor> storage) {
  ParsedSize size(options.memory_limit);
  size.Count(bytes, *proto::Model::descriptor(), 0);
  if (size.bytes() > options.memory_limit) return BeyondLimit(options.memory_limit);
  proto::Model model;
  if (bytes.size() > INT32_MAX || !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("it is not an ONNX model, is damaged or truncated, or is nested too deep");
  }
  storage.reset();  // The file's bytes are not needed any more.
  return ImportInAttempts(model, options, folder, options.memory_limit - size.bytes());
}

// The error as one printable line of bounded length, whatever names of the file it quotes. It begins
// with the path, if there is one.
absl::Status AsLine(const std::string& path, const absl::Status& status) {
  constexpr size_t kMostBytes = 8000;
  std::string line = path.empty() ? "" : absl::StrCat(PrintableText(path), ": ");
  absl::StrAppend(&line, PrintableLine(status.message().substr(0, kMostBytes)),
                  status.message().size() > kMostBytes ? " ..." : "");
  absl::Status named(status.code(), line);
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) { named.SetPayload(type, payload); });
  return named;
}

}  // namespace

Value ImportedModel::Input(absl::string_view name) {
  if (std::find(inputs.begin(), inputs.end(), name) == inputs.end()) return Value();
  return model.graph.value(model.graph.FindNamed(name));
}

Value ImportedModel::Output(absl::string_view name) {
  const std::vector<Value> values = model.graph.Output(name);
  return values.empty() ? Value() : values[0];
}

absl::StatusOr<ImportedModel> ImportBytes(absl::string_view bytes, ImportOptions options,
                                          const std::string& folder) try {
  absl::StatusOr<ImportedModel> model = ImportMessage(bytes, options, folder, std::nullopt);
  if (!model.ok()) return AsLine("", model.status());
  return model;
}
GW_CATCH_OUT_OF_MEMORY("onnx::ImportBytes")

absl::StatusOr<ImportedModel> Import(const std::string& path, ImportOptions options) try {
  GW_ASSIGN_OR_RETURN(Tensor file, ReadWholeFile(path, options.memory_limit));
  const absl::string_view bytes(static_cast<const char*>(file.raw_data()), file.byte_size());
  absl::StatusOr<ImportedModel> model = ImportMessage(bytes, options, FolderOf(path), std::move(file));
  if (!model.ok()) return AsLine(path, model.status());
  return model;
}
GW_CATCH_OUT_OF_MEMORY("onnx::Import")

}  // namespace gradweave::onnx
