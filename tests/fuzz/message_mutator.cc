#include "tests/fuzz/message_mutator.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gradweave/graph/check.h"
#include "tests/fuzz/target.h"

namespace gradweave::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMostText = 4096;

// Adds the message and all messages in it.
void Collect(Message& message, std::vector<Message*>& all) {
  all.push_back(&message);
  std::vector<const FieldDescriptor*> fields;
  const Reflection& reflection = *message.GetReflection();
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Collect(*reflection.MutableMessage(&message, field), all);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      Collect(*reflection.MutableRepeatedMessage(&message, field, i), all);
    }
  }
}

class Mutator {
 public:
  Mutator(absl::Span<const std::string> words, uint64_t seed) : words_(words), random_(seed) {}

  void Mutate(Message& root) {
    for (size_t count = 1 + Below(4); count > 0; --count) {
      std::vector<Message*> all;
      Collect(root, all);
      Message& message = *all[Below(all.size())];
      const auto& descriptor = *message.GetDescriptor();
      if (descriptor.field_count() == 0) continue;
      MutateField(message, *descriptor.field(static_cast<int>(Below(descriptor.field_count()))), all);
    }
  }

 private:
  size_t Below(size_t limit) { return static_cast<size_t>(random_() % limit); }

  // Numbers wrap around.
  int64_t Number(int64_t from) {
    const auto now = static_cast<uint64_t>(from);
    switch (Below(6)) {
      case 0:
        return static_cast<int64_t>(now + 1);
      case 1:
        return static_cast<int64_t>(now - 1);
      case 2:
        return static_cast<int64_t>((uint64_t{1} << Below(64)) - Below(2));
      case 3:
        return static_cast<int64_t>(-now);
      case 4:
        return std::numeric_limits<int64_t>::max() - static_cast<int64_t>(Below(64));
      default:
        return static_cast<int64_t>(Below(16));
    }
  }

