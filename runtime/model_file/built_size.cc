#include "gradweave/runtime/model_file/built_size.h"

#include <algorithm>
#include <optional>

#include "gradweave/graph/attribute.h"
#include "gradweave/graph/dim.h"
#include "gradweave/proto/model.pb.h"

namespace gradweave {
namespace {

// Fields that are messages themselves. The bytes cover the message and what the graph has in its
// place.
struct MessageField {
  MessageKind parent;
  uint32_t number;
  MessageKind kind;
  int64_t bytes;
};
constexpr int64_t kPointer = sizeof(void*);
constexpr MessageField kMessageFields[] = {
    {MessageKind::kModel, 4, MessageKind::kGraph, sizeof(proto::Graph) + sizeof(Graph)},
    {MessageKind::kModel, 5, MessageKind::kVariable, sizeof(proto::Variable) + sizeof(Tensor) + sizeof(std::string)},
    {MessageKind::kModel, 17, MessageKind::kVariable, sizeof(proto::Variable) + sizeof(Tensor) + sizeof(std::string)},
    {MessageKind::kGraph, 1, MessageKind::kNode, sizeof(proto::Node) + sizeof(Node)},
    {MessageKind::kGraph, 2, MessageKind::kOutput, sizeof(proto::Output) + 4 * sizeof(std::string)},
    {MessageKind::kNode, 3, MessageKind::kAttribute, sizeof(proto::Attribute) + 2 * sizeof(NamedAttribute)},
    {MessageKind::kNode, 4, MessageKind::kPort, sizeof(proto::Port) + 2 * sizeof(Port)},
    {MessageKind::kOutput, 2, MessageKind::kPort, sizeof(proto::Port) + 2 * sizeof(Port)},
    {MessageKind::kAttribute, 6, MessageKind::kIntegers, sizeof(proto::Integers)},
    {MessageKind::kAttribute, 8, MessageKind::kShape, sizeof(proto::Shape)},
    {MessageKind::kAttribute, 9, MessageKind::kTensor, sizeof(proto::Tensor)},
    {MessageKind::kAttribute, 10, MessageKind::kGraph, sizeof(proto::Graph) + sizeof(Graph)},
    {MessageKind::kVariable, 2, MessageKind::kTensor, sizeof(proto::Tensor)},
};
// An element of a repeated number, or a field that this version does not know, in a vector that
// grew.
constexpr int64_t kNumberBytes = 48;
// A text, and a dimension, whose expression has the text of its terms and what orders them.
constexpr int64_t kTextBytes = 2 * sizeof(std::string), kDimBytes = 256, kDimTexts = 8;
// The parser refuses messages that are nested deeper.
constexpr int kMostNestedMessages = 100;

// Reads protobuf's wire format.
class Scanner {
 public:
  explicit Scanner(int64_t limit) : limit_(limit) {}

  int64_t bytes() const { return bytes_; }

  // Counts a message. Returns false beyond the limit, and for bytes that are not a message: the
  // parser stops there, too.
  bool Count(absl::string_view message, MessageKind kind, int depth) {
    while (!message.empty()) {
      const std::optional<uint64_t> tag = Varint(message);
      if (!tag.has_value()) return false;
      bytes_ += kNumberBytes;
      switch (*tag & 7) {
        case 0:
          if (!Varint(message).has_value()) return false;
          break;
        case 1:
          if (!Take(message, 8).has_value()) return false;
          break;
        case 2: {
          const std::optional<uint64_t> length = Varint(message);
          const std::optional<absl::string_view> field = length.has_value() ? Take(message, *length) : std::nullopt;
          // The parser's tags have 32 bits, and it drops those above them.
          if (!field.has_value() || !CountField(*field, kind, static_cast<uint32_t>(*tag) >> 3, depth)) return false;
          break;
        }
        case 5:
          if (!Take(message, 4).has_value()) return false;
          break;
        default:
          break;  // The begin and the end of a group, which no version has.
      }
      if (bytes_ > limit_) return false;
    }
    return true;
  }

 private:
  static std::optional<uint64_t> Varint(absl::string_view& from) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !from.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(from.front());
      from.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }

  static std::optional<absl::string_view> Take(absl::string_view& from, uint64_t length) {
    if (length > from.size()) return std::nullopt;
    const absl::string_view taken = from.substr(0, length);
    from.remove_prefix(length);
    return taken;
  }

  bool CountField(absl::string_view field, MessageKind kind, uint32_t number, int depth) {
    const auto found = std::find_if(std::begin(kMessageFields), std::end(kMessageFields), [&](const MessageField& row) {
      return row.parent == kind && row.number == number;
    });
    if (found != std::end(kMessageFields)) {
      bytes_ += found->bytes + kPointer;
      return depth == kMostNestedMessages || Count(field, found->kind, depth + 1);
    }
    const auto length = static_cast<int64_t>(field.size());
    // Packed numbers take a byte each in the file.
    const bool is_numbers = kind == MessageKind::kIntegers || (kind == MessageKind::kTensor && number == 2);
    bytes_ += kTextBytes + (is_numbers                    ? length * kNumberBytes
                            : kind == MessageKind::kShape ? kDimBytes + length * kDimTexts
                                                          : 2 * length);
    return true;
  }

  const int64_t limit_;
  int64_t bytes_ = 0;
};

}  // namespace

int64_t BuiltBytes(absl::string_view message, MessageKind kind, int64_t limit) {
  Scanner scanner(limit);
  scanner.Count(message, kind, 0);
  return scanner.bytes();
}

int64_t OutputBytes(const Node& node) {
  int64_t bytes = 0;
  for (const TensorType& type : node.outputs) {
    bytes += static_cast<int64_t>(sizeof(TensorType) + type.shape.rank() * sizeof(Dim));
    for (const Dim& dim : type.shape) {
      if (!dim.is_known()) bytes += kDimBytes + static_cast<int64_t>(dim.ToString().size()) * kDimTexts;
    }
  }
  return bytes;
}

}  // namespace gradweave