  double Real(double now) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const double choices[] = {0, 1, -now, now * 2, 1e300, -1e-300, kInfinity, -kInfinity, kInfinity - kInfinity};
    return choices[Below(std::size(choices))];
  }

  // A double beyond the range of float has no value as one.
  static float AsFloat(double number) {
    constexpr double kMost = std::numeric_limits<float>::max();
    return std::isinf(number) ? static_cast<float>(number) : static_cast<float>(std::clamp(number, -kMost, kMost));
  }

  std::string Text(const std::string& now) {
    if (!words_.empty() && Below(2) == 0) return words_[Below(words_.size())];
    return MutatedBytes(now, kMostText, random_());
  }

  // Makes a new element of a repeated field: a copy of another one, or one that is like a message
  // of the same type elsewhere.
  void AddElement(Message& message, const FieldDescriptor& field, const std::vector<Message*>& all) {
    const Reflection& reflection = *message.GetReflection();
    const int size = reflection.FieldSize(message, &field);
    const int copied = size == 0 ? 0 : static_cast<int>(Below(size));
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        const Message* like = size == 0 ? nullptr : &reflection.GetRepeatedMessage(message, &field, copied);
        for (size_t tries = 0; tries < 8 && (like == nullptr || Below(2) == 0); ++tries) {
          const Message* other = all[Below(all.size())];
          if (other->GetDescriptor() == field.message_type()) like = other;
        }
        Message* added = like == nullptr ? nullptr : like->New();
        if (added != nullptr) added->CopyFrom(*like);
        if (added != nullptr) {
          reflection.AddAllocatedMessage(&message, &field, added);
        } else {
          reflection.AddMessage(&message, &field);
        }
        break;
      }
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.AddString(&message, &field,
                             Text(size == 0 ? "" : reflection.GetRepeatedString(message, &field, copied)));
        break;
      default:
        AddNumber(message, field);
        if (size > 0) reflection.SwapElements(&message, &field, copied, size);
        SetNumber(message, field, copied);
        break;
    }
  }

  static void AddNumber(Message& message, const FieldDescriptor& field) {
    const Reflection& reflection = *message.GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.AddInt32(&message, &field, 0);
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.AddInt64(&message, &field, 0);
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.AddUInt64(&message, &field, 0);
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.AddFloat(&message, &field, 0);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.AddDouble(&message, &field, 0);
      default:
        GW_CHECK(false, field.full_name(), " repeats a type that the mutator does not know");
    }
  }

  void SetNumber(Message& message, const FieldDescriptor& field, int at) {
    const Reflection& reflection = *message.GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.SetRepeatedInt32(
            &message, &field, at, static_cast<int32_t>(Number(reflection.GetRepeatedInt32(message, &field, at))));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.SetRepeatedInt64(&message, &field, at,
                                           Number(reflection.GetRepeatedInt64(message, &field, at)));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.SetRepeatedUInt64(
            &message, &field, at,
            static_cast<uint64_t>(Number(static_cast<int64_t>(reflection.GetRepeatedUInt64(message, &field, at)))));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.SetRepeatedFloat(&message, &field, at,
                                           AsFloat(Real(reflection.GetRepeatedFloat(message, &field, at))));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.SetRepeatedDouble(&message, &field, at,
                                            Real(reflection.GetRepeatedDouble(message, &field, at)));
      default:
        return;
    }
  }

  void MutateRepeated(Message& message, const FieldDescriptor& field, const std::vector<Message*>& all) {
    const Reflection& reflection = *message.GetReflection();
    const int size = reflection.FieldSize(message, &field);
    const int at = size == 0 ? 0 : static_cast<int>(Below(size));
    switch (size == 0 ? 0 : Below(5)) {
      case 0:
        return AddElement(message, field, all);
      case 1:
        reflection.SwapElements(&message, &field, at, size - 1);
        return reflection.RemoveLast(&message, &field);
      case 2:
        return reflection.SwapElements(&message, &field, at, static_cast<int>(Below(size)));
      default:
        break;
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      reflection.SetRepeatedString(&message, &field, at, Text(reflection.GetRepeatedString(message, &field, at)));
    } else {
      SetNumber(message, field, at);
    }
  }

  void MutateField(Message& message, const FieldDescriptor& field, const std::vector<Message*>& all) {
    if (field.is_repeated()) return MutateRepeated(message, field, all);
    const Reflection& reflection = *message.GetReflection();
    if (reflection.HasField(message, &field) && Below(6) == 0) return reflection.ClearField(&message, &field);
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection.SetBool(&message, &field, Below(2) == 0);
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection.SetInt32(&message, &field,
                                   static_cast<int32_t>(Number(reflection.GetInt32(message, &field))));
      case FieldDescriptor::CPPTYPE_INT64:
        return reflection.SetInt64(&message, &field, Number(reflection.GetInt64(message, &field)));
      case FieldDescriptor::CPPTYPE_UINT32:
        return reflection.SetUInt32(&message, &field,
                                    static_cast<uint32_t>(Number(reflection.GetUInt32(message, &field))));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection.SetUInt64(
            &message, &field,
            static_cast<uint64_t>(Number(static_cast<int64_t>(reflection.GetUInt64(message, &field)))));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return reflection.SetFloat(&message, &field, AsFloat(Real(reflection.GetFloat(message, &field))));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return reflection.SetDouble(&message, &field, Real(reflection.GetDouble(message, &field)));
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection.SetString(&message, &field, Text(reflection.GetString(message, &field)));
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        // The new value may free another message, such as the tensor of an attribute that becomes a
        // graph.
        const Message* other = all[Below(all.size())];
        const std::string bytes =
            other->GetDescriptor() == field.message_type() ? other->SerializePartialAsString() : "";
        reflection.MutableMessage(&message, &field)->ParsePartialFromString(bytes);
        return;
      }
      default:
        return;
    }
  }

  absl::Span<const std::string> words_;
  std::mt19937_64 random_;
};

}  // namespace

void MutateMessage(Message& message, absl::Span<const std::string> words, uint64_t seed) {
  Mutator(words, seed).Mutate(message);
}

}  // namespace gradweave::fuzz
